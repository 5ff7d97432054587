"""The topology document: put together from several stacks, and compared with what the clouds say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from orchestrator.config import TOPOLOGY_SCHEMA, parse_topology
from orchestrator.core.errors import FailoutError, NotFound, Rejected
from orchestrator.core.topology import Region, Topology, Zone
from orchestrator.core.traffic import Placement, ZoneSeen
from orchestrator.ports import FleetSeen
from orchestrator.workflows.world import World

# What each cloud's adapters read (schemas/topology.json says the same; a test holds the two together).
FRONT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "aws": ("load_balancer_arn", "listener_arn", "steady_target_group_arn", "ramp_target_group_arn"),
    "azure": ("subscription_id", "resource_group", "load_balancer", "backend_pool"),
}
FLEET_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "aws": ("auto_scaling_group", "launch_template_id"),
    "azure": ("scale_set",),
}

Json = dict[str, Any]
T = TypeVar("T")


def merge(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> Json:
    """Put the stacks' parts together: (where it is from, `topology` output). Regions keep the order of the parts.

    Raises Rejected when services differ, a region or the global tier comes twice, or something is missing.
    """
    services: dict[str, str] = {}
    tiers: dict[str, Any] = {}
    regions: dict[str, tuple[str, Any]] = {}
    for source, part in parts:
        if not isinstance(part, Mapping) or part.get("schema") != TOPOLOGY_SCHEMA:
            raise Rejected(f"{source}: not a topology of schema {TOPOLOGY_SCHEMA}")
        services[str(part.get("service"))] = source
        if part.get("global") is not None:
            tiers[source] = part["global"]
        for region in part.get("regions") or []:
            name = str(region.get("id"))
            if name in regions:
                raise Rejected(f"region {name} comes from {regions[name][0]} and from {source}")
            regions[name] = source, region
    if len(services) != 1:
        raise Rejected(f"one service at a time: {', '.join(f'{s!r} from {where}' for s, where in services.items())}")
    if len(tiers) != 1:
        told = " and ".join(tiers) or "none of the stacks; name the global one too"
        raise Rejected(f"the global tier must come from one stack, it comes from {told}")
    document: Json = {
        "schema": TOPOLOGY_SCHEMA,
        "service": next(iter(services)),
        "global": _whole(next(iter(tiers.values()))),
        "regions": [_whole(region) for _, region in regions.values()],
    }
    _check(document)
    return document


def _check(document: Json) -> Topology:
    try:
        topology = parse_topology(document)
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(f"the stacks' topology is not whole: {error!r}") from None
    for region in topology.regions:
        if region.cloud not in FRONT_KEYS:
            raise Rejected(f"{region.id}: no adapter for cloud {region.cloud!r}; there are {', '.join(FRONT_KEYS)}")
        _require(region.id, "front", region.front, FRONT_KEYS[region.cloud])
        for zone in region.zones:
            _require(zone.id, "fleet", zone.fleet, FLEET_KEYS[region.cloud])
    return topology


def _require(where: str, what: str, given: Mapping[str, str], keys: Sequence[str]) -> None:
    missing = [key for key in keys if not given.get(key)]
    if missing:
        raise Rejected(f"{where}: its {what} does not name {', '.join(missing)}")


def _whole(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Numbers come from Pulumi as 3.0."""
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as the document says. `checked` False: it could not be looked at, `found` says why."""

    where: str
    what: str
    expected: str
    found: str
    checked: bool = True


async def drift(world: World) -> list[Drift]:
    """Compare the document with the clouds: fleets, their sizes and autoscalers, fronts, records, weights. Reads only.

    What a deploy or a drill changes for a while is told too (a weight, a size): look at `failout status` first.
    """
    looks = [_region(world, region) for region in world.topology.regions]
    found = await asyncio.gather(*looks, _tier(world))
    return [one for some in found for one in some]


async def _region(world: World, region: Region) -> list[Drift]:
    asked = [_asked(world.fleets[zone.cloud].describe(zone)) for zone in region.zones]
    front, fleets = await asyncio.gather(_asked(world.traffics[region.cloud].read(region)), asyncio.gather(*asked))
    placed: Mapping[str, ZoneSeen] = {} if isinstance(front, FailoutError) else front
    found: list[Drift] = []
    for zone, fleet in zip(region.zones, fleets, strict=True):
        if isinstance(fleet, FailoutError):
            found.append(_failed(zone.id, "fleet", ", ".join(zone.fleet.values()), fleet))
        else:
            found += [*_size(zone, fleet), *_autoscaler(zone, fleet, placed.get(zone.id))]
    if isinstance(front, FailoutError):
        return [*found, _failed(region.id, "front", ", ".join(region.front.values()), front)]
    absent = [zone.id for zone in region.zones if zone.id not in placed]
    return [*found, *(Drift(zone, "traffic", "instances behind the load balancer", "none") for zone in absent)]


async def _asked(question: Awaitable[T]) -> T | FailoutError:
    try:
        return await question
    except FailoutError as error:
        return error


def _size(zone: Zone, seen: FleetSeen) -> list[Drift]:
    """With an autoscaler at work, any size between the document's bounds is as it should be."""
    moves = seen.autoscaler is not None and seen.autoscaler.enabled
    most = zone.instances_max if moves else zone.instances
    if zone.instances <= seen.desired <= most:
        return []
    expected = f"{zone.instances} to {most}" if moves else str(zone.instances)
    return [Drift(zone.id, "instances", expected, str(seen.desired))]


def _autoscaler(zone: Zone, seen: FleetSeen, placed: ZoneSeen | None) -> list[Drift]:
    named, bounds = zone.fleet.get("autoscale_setting"), seen.autoscaler
    if bounds is None:
        if seen.unread:
            return [Drift(zone.id, "autoscaler", named or "its bounds", seen.unread, checked=False)]
        return [Drift(zone.id, "autoscaler", named, "none")] if named else []
    found = []
    if bounds.minimum not in (0, zone.instances):  # 0 is how an Auto Scaling group says that it has none
        found.append(Drift(zone.id, "autoscaler's minimum", str(zone.instances), str(bounds.minimum)))
    if bounds.maximum != zone.instances_max:
        found.append(Drift(zone.id, "autoscaler's maximum", str(zone.instances_max), str(bounds.maximum)))
    if not bounds.enabled and placed is not None and placed.placement is Placement.STEADY:
        found.append(Drift(zone.id, "autoscaler", "on, since the zone is not out", "frozen"))
    return found


async def _tier(world: World) -> list[Drift]:
    tier, wanted = world.topology.global_tier, {r.id: r.weight for r in world.topology.regions}
    try:
        seen = (await world.global_tier.read()).weights
    except FailoutError as error:
        return [_failed("global", "record", tier.record, error)]
    found = []
    for region in sorted({*wanted, *seen}):
        if region not in seen:
            found.append(Drift("global", f"record of {region}", f"weight {wanted[region]}", "none"))
        elif region not in wanted:
            found.append(Drift("global", f"record of {region}", "none", f"weight {seen[region]}"))
        elif seen[region] != wanted[region]:
            found.append(Drift("global", f"weight of {region}", str(wanted[region]), str(seen[region])))
    return found


def _failed(where: str, what: str, expected: str, error: FailoutError) -> Drift:
    """What is not there is drift; what could not be asked is not known (I2)."""
    return Drift(where, what, expected, str(error), checked=isinstance(error, Rejected | NotFound))
