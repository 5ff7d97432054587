"""I1, I3 and I13 live here: one gate for every disruption, whoever asks (deploy, drill, person).

A guard returns the reason to refuse, or None. A guard that cannot be evaluated refuses: no data is never a yes (I2).
Rules are judged on the state after the change (I4): capacity is what is left once the zone is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor

import msgspec

from orchestrator.core.health import GatePolicy
from orchestrator.core.topology import Topology
from orchestrator.core.traffic import Placement, ZoneSeen

WEIGHT_MAX = 255  # Route 53 weighted records take 0..255


@dataclass(frozen=True, slots=True)
class Refusal:
    """`rule` is the invariant that says no; `reason` prints the arithmetic."""

    rule: str
    reason: str


class ZoneLoad(msgspec.Struct, frozen=True):
    """One zone as measured now: `healthy` of its `instances` are ready and meant to stay; `errors` of `requests` failed.

    `brief`: so few requests came that a longer look may still show what they do not.
    """

    zone: str
    rps: float
    instances: int
    healthy: int
    requests: int = 0
    errors: int = 0
    brief: bool = False


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """What must be true before the zone leaves. `scale`: survivor -> instances; `weights`: the global tier meanwhile."""

    scale: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    arithmetic: str = ""


def refuse_second_zone_out(zone: str, seen: Mapping[str, ZoneSeen]) -> Refusal | None:
    """I1: every other zone of the service must be steady, by what the clouds say now, not by what we remember."""
    if zone not in seen:
        return Refusal("I1", f"nobody can say where the traffic of {zone} goes")
    return refuse_beside_zones_out(zone, {z: s for z, s in seen.items() if z != zone})


def refuse_beside_zones_out(place: str, others: Mapping[str, ZoneSeen]) -> Refusal | None:
    """I1: the same for a zone or for regions that leave, and all zones that stay."""
    out = sorted(z for z, s in others.items() if s.placement is not Placement.STEADY)
    if out:
        told = ", ".join(f"{z} is {others[z].placement or 'between placements'}" for z in out)
        return Refusal("I1", f"{place} may not leave: {told}; one zone may be out at a time")
    return None


def refuse_absent_survivors(zone: str, seen: Mapping[str, ZoneSeen]) -> Refusal | None:
    """I2: what the agents call ready carries nothing until its load balancer sends users there. Zero are not all."""
    absent = [
        f"{z} takes traffic on {s.taking} of {s.total} instances"
        for z, s in sorted(seen.items())
        if z != zone and (s.total == 0 or min(s.taking, s.healthy) < s.total)
    ]
    return Refusal("I2", f"{zone} may not leave: {', '.join(absent)}") if absent else None


def refuse_beside_one_on_its_way(
    zone: str, seen: Mapping[str, ZoneSeen], loads: Mapping[str, ZoneLoad]
) -> Refusal | None:
    """I1: a sound zone that takes no users yet is out, whatever was wished for it: its load balancer has yet to see it.

    Asked last: it is I2's first (`refuse_absent_survivors`), and a person may have overridden that for a dead one.
    """
    on_their_way = [
        z
        for z, s in sorted(seen.items())
        if z != zone and not min(s.taking, s.healthy) and z in loads and loads[z].healthy
    ]
    if on_their_way:
        told = ", ".join(f"{z} is ready and takes no users yet" for z in on_their_way)
        return Refusal("I1", f"{zone} may not leave: {told}; one zone may be out at a time")
    return None


def refuse_unsound_survivors(
    zone: str, loads: Mapping[str, ZoneLoad], topology: Topology, gate: GatePolicy
) -> Refusal | None:
    """I2: every other zone has all of its instances ready, and its users' requests answered. Zero are not all ready."""
    others = [(z.id, loads.get(z.id)) for z in topology.zones() if z.id != zone]
    sick = [why for z, load in others if (why := unsound(z, load, gate) or _barely_watched(z, load))]
    return Refusal("I2", f"{zone} may not leave: {', '.join(sick)}") if sick else None


