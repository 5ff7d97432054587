"""Answers every condition that a runbook waits for or verifies, from what clouds, agents and our rows say now.

What cannot be seen is neither so nor not so (I2): Transient and Denied are raised, except where the condition is that
somebody answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.errors import Bug, Denied, NotFound, Rejected, Transient
from orchestrator.core.guards import Refusal, ZoneLoad, carrying, plan_capacity
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region_plan import plan_regions, refuse_leaving, usual_weights
from orchestrator.core.release import reason_release_is_incomplete
from orchestrator.core.script import Look, duration_s
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import Placement
from orchestrator.engine.ports import EVERY_SERVICE, Lease, Run, Switch
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.world import World


@dataclass(frozen=True, slots=True)
class Seen:
    """`so` answers the condition as written, negation included."""

    so: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class _Asked:
    args: Mapping[str, str]
    elapsed_s: float


class Rows(Protocol):
    """What is read of a store; a rehearsal brings one that cannot write."""

    async def unfinished(self, service: str) -> Sequence[Run]: ...

    async def leases(self, service: str) -> Sequence[Lease]: ...

    async def switches(self) -> Sequence[Switch]: ...


class Looker:
    """One for each run of a runbook, or for one question by hand. Reads only."""

    def __init__(self, world: World, store: Rows, policy: DeployPolicy) -> None:
        self._world, self._store, self._policy = world, store, policy
        self.every_s = policy.poll_s
        self._gauge, self._steering = Gauge(world), Steering(world)
        self._conditions: Mapping[str, Callable[[_Asked], Awaitable[Seen]]] = {
            "zone-steady": self._zone_steady,
            "zone-out": self._zone_out,
            "zone-ready": self._zone_ready,
            "zone-sound": self._zone_sound,
            "zones-steady": self._zones_steady,
            "zones-ready": self._zones_ready,
            "users-served": self._users_served,
            "can-lose-zone": self._can_lose_zone,
            "can-lose-region": self._can_lose_region,
            "region-ready": self._region_ready,
            "region-empty": self._region_empty,
            "region-serving": self._region_serving,
            "region-weight": self._region_weight,
            "weights-usual": self._weights_usual,
            "agents-answer": self._agents_answer,
            "agent-answers": self._agent_answers,
            "api-answers": self._api_answers,
            "apis-answer": self._apis_answer,
            "deploy-unfinished": self._deploy_unfinished,
            "deploy-held": self._deploy_held,
            "deploy-settled": self._deploy_settled,
            "lease-free": self._lease_free,
            "version-everywhere": self._version_everywhere,
            "release-known": self._release_known,
            "frozen": self._frozen,
            "seconds-passed": self._seconds_passed,
        }

    @property
    def conditions(self) -> frozenset[str]:
        return frozenset(self._conditions)

    async def look(self, look: Look, elapsed_s: float = 0.0) -> Seen:
        """Look once. Raises Transient or Denied when nobody could tell, NotFound for a place that is not there."""
        try:
            condition = self._conditions[look.condition]
        except KeyError:
            raise Bug(f"nothing answers the condition {look.condition!r}") from None
        seen = await condition(_Asked(look.args, elapsed_s))
        return Seen(seen.so is not look.negated, seen.evidence)

    # ---- zones

    def _zone(self, asked: _Asked) -> Zone:
        return self._world.topology.zone(asked.args["zone"])

    def _region(self, asked: _Asked) -> Region:
        return self._world.topology.region(asked.args["region"])

    async def _zone_steady(self, asked: _Asked) -> Seen:
        return await self._steady([self._zone(asked)])

    async def _zones_steady(self, _: _Asked) -> Seen:
        return await self._steady(list(self._world.topology.zones()))

    async def _steady(self, zones: Sequence[Zone]) -> Seen:
        seen = await self._steering.seen()
        lines, so = [], True
        for zone in zones:
            there = seen.get(zone.id)
            good = (
                there is not None
                and there.placement is Placement.STEADY
                and there.total > 0
                and there.healthy == there.taking == there.total
            )
            so = so and good
            if not good or len(zones) == 1:
                lines.append(f"{zone.id} {told(there)}" if there else f"nobody can say where {zone.id} stands")
        return Seen(so, "; ".join(lines) or f"all {len(zones)} zones are steady")

    async def _zone_out(self, asked: _Asked) -> Seen:
        zone = self._zone(asked)
        there = await self._steering.seen_zone(zone)
        if there is None:
            raise Transient(f"nobody can say where {zone.id} stands")
        probes = await self._gauge.probe(zone, anew=True)
        in_flight = sum(p.in_flight for p in probes if p.reachable)
        out = there.placement is Placement.OUT and not there.taking and not there.draining and not in_flight
        return Seen(out, f"{zone.id} {told(there)}, {in_flight} requests in flight")

    async def _zone_ready(self, asked: _Asked) -> Seen:
        return await self._ready([self._zone(asked)])

    async def _zones_ready(self, _: _Asked) -> Seen:
        return await self._ready(list(self._world.topology.zones()))

    async def _ready(self, zones: Sequence[Zone]) -> Seen:
        lines, so = [], True
        for zone in zones:
            wanted = (await self._gauge.fleet(zone, anew=True)).desired
            ready = sum(p.reachable and p.ready for p in await self._gauge.probe(zone))
            so = so and 0 < wanted <= ready
            lines.append(f"{zone.id} {ready} of {wanted} ready")
        return Seen(so, ", ".join(lines))

    # ---- load

    async def _loads(self) -> Mapping[str, ZoneLoad]:
        return await self._gauge.loads(self._policy.load_window_s)

    async def _zone_sound(self, asked: _Asked) -> Seen:
        zone = self._zone(asked)
        return self._served([zone.id], await self._loads())

    async def _users_served(self, _: _Asked) -> Seen:
        weights = (await self._steering.document()).region_weights
        seen = await self._steering.seen()
        serving = [
            z.id
            for r in self._world.topology.regions
            for z in r.zones
            if weights.get(r.id, r.weight) and z.id in seen and seen[z.id].taking
        ]
        return self._served(serving, await self._loads())

    def _served(self, zones: Sequence[str], loads: Mapping[str, ZoneLoad]) -> Seen:
        """A zone that served nothing, or that nobody could ask, is not served well (I2)."""
        gate, lines, so = self._policy.gate, [], bool(zones)
        for zone in zones:
            load = loads.get(zone)
            if load is None or load.requests == 0:
                so = False
                lines.append(f"{zone} " + ("is unmeasured" if load is None else "served no request"))
                continue
            harmed = load.errors >= gate.errors_min and load.errors > load.requests * gate.error_share_max
            so = so and not harmed
            lines.append(f"{zone} failed {load.errors} of {load.requests}")
        return Seen(so, ", ".join(lines) or "no zone takes traffic")

    async def _can_lose_zone(self, asked: _Asked) -> Seen:
        zone, seen = self._zone(asked).id, await self._steering.seen()
        plan = plan_capacity(
            zone,
            carrying(await self._loads(), seen, {zone}),
            self._world.topology,
            max_utilisation=self._policy.max_utilisation,
            scale_survivors=False,
        )
        if isinstance(plan, Refusal):
            return Seen(False, f"{plan.rule}: {plan.reason}")
        return Seen(not plan.weights, plan.arithmetic)

    async def _can_lose_region(self, asked: _Asked) -> Seen:
        region, loads = self._region(asked).id, await self._loads()
        seen = await self._steering.seen({region})
        refusal = refuse_leaving([region], loads, seen, self._world.topology, self._policy.gate)
        plan = refusal or plan_regions(
            [region],
            loads,
            self._world.topology,
            max_utilisation=self._policy.max_utilisation,
            scale_survivors=self._policy.scale_survivors,
        )
        return Seen(False, f"{plan.rule}: {plan.reason}") if isinstance(plan, Refusal) else Seen(True, plan.arithmetic)

    # ---- regions and the global tier

    async def _region_ready(self, asked: _Asked) -> Seen:
        return await self._ready(self._region(asked).zones)

    async def _region_empty(self, asked: _Asked) -> Seen:
        requests, in_flight = await self._users_of(self._region(asked))
        told = f"{sum(requests.values())} requests came and {in_flight} are in flight"
        return Seen(not sum(requests.values()) and not in_flight, f"{asked.args['region']}: {told}")

    async def _region_serving(self, asked: _Asked) -> Seen:
        requests, _ = await self._users_of(self._region(asked))
        return Seen(all(requests.values()), ", ".join(f"{z} served {n}" for z, n in requests.items()))

    async def _users_of(self, region: Region) -> tuple[dict[str, int], int]:
        loads = await self._loads()
        missing = [z.id for z in region.zones if z.id not in loads]
        if missing:
            raise Transient(f"no instance of {', '.join(missing)} answers its agent")
        probes = [p for z in region.zones for p in await self._gauge.probe(z)]
        return {z.id: loads[z.id].requests for z in region.zones}, sum(p.in_flight for p in probes if p.reachable)

    async def _region_weight(self, asked: _Asked) -> Seen:
        region, wanted = self._region(asked).id, float(asked.args["weight"])
        seen = await self._world.global_tier.read()
        weight = seen.weights.get(region)
        spread = "everywhere" if seen.in_sync else "not everywhere yet"
        return Seen(weight == wanted and seen.in_sync, f"the global tier has {weight} for {region}, {spread}")

    async def _weights_usual(self, _: _Asked) -> Seen:
        seen = await self._world.global_tier.read()
        usual = usual_weights(self._world.topology)
        told = ", ".join(f"{r} {w}" for r, w in sorted(seen.weights.items()))
        return Seen(dict(seen.weights) == usual and seen.in_sync, f"the global tier has {told}")

    # ---- who answers

    async def _agents_answer(self, _: _Asked) -> Seen:
        return await self._agents([r.id for r in self._world.topology.regions])

    async def _agent_answers(self, asked: _Asked) -> Seen:
        return await self._agents([self._region(asked).id])

    async def _agents(self, regions: Sequence[str]) -> Seen:
        async def ask(region: str) -> str:
            await self._world.agents[region].probe([])
            return f"the agent of {region} answers"

        return await _answers([(region, ask) for region in regions])

    async def _api_answers(self, asked: _Asked) -> Seen:
        cloud = asked.args["cloud"]
        regions = [r for r in self._world.topology.regions if r.cloud == cloud]
        if not regions:
            raise NotFound(f"no cloud {cloud!r} in service {self._world.topology.service}")
        return await self._apis(regions)

    async def _apis_answer(self, _: _Asked) -> Seen:
        async def ask(_: str) -> str:
            await self._world.global_tier.read()
            return "the global tier answers"

        apis, tier = await self._apis(self._world.topology.regions), await _answers([("the global tier", ask)])
        return Seen(apis.so and tier.so, f"{apis.evidence}; {tier.evidence}")

    async def _apis(self, regions: Sequence[Region]) -> Seen:
        async def ask(region_id: str) -> str:
            region = self._world.topology.region(region_id)
            await self._world.traffic(region).read(region)
            for zone in region.zones:
                await self._world.fleet(zone).describe(zone)
            return f"{region.cloud} answers for {region.id}"

        return await _answers([(region.id, ask) for region in regions])

    # ---- our own rows

    async def _unfinished(self) -> Run | None:
        runs = await self._store.unfinished(self._world.topology.service)
        return next((r for r in runs if r.kind == "deploy"), None)

    async def _deploy_unfinished(self, _: _Asked) -> Seen:
        run = await self._unfinished()
        return Seen(run is not None, _deploy_told(run))

    async def _deploy_held(self, _: _Asked) -> Seen:
        run = await self._unfinished()
        return Seen(run is not None and run.status == "held", _deploy_told(run))

    async def _deploy_settled(self, _: _Asked) -> Seen:
        run = await self._unfinished()
        return Seen(run is None or run.status in {"held", "paused"}, _deploy_told(run))

    async def _lease_free(self, _: _Asked) -> Seen:
        leases = await self._store.leases(self._world.topology.service)
        held = ", ".join(f"run {x.run} has {x.zone} out since {x.since:%H:%M:%S} UTC" for x in leases)
        return Seen(not leases, held or "nothing is out")

    async def _frozen(self, _: _Asked) -> Seen:
        mine = {self._world.topology.service, EVERY_SERVICE}
        on = [s for s in await self._store.switches() if s.on and s.name == "freeze" and s.service in mine]
        return Seen(bool(on), f"frozen by {on[0].author}: {on[0].reason}" if on else "nothing is frozen")

    # ---- versions

    async def _version_everywhere(self, asked: _Asked) -> Seen:
        wanted, lines = asked.args["version"], []
        for zone in self._world.topology.zones():
            fleet = await self._gauge.fleet(zone, anew=True)
            probes = await self._gauge.probe(zone)
            right = sum(p.reachable and p.version == wanted for p in probes)
            if not 0 < fleet.desired == len(fleet.instances) == right:
                lines.append(f"{zone.id}: {right} of {fleet.desired} run {wanted}")
        return Seen(not lines, ", ".join(lines) or f"every instance runs {wanted}")

    async def _release_known(self, asked: _Asked) -> Seen:
        version = asked.args["version"]
        try:
            gap = reason_release_is_incomplete(self._world.releases.get(version), self._world.topology)
        except Rejected as error:
            gap = str(error)
        return Seen(gap is None, gap or f"release {version} names every region")

    async def _seconds_passed(self, asked: _Asked) -> Seen:
        wanted = duration_s(asked.args["for"])
        return Seen(asked.elapsed_s >= wanted, f"{min(asked.elapsed_s, wanted):.0f} of {wanted:.0f} s have passed")


async def _answers(questions: Sequence[tuple[str, Callable[[str], Awaitable[str]]]]) -> Seen:
    """Put each question; a far side that does not answer, or not us, is what is being looked for."""
    lines, so = [], True
    for name, ask in questions:
        try:
            lines.append(await ask(name))
        except (Transient, Denied) as error:
            so = False
            lines.append(f"{name}: {error}")
    return Seen(so, "; ".join(lines))


def _deploy_told(run: Run | None) -> str:
    if run is None:
        return "no deploy is unfinished"
    reason = run.state.get("reason") if isinstance(run.state, dict) else None
    return f"deploy {run.id} is {run.status}" + (f": {reason}" if reason and run.status == "held" else "")
