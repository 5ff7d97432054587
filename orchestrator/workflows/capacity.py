"""I1, I2, I3 in practice: may this zone leave now, and what must be prepared first."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias, cast

from orchestrator.core.deploy_table import E
from orchestrator.core.errors import Denied, NoCapacity, Rejected, Transient
from orchestrator.core.guards import (
    CapacityPlan,
    Refusal,
    ZoneLoad,
    balanced,
    carrying,
    fair_rps,
    plan_capacity,
    refuse_absent_survivors,
    refuse_beside_one_on_its_way,
    refuse_second_zone_out,
    refuse_unsound_survivors,
    unsound,
    with_those_coming,
)
from orchestrator.core.health import Verdict, judge_fleet
from orchestrator.core.machine import Event, Json
from orchestrator.core.region_plan import usual_weights
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import STEADY, Placement, dump_steps, ramp_steps
from orchestrator.ports import FleetSeen
from orchestrator.workflows.gauge import COUNTED_S, Gauge
from orchestrator.workflows.job import Job
from orchestrator.workflows.polling import NotYet
from orchestrator.workflows.steering import Steering

WEIGHT_NOISE: Final = 0.01  # of all users: what a plan differs by when it is made again under the same load
LOAD_NOISE: Final = 1.02  # times what the weights say: what a region is measured to get over or under them


@dataclass(frozen=True, slots=True)
class Scaled:
    """A survivor's size `before` anything was prepared and `now`, and the minimum of its own autoscaler before."""

    before: int
    now: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is prepared for a zone, as its row holds it. `weights`: the regions'."""

    scale: Mapping[str, Scaled]
    weights: Mapping[str, int]

    @classmethod
    def of(cls, undo: Mapping[str, Json]) -> Prepared:
        scale = cast("dict[str, dict[str, int]]", undo.get("scale", {}))
        weights = cast("dict[str, int]", undo.get("weights", {}))
        sizes = {z: Scaled(c["from"], c["to"], c.get("minimum", c["from"])) for z, c in scale.items()}
        return cls(sizes, weights)

    def with_plan(self, plan: CapacityPlan, fleets: Mapping[str, FleetSeen]) -> Prepared:
        """Add what a newer plan asks for; what a survivor had before anything was prepared stays known."""
        scale = dict(self.scale)
        for zone, wanted in plan.scale.items():
            own, seen = fleets[zone].autoscaler, fleets[zone]
            size = len(seen.instances) if seen.no_room else seen.desired
            had = scale.get(zone, Scaled(size, size, own.minimum if own else size))
            scale[zone] = replace(had, now=max(wanted, had.now))
        return Prepared(scale, plan.weights or self.weights)

    def without_room(self, have: Mapping[str, int], weights: Mapping[str, int]) -> Prepared:
        """Be content with what the survivors have; the global tier moves the rest."""
        scale = {z: replace(s, now=min(s.now, max(s.before, have[z]))) for z, s in self.scale.items()}
        return Prepared(scale, weights)

    def row(self) -> dict[str, Json]:
        scale: dict[str, Json] = {
            z: {"from": s.before, "to": s.now, "minimum": s.minimum} for z, s in self.scale.items()
        }
        return {"scale": scale, "weights": dict(self.weights)}


def _moves_more(wanted: Mapping[str, int], moved: Mapping[str, int], region: str) -> bool:
    """The load has risen since the weights were moved: `region` must get noticeably less of it."""
    if not moved:
        return True
    share, now = (weights.get(region, 0) / (sum(weights.values()) or 1) for weights in (wanted, moved))
    return share < now - WEIGHT_NOISE


def _on_their_way(moved: Mapping[str, int], loads: Mapping[str, ZoneLoad], region: Region) -> bool:
    """The weights are as they should be, and `region` still gets more than they say: resolvers hold answers (I3)."""
    share = moved.get(region.id, 0) / (sum(moved.values()) or 1)
    here = sum(loads[z.id].rps for z in region.zones if z.id in loads)
    return share > 0 and here > LOAD_NOISE * share * sum(load.rps for load in loads.values())


_Ruled: TypeAlias = Refusal | tuple[CapacityPlan, Mapping[str, ZoneLoad]]


class _Rule(Protocol):
    async def __call__(self, *, may_scale: bool) -> _Ruled: ...


