"""What each effect of the deploy machine does, on ports. Every effect is idempotent, and interruptible by a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, cast

from orchestrator.core.deploy import DeployState, E, ZoneProgress
from orchestrator.core.errors import Bug, Denied, NoCapacity, Refused, Rejected, Transient
from orchestrator.core.guards import (
    CapacityPlan,
    Refusal,
    plan_capacity,
    refuse_overload_on_return,
    refuse_replacing,
    refuse_second_zone_out,
    refuse_unsound_survivors,
)
from orchestrator.core.health import Verdict, judge, judge_fleet, judge_synthetic
from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.topology import Zone
from orchestrator.core.traffic import OUT, STEADY, Placement, ramp, ramp_steps
from orchestrator.ports import Fence, FleetSeen, Notice
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.polling import Found, Interrupted, NotYet, Stopped, TimedOut, look_until
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.world import World

_OF_VERDICT = {Verdict.UNHEALTHY: E.UNHEALTHY, Verdict.INCONCLUSIVE: E.INCONCLUSIVE, Verdict.UNMEASURED: E.INCONCLUSIVE}
# What an effect becomes when its cloud refuses for good: the machine then holds, withdraws or undoes.
_FAILED_AS = {"admit": E.REFUSED, "prepare": E.UNPREPARED}


class DeployPerformer:
    """Performs effects for runs of kind `deploy` of one service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._gauge = Gauge(world)
        self._steering = Steering(world)
        self._effects: Mapping[str, Callable[[_Job], Awaitable[Event]]] = {
            "admit": self._admit,
            "prepare": self._prepare,
            "drain": self._drain,
            "upgrade": self._upgrade,
            "verify": self._verify,
            "ramp": self._ramp,
            "join": self._join,
            "bake": self._bake,
            "settle": self._settle,
        }

    async def perform(self, state: DeployState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        """Do `effect` and say what came of it. Only StaleCarrier and Bug are raised; every other failure is an event."""
        if effect.zone is None:
            raise Bug(f"effect {effect.kind} names no zone")
        job = _Job(self._world.topology.zone(effect.zone), state.zone(effect.zone), state, fence, interrupted)
        try:
            event = await self._effects[effect.kind](job)
        except Refused as refused:
            event = job.event(_FAILED_AS.get(effect.kind, E.STUCK), f"refused by {refused.rule}: {refused.reason}")
        except (Denied, Rejected, NoCapacity, Transient) as error:
            event = job.event(_FAILED_AS.get(effect.kind, E.STUCK), f"{type(error).__name__.lower()}: {error}")
        await self._notify(job, event)
        return event

    async def _until(
        self, job: _Job, look: Callable[[], Awaitable[Any]], timeout_s: float, *, late: E, doing: str
    ) -> Any:  # noqa: ANN401 - whatever the look returns, or the Event that ends the effect
        """Look until it is so; return the value, or the Event that says it was interrupted or came too late."""
        policy = job.state.policy
        result = await look_until(look, self._world.clock, job.interrupted, every_s=policy.poll_s, timeout_s=timeout_s)
        match result:
            case Found(value):
                return value
            case TimedOut(seconds, last):
                return job.event(late, f"{doing} took more than {seconds:.0f} s: {last}")
            case Stopped():
                return job.event(E.INTERRUPTED, f"{doing} was interrupted")

    async def _do(self, job: _Job, act: Callable[[], Awaitable[object]], late: E, doing: str) -> Event | None:
        """Do one idempotent thing, again while its cloud is only slow or throttled; None when it is done."""

        async def look() -> bool:
            await act()
            return True

        done = await self._until(job, look, job.state.policy.prepare_timeout_s, late=late, doing=doing)
        return done if isinstance(done, Event) else None

    # ---- before the zone leaves

    async def _admit(self, job: _Job) -> Event:
        """I1, I2, I3: may this zone leave now, and what must be prepared first?"""

        async def look() -> Event | tuple[CapacityPlan, Mapping[str, Any]] | NotYet:
            fleet = await self._gauge.fleet(job.zone, anew=True)
            if await self._is_there(job, fleet):
                return job.event(E.ALREADY_THERE, f"all {fleet.desired} instances run {job.progress.goal}")
            loads = await self._gauge.loads(job.state.policy.load_window_s)
            refusal = refuse_second_zone_out(job.zone.id, await self._steering.seen())
            # A sick zone may leave to be mended; the others must be sound.
            refusal = refusal or refuse_unsound_survivors(job.zone.id, loads, self._world.topology)
            plan = refusal or plan_capacity(
                job.zone.id,
                loads,
                self._world.topology,
                max_utilisation=job.state.policy.max_utilisation,
                scale_survivors=job.state.policy.scale_survivors,
            )
            return NotYet(f"refused by {plan.rule}: {plan.reason}") if isinstance(plan, Refusal) else (plan, loads)

        found = await self._until(job, look, job.state.policy.admit_timeout_s, late=E.REFUSED, doing="admission")
        if isinstance(found, Event):
            return found
        plan, loads = found
        region = self._world.topology.region_of(job.zone.id)
        fair_rps = sum(loads[z.id].rps for z in region.zones) / len(region.zones)
        steps = ramp_steps(
            job.state.policy.ramp_shares,
            job.state.policy.ramp_step_s,
            fair_rps,
            loads[job.zone.id].instances,
            samples_min=job.state.policy.gate.samples_min,
            whole_instances=self._world.traffic(region).whole_instances(),
        )
        args: dict[str, Json] = {
            "undo": {
                "scale": {z: {"from": loads[z].instances, "to": n} for z, n in plan.scale.items()},
                "weights": cast("Json", dict(plan.weights)),
            },
            "steps": cast("Json", [{**asdict(s), "merged": list(s.merged)} for s in steps]),
        }
        return job.event(E.ADMITTED, plan.arithmetic, args)

    async def _is_there(self, job: _Job, fleet: FleetSeen) -> bool:
        """True when there is nothing to do: every instance runs the goal and is ready, and the zone is steady."""
        if not fleet.instances or fleet.model_version != job.progress.goal:
            return False
        if len(fleet.instances) != fleet.desired or any(i.version != job.progress.goal for i in fleet.instances):
            return False
        fleet_judgement = judge_fleet(await self._gauge.probe(job.zone), fleet.desired, job.progress.goal)
        seen = (await self._steering.seen()).get(job.zone.id)
        return fleet_judgement.verdict is Verdict.HEALTHY and seen is not None and seen.placement is Placement.STEADY

    async def _prepare(self, job: _Job) -> Event:
        """Scale the survivors and see them healthy (I3), or move load between regions and wait the TTL out."""
        policy = job.state.policy
        scale = cast("dict[str, dict[str, int]]", job.progress.undo.get("scale", {}))

        async def ask() -> None:
            await self._world.fleet(job.zone).set_autoscaling(job.zone, enabled=False, fence=job.fence)
            for zone_id, change in scale.items():
                survivor = self._world.topology.zone(zone_id)
                await self._world.fleet(survivor).scale(survivor, change["to"], job.fence)

        failed = await self._do(job, ask, E.UNPREPARED, "asking for capacity")
        if failed is not None:
            return failed
        for zone_id, change in scale.items():
            survivor, wanted = self._world.topology.zone(zone_id), change["to"]

            async def look(survivor: Zone = survivor, wanted: int = wanted) -> bool | NotYet:
                probes = await self._gauge.probe(survivor, anew=True)
                ready = sum(p.reachable and p.ready for p in probes)
                seen = await self._steering.until_zone(survivor, job.fence)
                return (
                    True
                    if ready >= wanted and not isinstance(seen, NotYet)
                    else NotYet(f"{survivor.id}: {ready} of {wanted} ready")
                )

            done = await self._until(job, look, policy.prepare_timeout_s, late=E.UNPREPARED, doing=f"scaling {zone_id}")
            if isinstance(done, Event):
                return done
        weights = cast("dict[str, int]", job.progress.undo.get("weights", {}))
        if weights:
            moved = await self._move_weights(job, weights, E.UNPREPARED)
            if moved is not None:
                return moved
        return job.event(E.PREPARED, f"{len(scale)} survivors scaled, {len(weights)} region weights moved")

    async def _move_weights(self, job: _Job, weights: Mapping[str, int], late: E) -> Event | None:
        await self._steering.want_weights(weights, job.fence)

        async def look() -> bool | NotYet:
            return await self._steering.until_weights(job.fence)

        done = await self._until(
            job, look, job.state.policy.prepare_timeout_s, late=late, doing="moving load between regions"
        )
        if isinstance(done, Event):
            return done
        # Answers that resolvers hold live for the TTL; only then is the load really elsewhere.
        return await self._watch(job, self._world.topology.global_tier.ttl_s)

    async def _watch(self, job: _Job, seconds: float) -> Event | None:
        """Let `seconds` pass, reading the load meanwhile; an Event when a person interrupts."""
        until = self._world.clock.monotonic() + seconds
        while (left := until - self._world.clock.monotonic()) > 0:
            if await job.interrupted():
                return job.event(E.INTERRUPTED, "the wait was interrupted")
            await self._world.clock.sleep(min(job.state.policy.poll_s, left))
        return None

    # ---- out

    async def _drain(self, job: _Job) -> Event:
        """Stop new traffic to the zone and wait until nothing is in flight."""
        await self._steering.want_zone(job.zone, OUT, job.fence)

        async def look() -> str | NotYet:
            seen = await self._steering.until_drained(job.zone, job.fence)
            if isinstance(seen, NotYet):
                return seen
            in_flight = sum(p.in_flight for p in await self._gauge.probe(job.zone) if p.reachable)
            return told(seen) if in_flight == 0 else NotYet(f"{in_flight} requests in flight")

        policy = job.state.policy
        drained = await self._until(job, look, policy.drain_timeout_s, late=E.DRAIN_TIMED_OUT, doing="draining")
        return drained if isinstance(drained, Event) else job.event(E.DRAINED, drained)

    async def _upgrade(self, job: _Job) -> Event:
        """Bring every instance of the zone to the goal. I13 is checked right before, from what the cloud says."""
        version = job.progress.goal
        image = self._world.releases.get(version).image_for(self._world.topology.region_of(job.zone.id).id)
        fleet = self._world.fleet(job.zone)

        async def begin() -> bool:
            seen = await self._steering.seen_zone(job.zone)
            probes = await self._gauge.probe(job.zone, anew=True)
            refusal = refuse_replacing(job.zone.id, seen, sum(p.in_flight for p in probes if p.reachable))
            if refusal is not None:
                raise Refused(refusal.rule, refusal.reason, zone=job.zone.id)
            await fleet.replace(job.zone, version, image, job.fence)
            return True

        policy = job.state.policy
        begun = await self._until(job, begin, policy.upgrade_timeout_s, late=E.STUCK, doing=f"asking for {version}")
        if isinstance(begun, Event):
            return begun

        async def look() -> str | Event | NotYet:
            progress = await fleet.replacement(job.zone)
            if progress.running:
                return NotYet(f"{progress.done} of {progress.total} replaced")
            if progress.failure:
                return job.event(E.UNHEALTHY, f"the upgrade to {version} failed: {progress.failure}")
            seen = await self._gauge.fleet(job.zone, anew=True)
            right = [i for i in seen.instances if i.version == version and i.running]
            if len(right) == len(seen.instances) == seen.desired and seen.desired > 0:
                return f"all {seen.desired} instances run {version}"
            return NotYet(f"{len(right)} of {seen.desired} instances run {version}")

        done = await self._until(
            job, look, policy.upgrade_timeout_s, late=E.UNHEALTHY, doing=f"the upgrade to {version}"
        )
        return done if isinstance(done, Event) else job.event(E.UPGRADED, done)

    async def _verify(self, job: _Job) -> Event:
        """Before any user's request: every instance ready at the goal, then synthetic requests through the region agent."""
        policy, goal = job.state.policy, job.progress.goal

        async def ready() -> str | NotYet:
            expected = (await self._gauge.fleet(job.zone)).desired
            fleet = judge_fleet(await self._gauge.probe(job.zone), expected, goal)
            return fleet.evidence if fleet.verdict is Verdict.HEALTHY else NotYet(fleet.evidence)

        found = await self._until(job, ready, policy.verify_timeout_s, late=E.UNHEALTHY, doing="becoming ready")
        if isinstance(found, Event):
            return found
        wanted = self._world.releases.get(goal).synthetic_requests
        usual_ms = self._gauge.usual_p50_ms(without=job.zone.id)
        limits = [policy.synthetic_p50_max_ms] + ([usual_ms + policy.gate.p50_added_max_ms] if usual_ms else [])

        async def synthetic() -> Event:
            peers = await self._gauge.peers(job.zone)
            result = await self._world.agent(job.zone).synthesize(peers, wanted, policy.verify_timeout_s)
            judgement = judge_synthetic(
                result,
                wanted,
                failed_share_max=policy.synthetic_failed_share_max,
                p50_max_ms=min(limits),
            )
            kind = _OF_VERDICT.get(judgement.verdict, E.VERIFIED)
            return job.event(kind, f"{found}; {judgement.evidence}")

        verdict: Event = await self._until(
            job, synthetic, policy.verify_timeout_s, late=E.INCONCLUSIVE, doing="sending synthetic requests"
        )
        return verdict

    # ---- back

    async def _ramp(self, job: _Job) -> Event:
        """Give the zone the share of this step, then compare it with the survivors for as long as the step lasts (I9)."""
        step = job.progress.steps[min(job.progress.step, len(job.progress.steps) - 1)]
        unfit = await self._unfit_for_traffic(job)
        if unfit is not None:
            return unfit
        await self._steering.want_zone(job.zone, ramp(step.share), job.fence)

        async def look() -> object:
            return await self._steering.until_zone(job.zone, job.fence)

        placed = await self._until(
            job, look, job.state.policy.verify_timeout_s, late=E.STUCK, doing=f"giving {step.share:.0%}"
        )
        if isinstance(placed, Event):
            return placed
        return await self._compare(job, step.seconds, E.STEP_PASSED, f"at {step.share:.0%}")

    async def _unfit_for_traffic(self, job: _Job) -> Event | None:
        """I2, I3 before restoring: every instance ready at the goal, and the region carries its load with the zone back."""

        async def look() -> bool | NotYet:
            expected = (await self._gauge.fleet(job.zone)).desired
            fleet = judge_fleet(await self._gauge.probe(job.zone), expected, job.progress.goal)
            if fleet.verdict is not Verdict.HEALTHY:
                return NotYet(fleet.evidence)
            policy = job.state.policy
            loads = await self._gauge.loads(policy.load_window_s)
            refusal = refuse_overload_on_return(
                job.zone.id, loads, self._world.topology, max_utilisation=policy.max_utilisation
            )
            return NotYet(f"refused by {refusal.rule}: {refusal.reason}") if refusal else True

        fit = await self._until(
            job, look, job.state.policy.verify_timeout_s, late=E.UNHEALTHY, doing="being fit to return"
        )
        return fit if isinstance(fit, Event) else None

    async def _compare(self, job: _Job, seconds: float, passed: E, doing: str) -> Event:
        """Watch the zone beside the survivors; harm ends it early, too little data doubles the time once (I2)."""
        gauge, clock, policy = self._gauge, self._world.clock, job.state.policy
        region = self._world.topology.region_of(job.zone.id)
        others = [z.id for z in region.zones if z.id != job.zone.id]
        others = others or [z.id for z in self._world.topology.zones() if z.id != job.zone.id]
        began, before = await self._tick(job)
        while True:
            if await job.interrupted():
                return job.event(E.INTERRUPTED, f"watching {doing} was interrupted")
            elapsed = clock.monotonic() - began
            await clock.sleep(max(0.0, min(max(policy.poll_s, seconds / 10), seconds - elapsed)))
            try:
                now, after = await gauge.tick()
            except Transient:
                if clock.monotonic() - began > 2 * seconds + policy.verify_timeout_s:
                    raise
                await clock.sleep(policy.poll_s)
                continue
            judgement = judge(*gauge.windows(before, after, now - began, job.zone.id, others), policy.gate)
            evidence = f"{doing} for {now - began:.1f} s: {judgement.evidence}"
            if judgement.verdict is Verdict.UNHEALTHY:
                return job.event(E.UNHEALTHY, evidence)
            if now - began >= seconds and judgement.verdict is Verdict.HEALTHY:
                return job.event(passed, evidence)
            if now - began >= 2 * seconds:
                return job.event(_OF_VERDICT[judgement.verdict], evidence)

    async def _tick(self, job: _Job) -> tuple[float, Any]:
        found = await look_until(
            self._gauge.tick,
            self._world.clock,
            _never,
            every_s=job.state.policy.poll_s,
            timeout_s=job.state.policy.verify_timeout_s,
        )
        if isinstance(found, Found):
            return found.value
        raise Transient(f"{job.zone.id}: no region agent could be asked: {found}")

    async def _join(self, job: _Job) -> Event:
        """Back among the survivors: steady, every instance healthy by its load balancer."""
        await self._steering.want_zone(job.zone, STEADY, job.fence)

        async def look() -> object:
            return await self._steering.until_zone(job.zone, job.fence)

        policy = job.state.policy
        joined = await self._until(job, look, policy.verify_timeout_s, late=E.STUCK, doing="joining the steady zones")
        return joined if isinstance(joined, Event) else job.event(E.JOINED, told(joined))

    async def _bake(self, job: _Job) -> Event:
        policy = job.state.policy
        seconds = policy.bake_s * (policy.bake_first_factor if job.progress.first else 1.0)
        return await self._compare(job, seconds, E.BAKED, "baking")

    async def _settle(self, job: _Job) -> Event:
        """Undo what was prepared: thaw the autoscaler, scale the survivors back, give the regions their weights."""
        if job.progress.undo.get("weights"):
            weights = {region.id: region.weight for region in self._world.topology.regions}
            moved = await self._move_weights(job, weights, E.STUCK)
            if moved is not None:
                return moved

        async def put_back() -> None:
            await self._world.fleet(job.zone).set_autoscaling(job.zone, enabled=True, fence=job.fence)
            for zone_id, change in cast("dict[str, dict[str, int]]", job.progress.undo.get("scale", {})).items():
                survivor = self._world.topology.zone(zone_id)
                await self._world.fleet(survivor).scale(survivor, change["from"], job.fence)

        failed = await self._do(job, put_back, E.STUCK, "undoing what was prepared")
        return failed or job.event(E.SETTLED, "what was prepared is undone")

    async def _notify(self, job: _Job, event: Event) -> None:
        """A person hears of everything that is not plain progress."""
        levels = {E.UNHEALTHY: "warning", E.DRAIN_TIMED_OUT: "warning", E.REFUSED: "page", E.UNPREPARED: "page"}
        levels |= {E.STUCK: "page", E.INCONCLUSIVE: "page"}
        kind = E(event.kind)
        if kind in levels:
            notice = Notice(levels[kind], job.state.target, job.zone.id, str(kind), event.evidence, None, None)
            await self._world.notifier.notify(notice)


async def _never() -> bool:
    return False


class _Job:
    """One effect being performed."""

    def __init__(
        self, zone: Zone, progress: ZoneProgress, state: DeployState, fence: Fence, interrupted: Interrupted
    ) -> None:
        self.zone = zone
        self.progress = progress
        self.state = state
        self.fence = fence
        self.interrupted = interrupted

    def event(self, kind: E, evidence: str, args: Mapping[str, Json] | None = None) -> Event:
        return Event(kind, self.zone.id, evidence, args or {})