def _barely_watched(zone: str, load: ZoneLoad | None) -> str | None:
    return (
        f"{zone} served {load.requests} requests so far, too few to tell: it is watched for longer"
        if load and load.brief
        else None
    )


def unsound(zone: str, load: ZoneLoad | None, gate: GatePolicy) -> str | None:
    if load is None:
        return f"{zone} is unmeasured"
    if load.instances == 0 or load.healthy < load.instances:
        return f"{zone} has {load.healthy} of {load.instances} ready"
    if load.errors >= gate.errors_min and load.errors > load.requests * gate.error_share_max:
        return f"{zone} fails {load.errors} of {load.requests} requests"
    return None


def refuse_replacing(zone: str, seen: ZoneSeen | None, in_flight: int | None) -> Refusal | None:
    """I13: no instance is replaced while its zone takes traffic."""
    if seen is None or in_flight is None:
        return Refusal("I13", f"nobody can say whether {zone} takes traffic")
    if seen.placement is not Placement.OUT or seen.taking or seen.draining or in_flight:
        return Refusal(
            "I13",
            f"{zone} is {seen.placement or 'between placements'}: {seen.taking} instances take traffic, "
            f"{seen.draining} drain, {in_flight} requests are in flight",
        )
    return None


def _capacity_rps(topology: Topology, loads: Mapping[str, ZoneLoad], region: str, without: str | None) -> float:
    zones = (z for z in topology.region(region).zones if z.id != without and z.id in loads)
    return sum(z.rps_per_instance * loads[z.id].healthy for z in zones)


def carrying(loads: Mapping[str, ZoneLoad], seen: Mapping[str, ZoneSeen], but: Collection[str]) -> dict[str, ZoneLoad]:
    """Count of each zone what it carries (I3): out, or on its way back, it is ready and carries nothing, or a part.

    Zones in `but` are the caller's business; of one that nobody has seen, what was measured stands.
    """
    carried = dict(loads)
    for zone in loads.keys() & seen.keys() - set(but):
        part = 1.0 if seen[zone].placement is Placement.STEADY else seen[zone].share or 0.0
        carried[zone] = msgspec.structs.replace(loads[zone], healthy=floor(part * loads[zone].healthy))
    return carried


def balanced(loads: Mapping[str, ZoneLoad], seen: Mapping[str, ZoneSeen]) -> dict[str, ZoneLoad]:
    """Count no instance that its load balancer does not call healthy: ready it may be, but users do not come to it yet."""
    found = {z: seen[z].healthy if z in seen and seen[z].total else load.healthy for z, load in loads.items()}
    return {z: msgspec.structs.replace(load, healthy=min(load.healthy, found[z])) for z, load in loads.items()}


def with_those_coming(
    region: str, loads: Mapping[str, ZoneLoad], weights: Mapping[str, int], topology: Topology
) -> Mapping[str, ZoneLoad]:
    """Count users who are still on their way to `region`, where another run has moved weights towards it (I3, I4).

    Usual weights say nothing: what users make of them is measured.
    """
    inside = [z.id for z in topology.region(region).zones if z.id in loads]
    usual = topology.region(region).weight / (sum(r.weight for r in topology.regions) or 1)
    share = weights.get(region, 0) / (sum(weights.values()) or 1)
    coming = share * sum(load.rps for load in loads.values()) - sum(loads[z].rps for z in inside)
    if share <= usual or coming <= 0 or not inside:
        return loads
    more = {z: msgspec.structs.replace(loads[z], rps=loads[z].rps + coming / len(inside)) for z in inside}
    return {**loads, **more}


def fair_rps(zone: str, loads: Mapping[str, ZoneLoad], topology: Topology) -> float:
    """The part of its region's load that a zone gets when all of its instances are back: by instances, not by zones."""
    region = topology.region_of(zone)
    others = sum(loads[z.id].healthy for z in region.zones if z.id != zone and z.id in loads)
    own = loads[zone].instances if zone in loads else topology.zone(zone).instances
    return sum(loads[z.id].rps for z in region.zones if z.id in loads) * own / ((own + others) or 1)