def overridden(refusal: Refusal) -> str:
    return f"{refusal.rule} is overridden: {refusal.reason}"


class Capacity:
    """The effects before a zone leaves: admit, prepare; and relieve, which makes up for them."""

    def __init__(self, gauge: Gauge, steering: Steering) -> None:
        self._gauge = gauge
        self._steering = steering

    async def admit(self, job: Job) -> Event:
        """Say what must be prepared before the zone may leave, or why it may not."""
        before = (*job.waiting, job.zone.id)[0]

        async def look() -> Event | NotYet:
            if job.zone.id != before and job.zone.id not in await self._out(job):
                return job.event(E.YIELDED, f"{job.zone.id} is out no longer: {before} goes first", {"to": before})
            fleet = await self._gauge.fleet(job.zone, anew=True)
            if await self._is_there(job, fleet):
                return job.event(E.ALREADY_THERE, f"all {fleet.desired} instances run {job.progress.goal}")
            return await self.grant(job, fleet)

        admitted = await job.until(look, job.policy.admit_timeout_s, late=E.REFUSED, doing="admission")
        out = await self._out(job) if admitted.kind == E.REFUSED else []
        if not out or job.zone.id in out:
            return admitted
        told = f"{admitted.evidence}; {out[0]} is out already and goes first (I1)"
        return job.event(E.YIELDED, told, {"to": out[0]})

    async def _out(self, job: Job) -> list[str]:
        """Zones that wait for this run and are out: what another run has out is back within an admission's time."""
        stand = await self._steering.standing(job.world.topology.zone(z) for z in job.waiting)
        return [z for z, to in stand.items() if to.placement is Placement.OUT]

    async def grant(self, job: Job, fleet: FleetSeen) -> Event | NotYet:
        """One look at every guard: what must be prepared before the zone may leave, or why it may not."""
        ruled = await self._rule(job)
        if isinstance(ruled, Refusal):
            return NotYet(f"refused by {ruled.rule}: {ruled.reason}")
        plan, loads = ruled
        prepared = await self._with_plan(job, Prepared({}, {}), plan)
        measured = {zone: round(load.rps, 2) for zone, load in loads.items()}
        versions = {i.version for i in fleet.instances}
        ran = versions.pop() if len(versions) == 1 else None
        args: dict[str, Json] = {
            "undo": prepared.row(),
            "steps": self.steps(job, loads),
            "version": ran,
            "sound": unsound(job.zone.id, loads.get(job.zone.id), job.policy.gate) is None,
        }
        return job.event(E.ADMITTED, plan.arithmetic, {**args, "loads": cast("Json", measured)})

    async def _with_plan(self, job: Job, prepared: Prepared, plan: CapacityPlan) -> Prepared:
        fleets = {z: await self._gauge.fleet(job.world.topology.zone(z), anew=True) for z in plan.scale}
        return prepared.with_plan(plan, fleets)

    async def _rule(self, job: Job, *, may_scale: bool = True, in_hand: bool = False) -> _Ruled:
        """Put every guard to the test, on what is measured now (I4: on the state after the change).

        A rule that a person has overridden is put to the test too, so that what it would have said is told. `may_scale`
        False: the survivors have no room, or the global tier moves load already. `in_hand`: the run has the zone already, so
        that where it is off steady, others that left beside it later do not keep it from going back. They carry no more
        than their part.
        """
        topology, policy = job.world.topology, job.policy
        self._gauge.outdate(topology.zones(), 0.0 if in_hand else COUNTED_S)
        loads = dict(await self._gauge.loads(policy.load_window_s))
        seen = await self._steering.seen()
        own = seen.get(job.zone.id)
        if job.zone.id not in loads and own is not None and own.total and not own.healthy:
            # Dead by its agent and by its load balancer: it carries nobody, and may be rolled forward to the fix (I13).
            loads[job.zone.id] = ZoneLoad(job.zone.id, 0.0, own.total, 0)
        waived, asked = [], seen
        off = {z for z, s in seen.items() if z != job.zone.id and s.placement is not Placement.STEADY}
        if in_hand and own is not None and own.placement is not Placement.STEADY:
            asked = {z: s for z, s in seen.items() if z not in off}
        for refusal in (
            refuse_second_zone_out(job.zone.id, asked),
            refuse_absent_survivors(job.zone.id, asked),
            refuse_unsound_survivors(job.zone.id, loads, topology, policy.gate),
            refuse_beside_one_on_its_way(job.zone.id, asked, loads),
        ):
            if refusal is not None and refusal.rule not in job.overrides:
                return refusal
            waived += [overridden(refusal)] if refusal else []
        loads = carrying(loads, seen, {job.zone.id})
        # More of what is out would carry nothing.
        room = not off & {neighbour.id for neighbour in job.neighbours}
        plan = await self._plan(job, loads, may_scale=may_scale and room)
        if isinstance(plan, Refusal):
            return plan
        return replace(plan, arithmetic="; ".join([*waived, plan.arithmetic])), loads

    async def _plan(
        self, job: Job, loads: Mapping[str, ZoneLoad], *, may_scale: bool, off: Collection[str] = ()
    ) -> CapacityPlan | Refusal:
        weights = (await self._steering.document()).region_weights
        plan = plan_capacity(
            job.zone.id,
            with_those_coming(job.region.id, loads, weights, job.world.topology),
            job.world.topology,
            max_utilisation=job.policy.max_utilisation,
            scale_survivors=job.policy.scale_survivors and may_scale,
            off=off,
        )
        if isinstance(plan, Refusal) and plan.rule in job.overrides:
            return CapacityPlan(arithmetic=overridden(plan))
        return plan

    def steps(self, job: Job, loads: Mapping[str, ZoneLoad]) -> list[Json]:
        steps = ramp_steps(
            job.policy.ramp_shares,
            job.policy.ramp_step_s,
            fair_rps(job.zone.id, loads, job.world.topology),
            loads[job.zone.id].instances if job.zone.id in loads else job.zone.instances,
            samples_min=job.policy.gate.samples_min,
            whole_instances=job.world.traffic(job.region).whole_instances() and bool(job.neighbours),
        )
        return dump_steps(steps)

    async def _is_there(self, job: Job, fleet: FleetSeen) -> bool:
        """True when there is nothing to do: every instance runs the goal and is ready, and the zone is steady."""
        if not fleet.instances or fleet.model_version != job.progress.goal:
            return False
        if len(fleet.instances) != fleet.desired or any(i.version != job.progress.goal for i in fleet.instances):
            return False
        sound = judge_fleet(await self._gauge.probe(job.zone), fleet.desired, job.progress.goal)
        seen = await self._steering.seen_zone(job.zone)
        return sound.verdict is Verdict.HEALTHY and seen is not None and seen.placement is Placement.STEADY

    async def prepare(self, job: Job) -> Event:
        """Freeze the zone's own scaling, scale the survivors and see them healthy, or move load between regions.

        What the row says is prepared is made so first. Then every guard is asked again, for minutes may have passed
        since admission: the zone leaves only when it could leave with nothing more to prepare.
        """
        prepared = Prepared.of(job.progress.undo)

        async def ask() -> None:
            await self._freeze(job)
            await self._want_what_is_there(job)
            if not job.progress.as_it_left:
                # It is on the ramp, maybe with all of its region's users: whoever has got well meanwhile needs a part.
                await self._steering.want_no_more(job.zone, job.fence)
                if not await self._steering.is_back(job.zone):
                    await self._steering.step_region(job.zone, job.fence)
            await self._grow_all(job, prepared)

        async def rule(*, may_scale: bool) -> _Ruled:
            return await self._rule(job, may_scale=may_scale, in_hand=True)

        return await self._prepare(job, prepared, ask, rule)

    async def _grow_all(self, job: Job, prepared: Prepared) -> None:
        for zone_id, scaled in prepared.scale.items():
            if await job.interrupted():
                return  # Whoever waits for them says so; meanwhile no further one is changed (I14).
            survivor = job.world.topology.zone(zone_id)
            await self.grow(job, survivor, scaled.now)
            # An order may have come while it was made smaller again, partly out of traffic (`scale_back`).
            await self._steering.want_survivor(survivor, STEADY, job.fence)

    async def grow(self, job: Job, survivor: Zone, wanted: int) -> None:
        """Ask for `wanted`, or for what is there already: its own autoscaler may have made more of it meanwhile."""
        fleet = await self._gauge.fleet(survivor, anew=True)
        there = min(fleet.desired, len(fleet.instances))  # Neither those that leave, nor those that it has no room for.
        await job.world.fleet(survivor).scale(survivor, max(wanted, there), job.fence)
        self._gauge.forget(survivor)

    async def _want_what_is_there(self, job: Job) -> None:
        """Where its cloud had no room for all that the zone's autoscaler wished, an upgrade would wait for the rest."""
        fleet = await self._gauge.fleet(job.zone, anew=True)
        if not fleet.no_room or not fleet.instances:
            return
        adapter = job.world.fleet(job.zone)
        await adapter.scale(job.zone, len(fleet.instances), job.fence)
        if fleet.autoscaler is not None:
            await adapter.set_minimum(job.zone, fleet.autoscaler.minimum, job.fence)
        self._gauge.forget(job.zone)

    async def _prepare(self, job: Job, prepared: Prepared, ask: Callable[[], Awaitable[None]], rule: _Rule) -> Event:
        """Ask, see it, ask the rules again. Where a survivor has no room, the global tier moves what it cannot carry."""
        try:
            stopped = await job.do(ask, late=E.UNPREPARED, doing="asking for capacity")
            return stopped or await self._see_prepared(job, prepared, rule)
        except NoCapacity as none:
            full = none

        async def look() -> Event:
            survivors = [job.world.topology.zone(zone) for zone in prepared.scale]
            have = {z.id: len((await self._gauge.fleet(z, anew=True)).instances) for z in survivors}
            ruled = await rule(may_scale=False)
            if isinstance(ruled, Refusal):
                return job.event(E.UNPREPARED, f"{full}; refused by {ruled.rule}: {ruled.reason}")
            content = prepared.without_room(have, ruled[0].weights or prepared.weights)
            if content == prepared:
                return job.event(E.UNPREPARED, str(full))
            return job.event(E.REPLANNED, f"{full}; {ruled[0].arithmetic}", {"undo": content.row()})

        return await job.until(look, job.policy.admit_timeout_s, late=E.UNPREPARED, doing="planning without that room")

    async def relieve(self, job: Job) -> Event:
        """I3 after an evacuation: the zone is out already, and what a drain would have prepared is made up for.

        Its own scaling is frozen if its cloud answers; nothing waits for that.
        """
        prepared = Prepared.of(job.progress.undo)

        async def ask() -> None:
            await self._grow_all(job, prepared)

        async def rule(*, may_scale: bool) -> _Ruled:
            measured = await self._load_without(job)
            seen = await self._steering.seen_or_wanted()
            loads = balanced(carrying(measured, seen, {job.zone.id}), seen)
            off = {z for z, s in seen.items() if s.placement is Placement.OUT}
            plan = await self._plan(job, loads, may_scale=may_scale, off=off)
            return plan if isinstance(plan, Refusal) else (plan, loads)

        ready = await self._prepare(job, prepared, ask, rule)
        if ready.kind == E.PREPARED:
            with contextlib.suppress(Transient, Denied, Rejected):
                await self._freeze(job)
        return ready

    async def _load_without(self, job: Job) -> Mapping[str, ZoneLoad]:
        """What is asked for now that the zone is out. It serves nobody, whether it answers or not.

        What it got until a moment ago is measured there and falls to the others; where it answers nobody, only what they
        are measured to get from now on says so (I3).
        """
        measured = dict(await self._gauge.loads(job.policy.load_window_s))
        if job.zone.id not in measured:
            self._gauge.measure_anew()
            measured = dict(await self._gauge.loads(job.policy.load_window_s))
        own = measured.get(job.zone.id)
        out = ZoneLoad(job.zone.id, own.rps if own else 0.0, job.zone.instances, 0)
        return {**measured, job.zone.id: out}

    async def _freeze(self, job: Job) -> None:
        """Nothing but an upgrade may replace instances meanwhile; where there is none, what dies is repaired as ever."""
        fleet, repairs = job.world.fleet(job.zone), not job.progress.upgrades
        await fleet.set_autoscaling(job.zone, enabled=False, repairs=repairs, fence=job.fence)

    async def _see_prepared(self, job: Job, prepared: Prepared, rule: _Rule) -> Event:
        """Wait until what was asked for is there; then ask again whether it suffices."""
        stopped = None
        for zone_id, scaled in prepared.scale.items():
            stopped = stopped or await self.await_survivor(job, job.world.topology.zone(zone_id), scaled.now)
        if prepared.weights and stopped is None:
            stopped = await self._still_carried(job, prepared, rule)
        if prepared.weights and stopped is None:
            stopped = await self.move_weights(job, prepared.weights, E.UNPREPARED)
        if stopped is not None:
            return stopped

        async def look() -> Event | NotYet:
            document = await self._steering.document()  # Before the guards: what is written after this is news to them.
            ruled = await rule(may_scale=not prepared.weights)
            if isinstance(ruled, Refusal):
                return NotYet(f"refused by {ruled.rule}: {ruled.reason}")
            if prepared.weights and _moves_more(prepared.weights, document.region_weights, job.region.id):
                # Its users are on their way back, however few of them the guards have measured yet (I3, I4).
                return NotYet(f"another run has given {job.region.id} more users again")
            plan = ruled[0]
            if plan.scale or (plan.weights and _moves_more(plan.weights, prepared.weights, job.region.id)):
                newer = await self._with_plan(job, prepared, plan)
                return job.event(E.REPLANNED, plan.arithmetic, {"undo": newer.row()})
            if plan.weights and _on_their_way(prepared.weights, ruled[1], job.region):
                return NotYet(f"users of {job.region.id} are still on their way elsewhere: {plan.arithmetic}")
            told = f"{len(prepared.scale)} survivors scaled, {len(prepared.weights)} region weights moved"
            sound = unsound(job.zone.id, ruled[1].get(job.zone.id), job.policy.gate) is None
            return job.event(
                E.PREPARED, told, {"undo": {**prepared.row(), "document": document.version}, "sound": sound}
            )

        return await job.until(look, job.policy.admit_timeout_s, late=E.UNPREPARED, doing="preparation")

    async def _still_carried(self, job: Job, prepared: Prepared, rule: _Rule) -> Event | None:
        """None when the regions that are about to get more can still carry it: an order may have sent an old plan here (I3)."""
        now = (await self._steering.document()).region_weights
        if not _moves_more(prepared.weights, now or usual_weights(job.world.topology), job.region.id):
            return None  # They have it already.

        async def look() -> Event | NotYet | None:
            ruled = await rule(may_scale=False)
            if isinstance(ruled, Refusal):
                return NotYet(f"refused by {ruled.rule}: {ruled.reason}")
            plan = ruled[0]
            if not plan.weights or not any(
                _moves_more(plan.weights, prepared.weights, r.id) for r in job.world.topology.regions if r != job.region
            ):
                return None
            return job.event(E.REPLANNED, plan.arithmetic, {"undo": replace(prepared, weights=plan.weights).row()})

        doing = "asking whether the other regions still carry it"
        return await job.until(look, job.policy.admit_timeout_s, late=E.UNPREPARED, doing=doing)

    async def await_survivor(self, job: Job, survivor: Zone, wanted: int) -> Event | None:
        async def look() -> bool | NotYet:
            probes = await self._gauge.probe(survivor, anew=True)
            ready = sum(p.reachable and p.ready for p in probes)
            seen = await self._steering.until_zone(survivor, job.fence)
            if ready < wanted:
                await self.grow(job, survivor, wanted)  # says so when there is no room
                return NotYet(f"{survivor.id}: {ready} of {wanted} ready")
            return seen if isinstance(seen, NotYet) else True

        done = await job.until(
            look, job.policy.prepare_timeout_s, late=E.UNPREPARED, doing=f"scaling {survivor.id} to {wanted}"
        )
        return done if isinstance(done, Event) else None

    async def move_weights(self, job: Job, weights: Mapping[str, int], late: E) -> Event | None:
        """Move load between regions and wait the TTL out; None when it is elsewhere.

        It is waited for where the weights are right already too: nobody knows for how long they have been (a crash, or
        an order, may have cut the wait short).
        """
        await self._steering.want_weights(weights, job.fence)

        async def look() -> bool | NotYet:
            return await self._steering.until_weights(job.fence)

        done = await job.until(look, job.policy.prepare_timeout_s, late=late, doing="moving load between regions")
        if isinstance(done, Event):
            return done
        # Answers that resolvers hold live for the TTL; only then is the load really elsewhere.
        return await job.wait(job.world.topology.global_tier.ttl_s, "waiting for the DNS TTL")
