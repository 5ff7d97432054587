"""I3 for whole regions: can the others carry everything, what must be scaled first, and the weights at each share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import ceil, inf

from orchestrator.core.guards import (
    WEIGHT_MAX,
    Refusal,
    ZoneLoad,
    refuse_absent_survivors,
    refuse_beside_zones_out,
    refuse_unsound_survivors,
)
from orchestrator.core.health import GatePolicy
from orchestrator.core.topology import Region, Topology
from orchestrator.core.traffic import ZoneSeen


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """`weights`: the global tier once the regions are out; `scale`: survivor zone -> instances, first."""

    weights: Mapping[str, int]
    scale: Mapping[str, int] = field(default_factory=dict)
    arithmetic: str = ""


def refuse_leaving(
    leaving: Collection[str],
    loads: Mapping[str, ZoneLoad],
    seen: Mapping[str, ZoneSeen],
    topology: Topology,
    gate: GatePolicy,
    overrides: Collection[str] = (),
) -> Refusal | None:
    """I1, I2: every zone that stays takes its part of the users, and is sound. Those that leave may be as sick as they like."""
    place, regions = "+".join(leaving), tuple(r for r in topology.regions if r.id not in leaving)
    stay = Topology(topology.service, regions, topology.global_tier)
    others = {z.id: seen[z.id] for z in stay.zones() if z.id in seen}
    for refusal in (
        refuse_beside_zones_out(place, others),
        refuse_absent_survivors(place, others),
        refuse_unsound_survivors(place, loads, stay, gate),
    ):
        if refusal is not None and refusal.rule not in overrides:
            return refusal
    return None


def plan_regions(
    leaving: Collection[str],
    loads: Mapping[str, ZoneLoad],
    topology: Topology,
    *,
    max_utilisation: float,
    scale_survivors: bool,
) -> RegionPlan | Refusal:
    """Say how the other regions carry the whole load, or why they cannot (I3). An unmeasured load refuses (I2)."""
    staying = [r for r in topology.regions if r.id not in leaving]
    if not staying or not any(r.weight for r in staying):
        return Refusal("I3", f"no region would be left to carry the load of {', '.join(sorted(leaving))}")
    missing = sorted(z.id for z in topology.zones() if z.id not in loads)
    if missing:
        return Refusal("I3", f"the load of {', '.join(missing)} is unmeasured")
    total = sum(load.rps for load in loads.values())
    room = {r.id: max_utilisation * _capacity(r, loads) for r in staying}
    weights = usual_weights_without(leaving, topology)
    sums = f"{total:.0f}/s without {', '.join(sorted(leaving))}; at {max_utilisation:.2f} " + ", ".join(
        f"{r} carries {room[r]:.0f}/s" for r in sorted(room)
    )
    share = {r: total * w / sum(weights.values()) for r, w in weights.items() if r in room}
    if all(share[r] <= room[r] for r in room):
        return RegionPlan(weights, arithmetic=sums)
    if total <= sum(room.values()):
        top = max(room.values())
        spread = {r.id: ceil(WEIGHT_MAX * (room[r.id] / top)) if r.id in room else 0 for r in topology.regions}
        return RegionPlan(spread, arithmetic=f"{sums}; weights by what each can carry")
    if scale_survivors and (scale := _scale(staying, share, loads, max_utilisation)):
        told = ", ".join(f"{z} {n}" for z, n in sorted(scale.items()))
        return RegionPlan(weights, scale, f"{sums}; survivors are scaled first: {told}")
    return Refusal("I3", f"{sums}: {total - sum(room.values()):.0f}/s too much")


def refuse_return(
    regions: Collection[str],
    weights: Mapping[str, int],
    loads: Mapping[str, ZoneLoad],
    topology: Topology,
    *,
    max_utilisation: float,
) -> Refusal | None:
    """I3 before restoring: each of `regions` carries what `weights` give it, or is at least used less than the others are now.

    As for a zone (ADR 6), a load that rose meanwhile refuses no return that lowers it. What nobody hears carries nothing.
    """
    total, whole = sum(load.rps for load in loads.values()), sum(weights.values()) or 1
    others = [r for r in topology.regions if r.id not in regions]
    worst = max((_used(sum(loads[z.id].rps for z in r.zones if z.id in loads), r, loads) for r in others), default=0.0)
    for region in topology.regions:
        part = total * weights.get(region.id, 0) / whole
        used = _used(part, region, loads)
        if region.id in regions and used > max_utilisation and used >= worst:
            told = f"{part:.0f}/s over {_capacity(region, loads):.0f}/s is {used:.2f}, allowed {max_utilisation:.2f}"
            return Refusal("I3", f"{region.id} with the users of this step: {told}")
    return None


def sizes_on_return(
    regions: Collection[str], loads: Mapping[str, ZoneLoad], topology: Topology, *, max_utilisation: float
) -> Mapping[str, int]:
    """Zone -> instances, of those of `regions` that are too small for their usual part of all users; none where it would be too many."""
    total, whole = sum(load.rps for load in loads.values()), sum(r.weight for r in topology.regions) or 1
    back = [r for r in topology.regions if r.id in regions and all(z.id in loads for z in r.zones)]
    short = [r for r in back if total * r.weight / whole > max_utilisation * _capacity(r, loads)]
    return _scale(short, {r.id: total * r.weight / whole for r in short}, loads, max_utilisation)


def _used(rps: float, region: Region, loads: Mapping[str, ZoneLoad]) -> float:
    capacity = _capacity(region, loads)
    return rps / capacity if capacity else inf if rps else 0.0


def _capacity(region: Region, loads: Mapping[str, ZoneLoad]) -> float:
    return sum(z.rps_per_instance * loads[z.id].healthy for z in region.zones if z.id in loads)


def _scale(
    staying: Collection[Region], share: Mapping[str, float], loads: Mapping[str, ZoneLoad], max_utilisation: float
) -> dict[str, int]:
    """Instances per zone so that each region carries its usual part of the load; empty when one would be too large."""
    scale: dict[str, int] = {}
    for region in staying:
        per_zone = share[region.id] / max_utilisation / len(region.zones)
        for zone in region.zones:
            wanted = max(loads[zone.id].instances, ceil(per_zone / zone.rps_per_instance))
            if wanted > zone.instances_max:
                return {}
            if wanted > loads[zone.id].instances:
                scale[zone.id] = wanted
    return scale


def usual_weights(topology: Topology) -> dict[str, int]:
    return {region.id: region.weight for region in topology.regions}


def usual_weights_without(leaving: Collection[str], topology: Topology) -> dict[str, int]:
    return {region: 0 if region in leaving else weight for region, weight in usual_weights(topology).items()}


def gets_less(regions: Collection[str], weights: Mapping[str, int], than: Mapping[str, int]) -> bool:
    """One of `regions` gets a smaller part of all users by `weights` than by the weights `than`."""
    here, there = sum(weights.values()) or 1, sum(than.values()) or 1
    return any(weights.get(r, 0) * there < than.get(r, 0) * here for r in regions)


def weights_at(share: float, out: Mapping[str, int], usual: Mapping[str, int]) -> dict[str, int]:
    """Weights on the way back: the users' spread goes straight from what it is while out (0) to the usual one (1).

    Each region's part stays between the two, so that what both ends can carry, every step can (I3). A region that is to
    get something gets at least weight 1.
    """
    if share >= 1.0:
        return dict(usual)
    out_sum, usual_sum = sum(out.values()), sum(usual.values())
    mixed = {r: (1 - share) * out.get(r, 0) / out_sum + share * usual[r] / usual_sum for r in usual}
    top = max(mixed.values())
    return {r: max(1, round(WEIGHT_MAX * (part / top))) if part > 0 else 0 for r, part in mixed.items()}