def _utilisation(load_rps: float, capacity_rps: float) -> float:
    if capacity_rps > 0:
        return load_rps / capacity_rps
    return float("inf") if load_rps > 0 else 0.0


def plan_capacity(
    zone: str,
    loads: Mapping[str, ZoneLoad],
    topology: Topology,
    *,
    max_utilisation: float,
    scale_survivors: bool,
    off: Collection[str] = (),
) -> CapacityPlan | Refusal:
    """I3: say how the survivors carry the load once `zone` is out, or why they cannot.

    First choice: they already can. Second, where allowed: scale the survivors of the region. Third: move load to other
    regions through the global tier, which is slow (TTL) and used only when the region is emptied or lacks capacity.
    Zones in `off` are out: more of them would carry nothing.
    """
    missing = sorted(z.id for z in topology.zones() if z.id not in loads)
    if missing:
        return Refusal("I3", f"the load of {', '.join(missing)} is unmeasured")
    region = topology.region_of(zone)
    load = sum(loads[z.id].rps for z in region.zones)
    capacity = _capacity_rps(topology, loads, region.id, without=zone)
    used = _utilisation(load, capacity)
    sums = (
        f"{region.id} without {zone}: {load:.0f}/s over {capacity:.0f}/s is {used:.2f}, allowed {max_utilisation:.2f}"
    )
    survivors = [z for z in region.zones if z.id != zone and z.id not in off]
    if survivors and used <= max_utilisation:
        return CapacityPlan(arithmetic=sums)
    if scale_survivors and survivors:
        per_zone = load / max_utilisation / len(survivors)
        scale = {z.id: max(loads[z.id].instances, ceil(per_zone / z.rps_per_instance)) for z in survivors}
        if all(scale[z.id] <= z.instances_max for z in survivors):
            return CapacityPlan(scale=scale, arithmetic=f"{sums}; survivors are scaled first: {_told(scale)}")
    return _plan_weights(region.id, zone, loads, topology, max_utilisation, sums)


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(numbers.items()))


def _plan_weights(
    region: str, zone: str, loads: Mapping[str, ZoneLoad], topology: Topology, max_utilisation: float, sums: str
) -> CapacityPlan | Refusal:
    """Split the whole load over the regions so that none exceeds `max_utilisation`.

    The short region comes first, then the others in proportion to what they have to spare. Weights are rounded so that
    the short region never gets more than it can carry.
    """
    carried = {r.id: sum(loads[z.id].rps for z in r.zones) for r in topology.regions}
    room = {
        r.id: max_utilisation * _capacity_rps(topology, loads, r.id, without=zone if r.id == region else None)
        for r in topology.regions
    }
    excess = carried[region] - room[region]
    spare = {r: max(0.0, room[r] - carried[r]) for r in room if r != region}
    # Nobody asks for anything, yet whoever comes next needs a region that answers: with every weight 0 DNS names them all.
    idle = not any(carried.values())
    if sum(spare.values()) < excess or (idle and not any(spare.values())):
        others = ", ".join(f"{r} has {spare[r]:.0f}/s to spare" for r in sorted(spare)) or "there is no other region"
        return Refusal("I3", f"{sums}; {excess:.0f}/s would have to go elsewhere, but {others}")
    target = {r: room[r] if r == region else carried[r] + excess * spare[r] / (sum(spare.values()) or 1) for r in room}
    target = {region: 0.0, **spare} if idle else target
    top = max(target.values()) or 1.0
    parts = {r: WEIGHT_MAX * (t / top) for r, t in target.items()}  # t / top first: 255 * t / t may be more than 255
    weights = {r: floor(part) if r == region else ceil(part) for r, part in parts.items()}
    return CapacityPlan(weights=weights, arithmetic=f"{sums}; the global tier moves load: weights {_told(weights)}")


