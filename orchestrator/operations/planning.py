"""What a deploy would do: the order, the weights at each step, the capacity arithmetic and an estimate. Reads only."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from msgspec.structs import replace

from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.guards import Refusal, ZoneLoad, order_of_zones, plan_capacity, refuse_unsound_survivors
from orchestrator.core.machine import Json
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.release import Release, reason_release_is_incomplete
from orchestrator.core.topology import Topology, Zone
from orchestrator.core.traffic import Placement, RampStep, dump_steps, ramp_steps
from orchestrator.engine.ports import Usual
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.polling import Patience
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.world import Releases, World


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """One zone's part. `capacity` prints I3's arithmetic; `refusals` why it may not leave now (empty: it may)."""

    zone: str
    from_version: str | None
    to_version: str
    instances: int
    rps: float
    steps: tuple[RampStep, ...]
    capacity: str
    scale: Mapping[str, int]
    weights: Mapping[str, int]
    estimate_s: float
    refusals: tuple[str, ...]
    nothing_to_do: bool

    def row(self) -> dict[str, Json]:
        return {**asdict(self), "steps": dump_steps(self.steps)}


@dataclass(frozen=True, slots=True)
class Plan:
    service: str
    version: str
    zones: tuple[ZonePlan, ...]

    @property
    def estimate_s(self) -> float:
        return sum(z.estimate_s for z in self.zones)

    @property
    def refusals(self) -> tuple[str, ...]:
        return tuple(r for z in self.zones for r in z.refusals)


def require_release(world: World, version: str) -> Release:
    """Return the manifest of `version`, refusing gaps (Rejected)."""
    return require_whole(world.releases.get(version), world.topology)


def require_whole(release: Release, topology: Topology) -> Release:
    gap = reason_release_is_incomplete(release, topology)
    if gap is not None:
        raise Rejected(gap)
    return release


async def versions_now(world: World, patience: Patience | None = None) -> Mapping[str, str | None]:
    """The version that each zone's model names now; None when Failout never deployed there.

    Raises Transient when a cloud is silent for longer than `patience` has; without one, at once.
    """
    versions: dict[str, str | None] = {}
    for zone in world.topology.zones():
        look = functools.partial(world.fleet(zone).describe, zone)
        seen = await (patience.ask(f"the API of {zone.id}", look) if patience else look())
        versions[zone.id] = seen.model_version
    return versions


def require_way_back(releases: Releases, previous: Mapping[str, str | None]) -> dict[str, str]:
    """Every zone's present version must have a manifest, or a rollback (I12) would be impossible. Raises Refused."""
    known: dict[str, str] = {}
    for zone, version in previous.items():
        if version is None:
            why = f"{zone} runs a version that no release manifest names, so it could not be rolled back"
            raise Refused("I12", why, zone=zone, next_command="failout topology show")
        try:
            releases.get(version)
        except NotFound as gone:
            raise Refused("I12", f"{zone} could not be rolled back: {gone}", zone=zone) from gone
        known[zone] = version
    return known


async def make_plan(world: World, policy: DeployPolicy, version: str, usual: Mapping[str, Usual]) -> Plan:
    """Measure and compute; writes nothing. Raises Rejected for gaps in the manifest, Transient when a cloud is silent."""
    require_release(world, version)
    gauge = Gauge(world)
    loads = {z: replace(load, brief=False) for z, load in (await gauge.loads(policy.load_window_s)).items()}
    seen = await Steering(world).seen()
    out = {z: s for z, s in seen.items() if s.placement is not Placement.STEADY}
    plans = []
    for i, zone_id in enumerate(order_of_zones(world.topology)):
        zone = world.topology.zone(zone_id)
        fleet = await gauge.fleet(zone)
        capacity = plan_capacity(
            zone_id,
            loads,
            world.topology,
            max_utilisation=policy.max_utilisation,
            scale_survivors=policy.scale_survivors,
        )
        steps = _steps(world, policy, zone, loads)
        there = fleet.model_version == version and all(x.version == version for x in fleet.instances)
        refused = [capacity] if isinstance(capacity, Refusal) else []
        refused += [r for r in [refuse_unsound_survivors(zone_id, loads, world.topology, policy.gate)] if r is not None]
        reasons = [f"{zone_id}: {r.rule}: {r.reason}" for r in refused]
        reasons += [f"{zone_id}: I1: {o} is {told(s)}" for o, s in out.items() if o != zone_id]
        plans.append(
            ZonePlan(
                zone=zone_id,
                from_version=fleet.model_version,
                to_version=version,
                instances=fleet.desired,
                rps=round(loads[zone_id].rps, 1) if zone_id in loads else 0.0,
                steps=steps,
                capacity="" if isinstance(capacity, Refusal) else capacity.arithmetic,
                scale={} if isinstance(capacity, Refusal) else capacity.scale,
                weights={} if isinstance(capacity, Refusal) else capacity.weights,
                estimate_s=0.0 if there else estimate_s(policy, steps, usual, first=i == 0),
                refusals=() if there else tuple(reasons),
                nothing_to_do=there,
            )
        )
    return Plan(world.topology.service, version, tuple(plans))


def _steps(world: World, policy: DeployPolicy, zone: Zone, loads: Mapping[str, ZoneLoad]) -> tuple[RampStep, ...]:
    region = world.topology.region_of(zone.id)
    fair_rps = sum(loads[z.id].rps for z in region.zones if z.id in loads) / len(region.zones)
    return ramp_steps(
        policy.ramp_shares,
        policy.ramp_step_s,
        fair_rps,
        loads[zone.id].instances if zone.id in loads else zone.instances,
        samples_min=policy.gate.samples_min,
        whole_instances=world.traffic(region).whole_instances(),
    )


def estimate_s(policy: DeployPolicy, steps: tuple[RampStep, ...], usual: Mapping[str, Usual], *, first: bool) -> float:
    """Seconds for one zone: what is configured, and what the other effects usually take (their p75)."""
    configured = sum(s.seconds for s in steps) + policy.bake_s * (policy.bake_first_factor if first else 1.0)
    others = sum(u.p75_s for kind, u in usual.items() if kind not in {"ramp", "bake"})
    return configured + others
