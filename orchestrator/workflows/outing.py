"""What each effect of the outing machine does, on ports: what it shares with a deploy's, evacuation (I10), and alarms (I8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Final

from msgspec import structs

from orchestrator.core.deploy_table import E
from orchestrator.core.errors import Bug, Denied, NoCapacity, Refused, Rejected, StoreAway, Transient
from orchestrator.core.guards import refuse_second_zone_out
from orchestrator.core.health import InstanceProbe, Verdict, judge_fleet
from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.outing import OutingState
from orchestrator.core.outing_table import OutingEvent, Stage
from orchestrator.core.topology import Zone
from orchestrator.core.traffic import OUT, STEADY, Placement, dump_steps, matches, parse_steps
from orchestrator.ports import Fence, FleetSeen, Notice, Peer
from orchestrator.workflows.capacity import Capacity
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.job import Job
from orchestrator.workflows.leaving import Leaving
from orchestrator.workflows.polling import Interrupted, NotYet
from orchestrator.workflows.returning import Returning
from orchestrator.workflows.settling import Settling
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.world import World

TRIAGE_S: Final = 2.0  # How often an evacuation that waits for another zone's return looks whether it has to.
_TROUBLE: Final = (Denied, Rejected, NoCapacity, Transient)
_FAILED_AS: Final = {"admit": E.REFUSED, "prepare": E.UNPREPARED, "relieve": E.UNPREPARED}
_LEVELS: Final = {
    E.DRAIN_TIMED_OUT: "warning",
    E.REFUSED: "warning",
    E.UNHEALTHY: "page",
    E.INCOMPLETE: "page",
    E.UNPREPARED: "page",
    E.STUCK: "page",
    E.INCONCLUSIVE: "page",
}


class OutingPerformer:
    """Performs effects for runs of kind `outing` of one service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._gauge, self._steering = Gauge(world), Steering(world)
        self._capacity = Capacity(self._gauge, self._steering)
        self._returning = Returning(self._gauge, self._steering, self._capacity)
        self._effects: Mapping[str, Callable[[Job], Awaitable[Event]]] = {
            "triage": self._triage,
            "admit": self._admit,
            "prepare": self._capacity.prepare,
            "drain": Leaving(self._gauge, self._steering, self._capacity).drain,
            "evacuate": self._evacuate,
            "relieve": self._capacity.relieve,
            "plan-return": self._plan_return,
            "verify": self._returning.verify,
            "ramp": self._ramp,
            "join": self._returning.join,
            "settle": Settling(self._gauge, self._steering, self._capacity).settle,
        }

    async def perform(self, state: OutingState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        """Do `effect` and say what came of it. Only StaleCarrier, StoreAway and Bug are raised; every other failure is an event."""
        if effect.kind in {"warn", "alarm"}:
            return await self._tell_of_time(state, effect.kind)
        if effect.kind not in self._effects:
            raise Bug(f"an outing has no effect {effect.kind}")
        zone = self._world.topology.zone(state.zone)
        job = Job(self._world, zone, state, state.policy, fence, interrupted, state.ask.overrides)
        try:
            event = await self._effects[effect.kind](job)
        except Refused as refused:
            event = job.event(_FAILED_AS.get(effect.kind, E.STUCK), f"refused by {refused.rule}: {refused.reason}")
        except StoreAway:
            raise
        except _TROUBLE as error:
            event = job.event(_FAILED_AS.get(effect.kind, E.STUCK), f"{type(error).__name__.lower()}: {error}")
        level = next((level for kind, level in _LEVELS.items() if kind == event.kind), None)
        if level is not None:
            next_command = f"failout zone restore {state.zone} --reason ..." if event.kind != E.REFUSED else None
            if event.kind == E.STUCK and effect.kind == "plan-return":
                next_command = f"{next_command}   (or release: a deploy is to mend what runs there)"
            await self._notify(level, state, event.kind, event.evidence, None, next_command)
        return event

    # Leaving

    async def _admit(self, job: Job) -> Event:
        """Every guard, and what the zone is like as it leaves: it may come back at once when it left healthy (I9)."""

        async def look() -> Event | NotYet:
            fleet = await self._gauge.fleet(job.zone, anew=True)
            probes = await self._gauge.probe(job.zone)
            granted = await self._capacity.grant(job, fleet)
            if isinstance(granted, NotYet):
                return granted
            version = _version(fleet, probes) or ""
            sound = (
                bool(granted.args["sound"]) and judge_fleet(probes, fleet.desired, version).verdict is Verdict.HEALTHY
            )
            return job.event(OutingEvent.ADMITTED, granted.evidence, {**granted.args, "goal": version, "sound": sound})

        return await job.until(look, job.policy.admit_timeout_s, late=E.REFUSED, doing="admission")

    async def _triage(self, job: Job) -> Event:
        """I1, I6: another zone is out. Is this one dead, by its own load balancer and by its region's agent?

        What cannot be seen is not dead.
        """
        waited = await job.wait(TRIAGE_S, "waiting for the other zone's return")
        if waited is not None:
            return waited
        try:
            seen = await self._steering.seen_zone(job.zone)
            probes = await self._world.agent(job.zone).probe(await self._known_peers(job.zone))
        except _TROUBLE as error:
            return job.event(OutingEvent.SOUND, f"nobody can say that {job.zone.id} is dead: {error}")
        ready = sum(p.reachable and p.ready for p in probes)
        evidence = f"{ready} of {len(probes)} instances ready by the region agent; " + (
            told(seen) if seen else "unseen"
        )
        if seen is not None and seen.total > 0 and seen.healthy == 0 and probes and ready == 0:
            return job.event(OutingEvent.DEAD, evidence)
        return job.event(OutingEvent.SOUND, evidence)

    async def _evacuate(self, job: Job) -> Event:
        """I10: empty the zone through what its instances themselves say, then through its load balancer; wait for nobody.

        Either suffices: instances that are all reached and no longer admitted, or a load balancer that says it sends
        nothing there. Instances in flight are not waited for, and no fleet is created or changed.
        """

        async def look() -> str | NotYet:
            contested = await self._contested(job)
            if contested is not None:
                return contested
            await self._leave_region(job)
            await self._steering.want_zone(job.zone, OUT, job.fence)
            dismissed = await _tried(lambda: self._dismiss(job))
            fronted = await _tried(lambda: self._front(job))
            done = [seen for seen in (dismissed, fronted) if isinstance(seen, str)]
            if done:
                return "; ".join(done)
            return NotYet("; ".join(seen.why for seen in (dismissed, fronted) if isinstance(seen, NotYet)))

        emptied = await job.until(look, job.policy.admit_timeout_s, late=E.STUCK, doing="evacuating")
        return emptied if isinstance(emptied, Event) else job.event(OutingEvent.EVACUATED, emptied)

    async def _contested(self, job: Job) -> NotYet | None:
        """I1: it left as a dead zone beside one that was out, and has served since; or one that is out is lent to a deploy."""
        state = job.progress
        assert isinstance(state, OutingState)
        dead = state.dead and job.stale() is None  # It may have got well while it was paused.
        if dead or state.sick or "I1" in job.overrides or not (state.contested or await self._lent(job)):
            return None
        refusal = refuse_second_zone_out(job.zone.id, await self._steering.seen())
        if refusal is None or (await self._triage(job)).kind == OutingEvent.DEAD:
            return None
        return NotYet(f"refused by {refusal.rule}: {refusal.reason}")

    async def _lent(self, job: Job) -> bool:
        """Another zone is out and no run has its lease: a deploy mends it, or no document names it any more."""
        others = await self._steering.standing(z for z in job.world.topology.zones() if z.id != job.zone.id)
        return any(to.placement is Placement.OUT for to in others.values())

    async def _leave_region(self, job: Job) -> None:
        """Where it is the whole region, its users go elsewhere by the weights of the global tier; no TTL is waited for."""
        if job.neighbours:
            return
        weights = {**(await self._steering.document()).region_weights, job.region.id: 0}
        await self._steering.want_weights(weights, job.fence)

        async def apply() -> str:
            await self._world.global_tier.apply(weights, job.fence)
            return ""

        await _tried(apply)

    async def _dismiss(self, job: Job) -> str | NotYet:
        agent, peers = self._world.agent(job.zone), await self._known_peers(job.zone)
        if not peers:
            return NotYet(f"nobody knows the instances of {job.zone.id}")
        trouble = await _tried(lambda: _none(agent.admit(peers, admitted=False, fence=job.fence)))
        probes = await agent.probe(peers)
        dark = sum(not p.reachable for p in probes)
        taking = sum(p.reachable and p.admitted for p in probes)
        counted = (
            f"{len(probes) - dark - taking} of {len(probes)} instances are no longer admitted, {dark} do not answer"
        )
        if dark or taking:
            return NotYet(counted + (f" ({trouble.why})" if isinstance(trouble, NotYet) else ""))
        return counted

    async def _front(self, job: Job) -> str | NotYet:
        seen = await self._steering.until_zone(job.zone, job.fence)
        return seen if isinstance(seen, NotYet) else told(seen)

    async def _known_peers(self, zone: Zone) -> list[Peer]:
        """Where they were seen last, by whoever looked; its cloud is asked only when nobody ever did."""
        book = self._world.peers
        known = list(await book.load(zone.id)) if book else []
        return known or await self._gauge.peers(zone)

    # Coming back

    async def _plan_return(self, job: Job) -> Event:
        """What runs there, is it ready, can the region take it back (I3), and in which steps (I9)?"""

        async def look() -> Event | NotYet:
            assert isinstance(job.progress, OutingState)
            fleet = await self._gauge.fleet(job.zone, anew=True)
            probes = await self._gauge.probe(job.zone)
            version = _version(fleet, probes)
            if version is None:
                return NotYet(f"nobody can say which version {job.zone.id} runs")
            sound = judge_fleet(probes, fleet.desired, version)
            if sound.verdict is not Verdict.HEALTHY:
                return NotYet(sound.evidence)
            seen = await self._steering.seen_zone(job.zone)
            if seen is not None and matches(seen, STEADY, Fraction(0)) and all(p.admitted for p in probes):
                # It never left, or a hand has put it back: to empty it now would need the guards (I3, I4).
                await self._steering.want_zone(job.zone, STEADY, job.fence)
                return job.event(OutingEvent.JOINED, f"{job.zone.id} serves already: {told(seen)}")
            # Off its load balancer first: an evacuation may have emptied it through its instances alone.
            await self._steering.want_out_if_lost(job.zone, job.fence)
            if not any(p.admitted for p in probes):
                # Nor may the wish of a carrier that woke up late keep it on a ramp.
                await self._steering.want_zone(job.zone, OUT, job.fence)
            out = await self._steering.until_zone(job.zone, job.fence)
            if isinstance(out, NotYet):
                return out
            fit = await self._returning.fit(structs.replace(job, progress=replace(job.progress, goal=version)))
            if isinstance(fit, NotYet):
                return fit
            steps = parse_steps(self._capacity.steps(job, fit))
            wanted = await self._steering.wanted(job.zone)
            if wanted.placement is Placement.RAMP:  # It was not emptied: no step takes from it what it has (I1, I3).
                steps = tuple(step for step in steps if step.share >= wanted.share)
            args: dict[str, Json] = {"goal": version, "steps": dump_steps(steps)}
            return job.event(OutingEvent.RETURN_PLANNED, sound.evidence, args)

        return await job.until(look, job.policy.verify_timeout_s, late=E.STUCK, doing="being fit to return")

    async def _ramp(self, job: Job) -> Event:
        """Where flags are not the load balancer's own grain, an evacuation has cleared them and its return sets them."""
        if not self._world.traffic(job.region).whole_instances():

            async def readmit() -> None:
                peers = await self._gauge.peers(job.zone)
                probes = await self._world.agent(job.zone).probe(peers)
                shut = {p.id for p in probes if p.reachable and not p.admitted}
                if shut and len(shut) == len(probes):
                    await self._off(job)  # The weight left of before would fall on the first that is well again.
                if shut:
                    dismissed = [p for p in peers if p.id in shut]
                    await self._world.agent(job.zone).admit(dismissed, admitted=True, fence=job.fence)

            stopped = await job.do(readmit, late=E.STUCK, doing="admitting its instances again")
            if stopped is not None:
                return stopped
        return await self._returning.ramp(job)

    async def _off(self, job: Job) -> None:
        await self._steering.want_zone(job.zone, OUT, job.fence)
        seen = await self._steering.until_zone(job.zone, job.fence)
        if isinstance(seen, NotYet):
            raise Transient(seen.why)

    # Telling

    async def _tell_of_time(self, state: OutingState, kind: str) -> Event:
        until = f"{state.ask.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        since = f"taken out by {state.ask.author}: {state.ask.reason}"
        warned, late = f"is to be back at {until}", f"should be back since {until} and is {state.stage}"
        next_command = f"failout zone restore {state.zone} --reason ..."
        if state.stage is Stage.WAITING:
            since = f"evacuation asked for by {state.ask.author}: {state.ask.reason}; {state.note}"
            warned, late = f"has not left, and does not after {until}", f"has not left by {until}, and does not now"
            next_command = f"failout zone evacuate {state.zone} --override I1 --reason ...   (or restore: it stays)"
        evidence = f"{state.zone} {warned if kind == 'warn' else late}; {since}"
        happened = OutingEvent.WARNED if kind == "warn" else OutingEvent.ALARMED
        level = "warning" if kind == "warn" else "page"
        await self._notify(
            level,
            state,
            "expires" if kind == "warn" else "expired",
            evidence,
            "I8",
            next_command,
        )
        return Event(happened, state.zone, evidence)

    async def _notify(
        self, level: str, state: OutingState, what: str, evidence: str, rule: str | None, next_command: str | None
    ) -> None:
        named = f"{state.ask.mode} of {state.zone}"
        await self._world.notifier.notify(Notice(level, named, state.zone, what, evidence, rule, next_command))


def _version(fleet: FleetSeen, probes: list[InstanceProbe]) -> str | None:
    """The model's version; where Failout never deployed, the one that every instance tells."""
    heard = {p.version for p in probes if p.reachable}
    return fleet.model_version or (heard.pop() if len(heard) == 1 else None)


async def _none(act: Awaitable[None]) -> str:
    await act
    return ""


async def _tried(act: Callable[[], Awaitable[str | NotYet]]) -> str | NotYet:
    """What cannot be asked now holds up nothing else; StaleCarrier is not caught."""
    try:
        return await act()
    except _TROUBLE as error:
        return NotYet(str(error))