def refuse_overload_on_return(
    zone: str, loads: Mapping[str, ZoneLoad], topology: Topology, *, max_utilisation: float
) -> Refusal | None:
    """I3 before restoring: the region with the zone back must carry its load, or at least carry it better than without.

    A return that lowers the survivors' utilisation is never refused for a load that rose meanwhile: staying out would be worse.
    """
    region = topology.region_of(zone)
    if zone not in loads:
        return Refusal("I3", f"{zone} is unmeasured, so nobody can say what it would carry")
    # A neighbour in which no instance answers carries nothing: it may not keep a sound zone from coming back.
    load = sum(loads[z.id].rps for z in region.zones if z.id in loads)
    capacity = _capacity_rps(topology, loads, region.id, without=None)
    used = _utilisation(load, capacity)
    used_without = _utilisation(load, _capacity_rps(topology, loads, region.id, without=zone))
    if loads[zone].healthy == 0:
        return Refusal("I2", f"{zone} has 0 of {loads[zone].instances} instances ready")
    if used > max_utilisation and used >= used_without:
        told = f"{load:.0f}/s over {capacity:.0f}/s is {used:.2f}, allowed {max_utilisation:.2f}"
        return Refusal("I3", f"{region.id} with {zone} back: {told}")
    return None


def refuse_usual_weights(
    zone: str,
    seen: Mapping[str, ZoneSeen],
    loads: Mapping[str, ZoneLoad],
    topology: Topology,
    *,
    max_utilisation: float,
) -> Refusal | None:
    """I3 before the regions' weights are put back: a region that has lost another zone must carry its usual part.

    Where none is out or lost, a load that has risen is the users' doing, and the weights go back.
    """
    total, weights = sum(load.rps for load in loads.values()), sum(region.weight for region in topology.regions)
    for region in topology.regions:
        out = [z.id for z in region.zones if z.id != zone and _absent(seen.get(z.id), loads.get(z.id))]
        carries = sum(
            z.rps_per_instance * loads[z.id].healthy for z in region.zones if z.id in loads and z.id not in out
        )
        part = total * region.weight / (weights or 1)
        if out and _utilisation(part, carries) > max_utilisation:
            told = (
                f"{part:.0f}/s over {carries:.0f}/s is {_utilisation(part, carries):.2f}, allowed {max_utilisation:.2f}"
            )
            return Refusal("I3", f"{region.id} at its usual weight, without {', '.join(out)}: {told}")
    return None


def _absent(seen: ZoneSeen | None, load: ZoneLoad | None) -> bool:
    return seen is None or seen.placement is Placement.OUT or load is None or load.healthy == 0


def refuse_scaling_back(
    zone: str, wanted: int, loads: Mapping[str, ZoneLoad], topology: Topology, *, max_utilisation: float
) -> Refusal | None:
    """I3 before a survivor is made smaller again: its region must carry its load with `wanted` instances there.

    A neighbour that nobody can measure carries nothing. Its cloud may end those that are ready, and keep those that are not.
    """
    if zone not in loads:
        return Refusal("I3", f"{zone} is unmeasured, so nobody can say whether its region can do with less")
    stay = max(0, wanted - (loads[zone].instances - loads[zone].healthy))
    region, own = topology.region_of(zone), topology.zone(zone)
    load = sum(loads[z.id].rps for z in region.zones if z.id in loads)
    less = own.rps_per_instance * max(0, loads[zone].healthy - stay)
    capacity = _capacity_rps(topology, loads, region.id, without=None) - less
    used = _utilisation(load, capacity)
    if less and used > max_utilisation:
        told = f"{load:.0f}/s over {capacity:.0f}/s is {used:.2f}, allowed {max_utilisation:.2f}"
        return Refusal("I3", f"{region.id} with {zone} back at {wanted} instances: {told}")
    return None


def order_of_zones(topology: Topology) -> Sequence[str]:
    """One zone of each region first, then the next of each: a version that is sick on one cloud only shows early."""
    columns = [[z.id for z in region.zones] for region in topology.regions]
    depth = max((len(c) for c in columns), default=0)
    return tuple(column[i] for i in range(depth) for column in columns if i < len(column))
