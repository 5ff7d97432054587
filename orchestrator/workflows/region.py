"""What each effect of the region machine does, on ports: the global tier moves users, the TTL is waited, nobody is cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from orchestrator.core.deploy_table import E
from orchestrator.core.errors import Denied, NoCapacity, Refused, Rejected, StoreAway, Transient
from orchestrator.core.guards import CapacityPlan, Refusal, ZoneLoad, carrying
from orchestrator.core.health import Verdict, judge, judge_synthetic
from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.region import M, RegionState, silent_s, way_back
from orchestrator.core.region_plan import (
    RegionPlan,
    gets_less,
    plan_regions,
    refuse_leaving,
    usual_weights,
    usual_weights_without,
    weights_at,
)
from orchestrator.core.topology import Zone
from orchestrator.core.traffic import STEADY, dump_steps, ramp_steps
from orchestrator.ports import Fence, Notice
from orchestrator.workflows.capacity import Capacity, Prepared
from orchestrator.workflows.gauge import Gauge, gone_between, seconds_between, window_of
from orchestrator.workflows.job import STALE_S
from orchestrator.workflows.polling import Interrupted, NotYet
from orchestrator.workflows.region_fit import RegionFit
from orchestrator.workflows.region_move import Move, scaled_by
from orchestrator.workflows.settling import Settling
from orchestrator.workflows.steering import Steering
from orchestrator.workflows.synthetic import send
from orchestrator.workflows.world import World

T = TypeVar("T")
_FAILED_AS: Final = {"admit-region": M.REFUSED, "prepare-region": M.UNPREPARED}
_LEVELS: Final = {
    M.REFUSED: "page",
    M.UNPREPARED: "page",
    M.STUCK: "page",
    M.INCONCLUSIVE: "page",
    M.UNHEALTHY: "page",
    M.EXPIRED: "page",
    M.STALE: "warning",
}
_ON_THE_WAY_BACK: Final = {"verify-region", "return-region", "settle-region"}
_OF_VERDICT: Final = {
    Verdict.UNHEALTHY: M.UNHEALTHY,
    Verdict.INCONCLUSIVE: M.INCONCLUSIVE,
    Verdict.UNMEASURED: M.INCONCLUSIVE,
}


class RegionPerformer:
    """Performs effects for runs of kind `region`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._gauge, self._steering = Gauge(world), Steering(world)
        self._capacity = Capacity(self._gauge, self._steering)
        self._fit = RegionFit(world, self._gauge, self._steering, self._capacity)
        self._settling = Settling(self._gauge, self._steering, self._capacity)
        self._effects: Mapping[str, Callable[[Move], Awaitable[Event]]] = {
            "admit-region": self._admit,
            "prepare-region": self._prepare,
            "leave-region": self._leave,
            "empty-region": self._empty,
            "stay-out": self._stay_out,
            "verify-region": self._verify,
            "return-region": self._return,
            "settle-region": self._settle,
        }

    async def perform(self, state: RegionState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        """Do `effect` and say what came of it. Only StaleCarrier, StoreAway and Bug are raised; every other failure is an event."""
        move = Move(self._world, state, fence, interrupted)
        try:
            event = await self._effects[effect.kind](move)
        except Refused as refused:
            event = Event(_FAILED_AS.get(effect.kind, M.STUCK), evidence=f"refused by {refused.rule}: {refused.reason}")
        except StoreAway:
            raise
        except (Denied, Rejected, NoCapacity, Transient) as error:
            told_ = f"{type(error).__name__.lower()}: {error}"
            event = Event(_FAILED_AS.get(effect.kind, M.STUCK), evidence=told_)
        level = _LEVELS.get(M(event.kind))
        if level is not None:
            command = way_back(state.regions) if effect.kind in _ON_THE_WAY_BACK else "failout status"
            notice = Notice(level, state.run, None, f"{state.place}: {event.kind}", event.evidence, None, command)
            await self._world.notifier.notify(notice)
        return event

    async def _admit(self, move: Move) -> Event:
        """I1, I2, I3: the others are in, sound, and can carry everything. A person may skip a rule by name (I4)."""
        if move.state.contested:
            return Event(M.REFUSED, evidence=f"refused by I1: {move.state.contested}")

        async def look() -> Event | NotYet:
            try:
                loads: Mapping[str, ZoneLoad] = await self._gauge.loads(move.policy.load_window_s)
            except Transient:
                if "I3" not in move.state.overrides:
                    raise
                loads = {}
            plan = await self._rule(move, loads)
            if isinstance(plan, Refusal):
                return NotYet(f"refused by {plan.rule}: {plan.reason}")
            # Asked anew, for a run that winds down may have made them smaller a moment ago.
            fleets = {z: await self._gauge.fleet(move.topology.zone(z), anew=True) for z in plan.scale}
            scaled = Prepared({}, {}).with_plan(CapacityPlan(plan.scale), fleets).row()["scale"]
            args: dict[str, Json] = {"weights": dict(plan.weights), "scaled": scaled, "steps": self._steps(move, loads)}
            return Event(M.ADMITTED, evidence=plan.arithmetic, args=args)

        asked = await move.until(look, move.policy.admit_timeout_s, late=M.REFUSED, doing="admission")
        more_s = move.state.admit_timeout_s - move.policy.admit_timeout_s
        if asked.kind != M.REFUSED or more_s <= 0:
            return asked
        place, why = move.state.place, f"{asked.evidence}; others make way for it, and it asks for {more_s:.0f} s more"
        await self._world.notifier.notify(
            Notice("page", move.state.run, None, f"{place}: waits", why, "I1", "failout status")
        )
        return await move.until(look, more_s, late=M.REFUSED, doing="admission")

    async def _rule(self, move: Move, loads: Mapping[str, ZoneLoad]) -> RegionPlan | Refusal:
        """Asks the clouds of the regions that stay, and no other (I10); where I1 is overridden, those of them that answer."""
        leaving, topology, skipped = move.state.regions, move.topology, set(move.state.overrides)
        seen = await (self._steering.seen_where_told(leaving) if "I1" in skipped else self._steering.seen(leaving))
        waived = {*skipped, "I2"} if "I3" in skipped else skipped
        refusal = refuse_leaving(leaving, loads, seen, topology, move.policy.gate, waived)
        if refusal is not None:
            return refusal
        if "I3" in skipped:
            weights = usual_weights_without(leaving, topology)
            if not any(weights.values()):
                return Refusal("I3", "no region would be left: with every weight 0 the DNS answers with all of them")
            return RegionPlan(
                weights, arithmetic="I3 is overridden: nobody has computed whether the others can carry it"
            )
        return plan_regions(
            leaving,
            carrying(loads, seen, ()),
            topology,
            max_utilisation=move.policy.max_utilisation,
            scale_survivors=move.policy.scale_survivors,
        )

    def _steps(self, move: Move, loads: Mapping[str, ZoneLoad]) -> list[Json]:
        """I9: shares of the regions' usual part of all users, merged where too few requests would come to tell."""
        usual = usual_weights(move.topology)
        fair = (
            sum(load.rps for load in loads.values()) * sum(usual[r] for r in move.state.regions) / sum(usual.values())
        )
        steps = ramp_steps(
            move.policy.ramp_shares,
            move.policy.ramp_step_s,
            fair,
            len(move.zones),
            samples_min=move.policy.gate.samples_min,
            whole_instances=False,
        )
        return dump_steps(steps)

    async def _prepare(self, move: Move) -> Event:
        """Scale the survivors, see them healthy, and ask I3 once more: minutes may have passed."""
        sizes = scaled_by(move.state)
        for zone in (z for z in move.others if z.id in sizes):
            zone_id, wanted = zone.id, sizes[zone.id].now

            async def ask(zone: Zone = zone, wanted: int = wanted) -> bool:
                await self._capacity.grow(move.job(zone), zone, wanted)
                # An order may have come while it was made smaller again, partly out of traffic (`scale_back`).
                await self._steering.want_survivor(zone, STEADY, move.fence)
                return True

            asked = await move.until(
                ask, move.policy.prepare_timeout_s, late=M.UNPREPARED, doing=f"asking for {wanted} in {zone_id}"
            )
            stopped = asked if isinstance(asked, Event) else None
            stopped = stopped or await self._capacity.await_survivor(move.job(zone), zone, wanted)
            if stopped is not None:
                return _translated(stopped, M.UNPREPARED)

        async def look() -> Event | NotYet:
            # Where I3 is overridden no load is asked for, and a silent agent holds nothing up; the other rules stand (I4).
            measured = "I3" not in move.state.overrides
            plan = await self._rule(move, await self._gauge.loads(move.policy.load_window_s) if measured else {})
            if isinstance(plan, Refusal):
                return NotYet(f"refused by {plan.rule}: {plan.reason}")
            if plan.scale:
                return NotYet(f"more than what was prepared is needed by now: {plan.arithmetic}")
            return Event(M.PREPARED, evidence=plan.arithmetic, args={"weights": dict(plan.weights)})

        return await move.until(look, move.policy.admit_timeout_s, late=M.UNPREPARED, doing="preparation")

    async def _leave(self, move: Move) -> Event:
        """Take the regions out of the DNS and wait until every name server says so and no answer of before lives on."""

        async def stale() -> Event | None:
            return self._stale(move) if not move.state.unasked and await self._serves(move) else None

        stopped = await self._weigh(move, move.state.weights, "taking it out of the DNS", unless=stale)
        ttl_s = move.topology.global_tier.ttl_s
        return stopped or Event(M.MOVED, evidence=f"the DNS answers without it for longer than its TTL of {ttl_s:g} s")

    def _stale(self, move: Move) -> Event | None:
        """It stood still, or the DNS was silent, for longer than what was known then may be acted on."""
        waited_s = (self._world.clock.now() - move.state.since).total_seconds()
        if -STALE_S <= waited_s <= STALE_S:
            return None
        return Event(M.STALE, evidence=f"it stood still for {waited_s:.0f} s: what was known is asked anew (I1-I3)")

    async def _serves(self, move: Move) -> bool:
        """The DNS still answers with one of the regions."""
        weights = await self._answers()
        return any(weights.get(region) for region in move.state.regions)

    async def _answers(self) -> Mapping[str, int]:
        return (await self._world.global_tier.read()).weights

    async def _weigh(
        self,
        move: Move,
        weights: Mapping[str, int],
        doing: str,
        unless: Callable[[], Awaitable[Event | None]] | None = None,
    ) -> Event | None:
        """Weights are wished, made so, and then the TTL passes: always, for a crash may have hidden when they changed."""

        async def look() -> bool | Event | NotYet:
            if unless is not None and (event := await unless()):
                return event
            await self._steering.want_weights(weights, move.fence)
            return await self._steering.until_weights(move.fence)

        done = await move.until(look, move.policy.prepare_timeout_s, late=M.STUCK, doing=doing)
        if isinstance(done, Event):
            return done
        return await move.wait(move.topology.global_tier.ttl_s, "waiting for the DNS TTL")

    async def _empty(self, move: Move) -> Event:
        """Nobody is left: for as long as the TTL lasts no request comes, and none is in flight."""
        await self._freeze(move)
        quiet_s = max(move.topology.global_tier.ttl_s, move.policy.load_window_s)

        async def look() -> Event | NotYet:
            before = await self._gauge.tick()
            stopped = await move.wait(quiet_s, "waiting for the last users")
            if stopped is not None:
                return stopped
            after = await self._gauge.tick()
            silent = [z.id for z in move.zones if not after[z.id].heard]
            if silent and "I3" not in move.state.overrides:
                return NotYet(f"no instance of {', '.join(silent)} answers its agent")
            served = sum(window_of(before, after, z.id).requests for z in move.zones)
            probes = [p for z in move.zones for p in await self._gauge.probe(z)]
            in_flight = sum(p.in_flight for p in probes if p.reachable)
            if served or in_flight:
                return NotYet(f"{served} requests came in {quiet_s:.0f} s and {in_flight} are in flight")
            unseen = f"; unmeasured: {', '.join(silent)} answers nobody" if silent else ""
            return Event(M.EMPTIED, evidence=f"0 requests came in {quiet_s:.0f} s and 0 are in flight{unseen}")

        doing, dead = f"emptying {move.state.place}", "I3" in move.state.overrides
        timeout_s = min(move.policy.drain_timeout_s, 4 * quiet_s) if dead else move.policy.drain_timeout_s
        event = await move.until(look, timeout_s, late=M.STUCK, doing=doing)
        if event.kind == M.STUCK and dead:
            # Overridden because it is dead: an agent that is gone with it cannot count its users.
            return Event(M.EMPTIED, evidence=f"unmeasured: the DNS answers without it, and {event.evidence}")
        return event

    async def _freeze(self, move: Move) -> None:
        """Its autoscalers would shrink what serves nobody (I3). A cloud that does not answer holds nothing up (I10)."""
        for zone in move.zones:
            # Whoever has one of them out freezes and thaws it.
            if not await move.interrupted() and await self._steering.wanted(zone) == STEADY:
                with contextlib.suppress(Transient, Denied, Rejected):
                    fleet = self._world.fleet(zone)
                    await fleet.set_autoscaling(zone, enabled=False, repairs=True, fence=move.fence)

    async def _thaw(self, move: Move, zone: Zone) -> Event | None:
        async def thaw() -> None:
            if await self._steering.wanted(zone) == STEADY:
                await self._world.fleet(zone).set_autoscaling(zone, enabled=True, fence=move.fence)

        return await move.job(zone).do(thaw, late=E.STUCK, doing=f"thawing the scaling of {zone.id}")

    async def _stay_out(self, move: Move) -> Event:
        """I8: out until a person says otherwise, but not silently."""
        began, left_s = move.state.since, silent_s(move.state, self._world.clock.now())
        stopped = await move.wait(left_s, "being out") if left_s > 0 else None
        if stopped is not None:
            return stopped
        why = f"{move.state.place} is out since {began:%Y-%m-%d %H:%M:%S} UTC, longer than it may be silently (I8)"
        return Event(M.EXPIRED, evidence=why)

    async def _verify(self, move: Move) -> Event:
        """Before any user's request: each zone steady, each instance ready, and synthetic requests answered."""
        ready = await move.until(
            lambda: self._fit.sound(move), move.policy.verify_timeout_s, late=M.UNHEALTHY, doing="becoming ready"
        )
        if isinstance(ready, Event):
            return ready
        lines = [ready]
        for zone in move.zones:
            peers = await self._gauge.peers(zone)
            wanted = 20 * len(peers)
            agent, timeout_s = self._world.agent(zone), move.policy.verify_timeout_s
            result = await send(agent, peers, wanted, self._world.clock, move.interrupted, timeout_s=timeout_s)
            if result is None:
                return Event(M.INTERRUPTED, evidence="sending synthetic requests was interrupted")
            verdict = judge_synthetic(
                result,
                wanted,
                failed_share_max=move.policy.synthetic_failed_share_max,
                p50_max_ms=move.policy.synthetic_p50_max_ms,
            )
            lines.append(f"{zone.id}: {verdict.evidence}")
            if verdict.verdict is not Verdict.HEALTHY:
                return Event(_OF_VERDICT[verdict.verdict], evidence=lines[-1])
        return await self._verified(move, "; ".join(lines))

    async def _verified(self, move: Move, told_: str) -> Event:
        """It may come back, in as many steps as can be measured with the users that there are by now (I9)."""

        async def look() -> Event:
            if not gets_less(move.state.regions, await self._answers(), usual_weights(move.topology)):
                why = f"the DNS gives {move.state.place} all of its users: it never left, or a hand has put it back"
                return Event(M.SERVES, evidence=f"{why}; {told_}")
            loads = await self._gauge.loads(move.policy.load_window_s)
            steps = self._steps(move, loads)
            # What a zone carries that nobody hears of is missing: then what was planned stands, unless it is coarser.
            heard = all(z.id in loads for z in move.topology.zones())
            planned: dict[str, Json] = {"steps": steps} if heard or len(steps) > len(move.state.steps) else {}
            scaled: Json = dict(await self._fit.sizes(move, loads))
            return Event(M.VERIFIED, evidence=told_, args={**planned, "scaled": scaled})

        return await move.until(look, move.policy.verify_timeout_s, late=M.STUCK, doing="measuring the load")

    async def _return(self, move: Move) -> Event:
        """One step of the way back: a share of the regions' usual users, then a comparison with the others (I9)."""
        share = move.state.steps[move.state.step].share if move.state.steps else 1.0
        seconds = move.state.steps[move.state.step].seconds if move.state.steps else move.policy.ramp_step_s
        weights = weights_at(share, move.state.weights, usual_weights(move.topology))

        async def unless() -> Event | None:
            if move.state.step == 0 and not await self._serves(move):
                return self._stale(move)
            if share < 1.0 and gets_less(move.state.regions, weights, await self._answers()):
                why = f"{move.state.place} has more than {share:.0%} already: what it has stays (I3, I4)"
                return Event(M.STEP_PASSED, evidence=why)
            return None

        stopped = await self._fit.until_fit(move, weights, unless)
        stopped = stopped or await self._weigh(move, weights, f"giving {share:.0%}", unless=unless)
        return stopped or await self._compare(move, seconds, f"at {share:.0%}")

    async def _compare(self, move: Move, seconds: float, doing: str) -> Event:
        """Harm ends it early; too little data doubles the time once, then a person must choose (I2)."""
        clock = self._world.clock
        deadline = clock.monotonic() + 2 * seconds + move.policy.verify_timeout_s
        before = await move.until(
            self._gauge.tick, move.policy.verify_timeout_s, late=M.INCONCLUSIVE, doing="asking the region agents"
        )
        if isinstance(before, Event):
            return before
        while clock.monotonic() < deadline:
            stopped = await move.wait(max(move.policy.poll_s, seconds / 10), f"watching {doing}")
            if stopped is not None:
                return stopped
            try:
                after = await self._gauge.tick()
            except Transient:
                continue
            if gone_between(before, after):
                before = after
                continue
            mine = window_of(before, after, *(z.id for z in move.zones))
            theirs = window_of(before, after, *(z.id for z in move.others))
            watched = seconds_between(before, after, move.zones[0].id)
            judgement = judge(mine, theirs, move.policy.gate)
            evidence = f"{doing} for {watched:.1f} s: {judgement.evidence}"
            if judgement.verdict is Verdict.UNHEALTHY:
                return Event(M.UNHEALTHY, evidence=evidence)
            if watched >= seconds and judgement.verdict is Verdict.HEALTHY:
                return Event(M.STEP_PASSED, evidence=evidence)
            if watched >= 2 * seconds:
                return Event(_OF_VERDICT[judgement.verdict], evidence=evidence)
        return Event(M.INCONCLUSIVE, evidence=f"{doing}: the region agents could not be asked for long enough")

    async def _settle(self, move: Move) -> Event:
        """Every region has its usual weight; the survivors get the size and the minimum back that they had, where I3 allows.

        Weights that it has not moved are others' business.
        """
        usual = usual_weights(move.topology)
        now = (await self._steering.document()).region_weights or usual
        moved = move.state.weights or not all(now.get(region) for region in move.state.regions)
        stopped = await self._weigh(move, usual, "putting the usual weights back") if moved else None
        for zone in move.zones:
            stopped = stopped or await self._thaw(move, zone)
        for zone_id, scaled in scaled_by(move.state).items():
            zone = move.topology.zone(zone_id)
            stopped = stopped or await self._settling.give_back(move.job(zone), zone, scaled)
        if stopped is not None:
            return _translated(stopped, M.STUCK)
        return Event(M.SETTLED, evidence="every region has its usual weight, what was scaled is undone")


def _translated(event: Event, late: M) -> Event:
    """A survivor's event, told as one of the regions."""
    return Event(M.INTERRUPTED if event.kind in {E.INTERRUPTED, M.INTERRUPTED} else late, evidence=event.evidence)
