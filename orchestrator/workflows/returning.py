"""I2 and I9 in practice: a zone is verified without users, comes back in steps that are measured, joins, and is watched."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final, Literal

from orchestrator.core.deploy_table import E
from orchestrator.core.errors import NotFound, Transient
from orchestrator.core.guards import ZoneLoad, fair_rps, refuse_overload_on_return
from orchestrator.core.health import Verdict, judge, judge_fleet, judge_synthetic
from orchestrator.core.machine import Event, Json
from orchestrator.core.release import Release
from orchestrator.core.traffic import OUT, STEADY, Placement, RampStep, ZoneTraffic, matches, parse_steps, ramp
from orchestrator.workflows.capacity import Capacity
from orchestrator.workflows.gauge import Gauge, Reading, seconds_between, window_of
from orchestrator.workflows.job import STALE_S, Job
from orchestrator.workflows.polling import Found, NotYet, look_until
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.synthetic import send

_OF_VERDICT: Final = {
    Verdict.UNHEALTHY: E.UNHEALTHY,
    Verdict.INCONCLUSIVE: E.INCONCLUSIVE,
    Verdict.UNMEASURED: E.INCONCLUSIVE,
}


class Returning:
    """The effects of a zone's way back: verify, ramp, join, bake."""

    def __init__(self, gauge: Gauge, steering: Steering, capacity: Capacity) -> None:
        self._gauge = gauge
        self._steering = steering
        self._capacity = capacity

    async def verify(self, job: Job) -> Event:
        """Before any user's request: every instance ready at the goal, then synthetic requests through the region agent."""

        async def sound() -> tuple[str, Mapping[str, ZoneLoad]] | NotYet:
            seen = await self._sound(job)
            if isinstance(seen, NotYet):
                return seen
            # What is usual: measured, also right after a crash.
            return seen, await self._gauge.loads(job.policy.load_window_s)

        ready = await job.until(sound, job.policy.verify_timeout_s, late=E.UNHEALTHY, doing="becoming ready")
        if isinstance(ready, Event):
            return ready
        told, measured = ready
        measured_s, wanted = job.clock.monotonic(), self._synthetic_requests(job)
        usual_ms = self._gauge.usual_p50_ms(without=job.zone.id)
        limits = [job.policy.synthetic_p50_max_ms]
        limits += [usual_ms + job.policy.gate.p50_added_max_ms] if usual_ms else []

        async def synthetic() -> Event:
            peers, agent = await self._gauge.peers(job.zone), job.world.agent(job.zone)
            timeout_s = job.policy.verify_timeout_s
            result = await send(agent, peers, wanted, job.clock, job.interrupted, timeout_s=timeout_s)
            if result is None:
                return job.event(E.INTERRUPTED, "sending synthetic requests was interrupted")
            judgement = judge_synthetic(
                result, wanted, failed_share_max=job.policy.synthetic_failed_share_max, p50_max_ms=min(limits)
            )
            late = job.clock.monotonic() - measured_s > STALE_S  # More users may have come, and make finer steps (I9).
            args = self._steps_now(job, await self._gauge.loads(job.policy.load_window_s) if late else measured)
            return job.event(_OF_VERDICT.get(judgement.verdict, E.VERIFIED), f"{told}; {judgement.evidence}", args)

        return await job.until(
            synthetic, job.policy.verify_timeout_s, late=E.INCONCLUSIVE, doing="sending synthetic requests"
        )

    def _steps_now(self, job: Job, loads: Mapping[str, ZoneLoad]) -> dict[str, Json]:
        """I9: what was too little to be measured in steps when the zone left may be enough by now.

        Where there is no neighbour and its users are elsewhere, what was planned stands; so it does where one is unheard,
        unless what the others get is enough for more steps already.
        """
        if not job.neighbours:
            return {}
        steps = self._capacity.steps(job, loads)
        heard = all(z.id in loads for z in job.region.zones)
        return {"steps": steps} if heard or len(steps) > len(job.progress.steps) else {}

    def _synthetic_requests(self, job: Job) -> int:
        """As its manifest says; a zone may come back with a version that never was deployed from here."""
        try:
            return job.world.releases.get(job.progress.goal).synthetic_requests
        except NotFound:
            return Release(job.progress.goal, ()).synthetic_requests

    async def _sound(self, job: Job) -> str | NotYet:
        expected = (await self._gauge.fleet(job.zone)).desired
        fleet = judge_fleet(await self._gauge.probe(job.zone), expected, job.progress.goal)
        return fleet.evidence if fleet.verdict is Verdict.HEALTHY else NotYet(fleet.evidence)

    async def ramp(self, job: Job) -> Event:
        """Give the zone the share of this step, then compare it with the survivors for as long as the step lasts (I9)."""
        stale, given = job.stale(), await self._given(job)
        if isinstance(given, Event):
            return given
        wanted, whole = given
        if stale is not None and await self._steering.takes_nothing(job.zone):
            return await self._anew(job, stale)
        if whole:
            # It was held while it joined, or later: to take a part of that away again would need the guards.
            return job.event(E.RAMPED, "it has its whole part already")
        if wanted == OUT and job.neighbours:
            back = await self._is_back(job)
            if back is not False:
                return back
        at = min(job.progress.step, len(job.progress.steps) - 1)
        step, last = job.progress.steps[at], at == len(job.progress.steps) - 1
        loads = await self._until_fit(job)
        if isinstance(loads, Event):
            return loads
        if (
            job.stale() is not None
            and self._more_to_measure(job, loads)
            and await self._steering.takes_nothing(job.zone)
        ):
            why = "more users came while it waited: its steps are planned anew (I9)"
            return await self._anew(job, job.event(E.STALE, why))
        expected = int(self._fair_rps(job, loads) * step.share * step.seconds)
        measured = all(z.id in loads for z in job.region.zones)  # A neighbour that nobody hears may be busy (I2).
        if measured and expected < job.policy.gate.samples_min and not last:
            why = f"{step.share:.0%} would be about {expected} requests in {step.seconds:.0f} s: too few to tell"
            return job.event(E.STEP_MERGED, why)
        placed = await self._place(job, step)
        if isinstance(placed, Event):
            return placed
        watched = await self._compare(job, step.seconds, E.STEP_PASSED, f"at {placed:.0%}", whole=last)
        return await self._with_all(job, watched) if last and watched.kind is E.STEP_PASSED else watched

    async def _given(self, job: Job) -> tuple[ZoneTraffic, bool] | Event:
        """What it is to get, and whether that is its whole part already."""

        async def look() -> tuple[ZoneTraffic, bool]:
            wanted = await self._steering.wanted(job.zone)
            if wanted != STEADY or job.neighbours:
                return wanted, wanted == STEADY
            return wanted, await self._steering.weight(job.region) >= job.region.weight

        doing = "looking what it is to get"
        return await job.until(look, job.policy.verify_timeout_s, late=E.INCONCLUSIVE, doing=doing)

    async def _is_back(self, job: Job) -> Event | Literal[False]:
        """A hand has put it back with all of its users: to take them away again would need the guards (I3, I4)."""

        async def look() -> bool | NotYet:
            seen = await self._steering.seen_zone(job.zone)
            return matches(seen, STEADY, Fraction(0)) if seen else NotYet(f"{job.region.id} says nothing of it")

        doing = "looking where its users go"
        back = await job.until(look, job.policy.verify_timeout_s, late=E.INCONCLUSIVE, doing=doing)
        if isinstance(back, Event):
            return back
        return job.event(E.RAMPED, "somebody has given it its whole part already") if back else False

    async def _anew(self, job: Job, stale: Event) -> Event:
        """No part of a step that was recorded may come to it before it is verified."""
        await self._steering.want_zone(job.zone, OUT, job.fence)
        return stale

    def _more_to_measure(self, job: Job, loads: Mapping[str, ZoneLoad]) -> bool:
        """What was planned was planned on another load, and the steps that there would be now are finer."""
        if job.progress.step > 0 or not job.progress.upgrades:
            return False
        now = parse_steps(self._steps_now(job, loads).get("steps", []))
        return len(now) > len(job.progress.steps)

    async def _until_fit(self, job: Job) -> Mapping[str, ZoneLoad] | Event:
        """I2: its own instances must be sound, else it goes back. What ails the region only makes it wait for a person.

        To send a sound zone away because another one cannot be measured would take from the survivors what they need.
        """
        sound = await job.until(
            lambda: self._sound(job), job.policy.verify_timeout_s, late=E.UNHEALTHY, doing="being fit to return"
        )
        if isinstance(sound, Event):
            return sound
        fit = await job.until(
            lambda: self.fit(job), job.policy.verify_timeout_s, late=E.INCONCLUSIVE, doing="being welcome back"
        )
        return await self._or_sick(job, fit) if isinstance(fit, Event) else fit

    async def fit(self, job: Job) -> Mapping[str, ZoneLoad] | NotYet:
        """I3 before restoring: the region carries its load with the zone back."""
        sound = await self._sound(job)
        if isinstance(sound, NotYet):
            return sound
        loads = await self._gauge.loads(job.policy.load_window_s)
        refusal = refuse_overload_on_return(
            job.zone.id, loads, job.world.topology, max_utilisation=job.policy.max_utilisation
        )
        if refusal is None or refusal.rule in job.overrides:
            return loads
        return NotYet(f"refused by {refusal.rule}: {refusal.reason}")

    def _fair_rps(self, job: Job, loads: Mapping[str, ZoneLoad]) -> float:
        """The zone's fair part of its region's load; where it is the whole region, of the service's by weight."""
        if job.neighbours:
            return fair_rps(job.zone.id, loads, job.world.topology)
        weights = sum(region.weight for region in job.world.topology.regions)
        return sum(load.rps for load in loads.values()) * job.region.weight / weights

    async def _place(self, job: Job, step: RampStep) -> Event | float:
        """Make the zone get its share, and say which; who is all that serves its region gets what comes there.

        A zone that is its whole region takes all that comes there, so its steps are weights of the global tier: rough,
        because resolvers cache, and each one waits the TTL out.
        """
        # Two zones may be out where a person has overridden I1. One weight for both would be a share of neither.
        one_ramp = not job.world.traffic(job.region).whole_instances()
        beside = job.neighbours if one_ramp else []

        waited = False

        async def ask() -> Event | float | NotYet:
            nonlocal waited
            if waited and self._more_to_measure(job, await self._gauge.loads(job.policy.load_window_s)):
                return job.event(E.STALE, "users came while it waited for the ramp: its steps are planned anew (I9)")
            share = _share(job, step, await self._steering.standing(job.neighbours))
            wanted = ramp(share) if job.neighbours else STEADY
            other = await self._steering.want_ramp(job.zone, wanted, job.fence, beside)
            waited = waited or other is not None
            return NotYet(f"{other} is on the ramp of the same load balancer, which has one") if other else share

        async def look() -> object:
            return await self._steering.until_zone(job.zone, job.fence)

        doing = f"giving {step.share:.0%}"
        asked: Event | float = await job.until(ask, job.policy.verify_timeout_s, late=E.INCONCLUSIVE, doing=doing)
        if isinstance(asked, Event):
            return asked
        placed = await job.until(look, job.policy.verify_timeout_s, late=E.STUCK, doing=doing)
        if isinstance(placed, Event):
            return await self._or_sick(job, placed)
        if job.neighbours:
            return asked
        weights = {region.id: region.weight for region in job.world.topology.regions}
        weights[job.region.id] = max(1, round(step.share * job.region.weight))
        return await self._capacity.move_weights(job, weights, E.STUCK) or asked

    async def _or_sick(self, job: Job, event: Event) -> Event:
        """I2: a zone that gets no further because its own instances died meanwhile is sick, and goes back."""
        if event.kind is E.INTERRUPTED:
            return event
        try:
            sound = await self._sound(job)
        except Transient:
            return event
        return job.event(E.UNHEALTHY, f"{event.evidence}; {sound.why}") if isinstance(sound, NotYet) else event

    async def _compare(self, job: Job, seconds: float, passed: E, doing: str, *, whole: bool) -> Event:
        """Watch the zone beside the survivors; harm ends it early, too little data doubles the time once (I2).

        With its `whole` part it is watched for as long as a verification may take: it stays there whatever is said of it.
        Where a person has overridden I2 for the run, too little data is enough.
        """
        clock, policy = job.clock, job.policy
        neighbours = [z.id for z in job.neighbours]
        everywhere = [z.id for z in job.world.topology.zones() if z.id != job.zone.id]
        before = await self._first_reading(job)
        longest_s = max(2 * seconds, policy.verify_timeout_s) if whole else 2 * seconds
        deadline = clock.monotonic() + longest_s + policy.verify_timeout_s
        while True:
            if await job.interrupted():
                return job.event(E.INTERRUPTED, f"watching {doing} was interrupted")
            elapsed = clock.monotonic() - before[job.zone.id].answered
            await clock.sleep(max(0.0, min(max(policy.poll_s, seconds / 10), seconds - elapsed)) or policy.poll_s)
            try:
                after = await self._gauge.tick()
            except Transient:
                if clock.monotonic() > deadline:
                    raise
                continue
            watched = seconds_between(before, after, job.zone.id)
            theirs = window_of(before, after, *neighbours)
            if not theirs.requests:  # Alone in its region, or its neighbours are dead: the other regions must do.
                theirs = window_of(before, after, *everywhere)
            judgement = judge(window_of(before, after, job.zone.id), theirs, policy.gate)
            evidence = f"{doing} for {watched:.1f} s: {judgement.evidence}"
            if judgement.verdict is Verdict.UNHEALTHY:
                return job.event(E.UNHEALTHY, evidence)
            if watched >= seconds and judgement.verdict is Verdict.HEALTHY:
                return job.event(passed, evidence)
            if watched >= seconds and "I2" in job.overrides:
                return job.event(passed, f"I2 is overridden: {evidence}")
            if watched >= longest_s:
                return job.event(_OF_VERDICT[judgement.verdict], evidence)

    async def _first_reading(self, job: Job) -> Reading:
        found = await look_until(
            self._gauge.tick,
            job.clock,
            job.interrupted,
            every_s=job.policy.poll_s,
            timeout_s=job.policy.verify_timeout_s,
        )
        if isinstance(found, Found):
            return found.value
        raise Transient(f"{job.zone.id}: no region agent could be asked: {found}")

    async def join(self, job: Job) -> Event:
        """Back among the survivors: steady, every instance healthy by its load balancer."""
        unknown = job.stale() or job.unsound() if job.progress.as_it_left else None
        if unknown is not None and await self._steering.wanted(job.zone) == OUT:
            return unknown
        if not job.progress.as_it_left and job.stale() and await self._steering.wanted(job.zone) != STEADY:
            sound = await job.until(
                lambda: self._sound(job), job.policy.verify_timeout_s, late=E.STUCK, doing="being fit to join"
            )
            if isinstance(sound, Event):
                return sound
        await self._steering.want_zone(job.zone, STEADY, job.fence)

        async def look() -> str | NotYet:
            seen = await self._steering.until_zone(job.zone, job.fence)
            if not isinstance(seen, NotYet):
                # A cloud's answer may be older than what was just written: it is asked once more.
                seen = await self._steering.until_zone(job.zone, job.fence)
            return seen if isinstance(seen, NotYet) else told(seen)

        doing = "joining the steady zones"
        joined = await job.until(look, job.policy.verify_timeout_s, late=E.STUCK, doing=doing)
        return joined if isinstance(joined, Event) else job.event(E.JOINED, joined)

    async def bake(self, job: Job) -> Event:
        seconds = job.policy.bake_s * (job.policy.bake_first_factor if job.progress.first else 1.0)
        watched = await self._compare(job, seconds, E.BAKED, "baking", whole=True)
        return await self._with_all(job, watched) if watched.kind is E.BAKED else watched

    async def _with_all(self, job: Job, watched: Event) -> Event:
        """Its balancer takes an instance that died out of service, and then no user complains: count them (I2)."""
        doing = f"having every instance ({watched.evidence})"
        whole = await job.until(lambda: self._sound(job), job.policy.verify_timeout_s, late=E.INCOMPLETE, doing=doing)
        return whole if isinstance(whole, Event) else watched


def _share(job: Job, step: RampStep, wanted: Mapping[str, ZoneTraffic]) -> float:
    """The step's, or all where every neighbour is out."""
    others = [wanted.get(z.id, STEADY).placement for z in job.neighbours]
    return 1.0 if others and all(placement is Placement.OUT for placement in others) else step.share
