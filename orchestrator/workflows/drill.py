"""What each effect of the drill machine does: check, begin the run that takes the place out, watch the signals, return.

I15: what speaks for the service is asked every few seconds, and the place is sent back the moment it is bad.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from orchestrator.core.drill import DrillEvent, DrillState, Phase, reason_survivors_fail
from orchestrator.core.errors import Denied, NoCapacity, NotFound, Refused, Rejected, StoreAway, Transient
from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.outing import Asker
from orchestrator.core.outing_row import parse as parse_outing
from orchestrator.core.outing_table import Stage
from orchestrator.core.proof import Proof, Worth
from orchestrator.core.region import Phase as Where
from orchestrator.core.region_row import parse as parse_region
from orchestrator.core.script import duration_told
from orchestrator.engine.ports import Run, Store
from orchestrator.ports import Fence, Notice
from orchestrator.workflows.drill_checks import DrillChecks
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.job import STALE_S
from orchestrator.workflows.polling import Interrupted
from orchestrator.workflows.world import World

GLANCE_S: Final = 0.5  # How often the run that it has begun is looked at.
PROOF_S: Final = 15.0  # How long the end waits for the proof that the recorder writes.
LOST_LOOKS: Final = 2  # One look that saw nobody may be the agent's hiccup.
_TROUBLE: Final = (Denied, Rejected, NoCapacity, Transient)
_AWAY: Final = frozenset({Stage.DRAINING, Stage.EVACUATING, Stage.RELIEVING, Stage.OUT})
_LEAVING: Final = _AWAY | {Stage.WAITING, Stage.PREPARING, Stage.HELD_LEAVING}
_REGION_AWAY: Final = frozenset({Where.LEAVING, Where.EMPTYING, Where.OUT})
_REGION_LEAVING: Final = _REGION_AWAY | {Where.ASKING, Where.HELD_ASKING, Where.PREPARING, Where.HELD_LEAVING}
# What tells a zone's run, or a region's, to bring its place back. A region that has expired has only been told of (I8).
_SENT_BACK: Final = {"outing": frozenset({"restore", "due", "expired"}), "region": frozenset({"return"})}
_LEVELS: Final = {
    DrillEvent.REFUSED: "warning",
    DrillEvent.STOPPED: "warning",
    DrillEvent.OUTCOME_BAD: "page",
    DrillEvent.NOT_RETURNED: "page",
}


class Operations(Protocol):
    async def begin(self, state: DrillState) -> Run:
        """Begin the run that takes the place out, once, and see to it that it is carried. Raises Refused."""

    async def send_back(self, state: DrillState, why: str) -> None:
        """Tell that run to bring the place back."""


@dataclass(frozen=True, slots=True)
class Part:
    """How far the run is that takes the place out, whichever machine carries it.

    `taken`: a person has taken it over. `leaving`: it has not turned back. `away`: its users are being carried by others.
    `refused`: it never left. `serves`: it has its users back and waits for a person.
    """

    run: Run
    taken: bool
    leaving: bool
    away: bool
    refused: bool
    serves: bool
    out_since: datetime | None
    where: str
    why: str


def part_of(run: Run) -> Part:
    if run.kind == "region":
        region = parse_region(run.state)
        out = region.since if region.phase is Where.OUT else None
        leaving, away = region.phase in _REGION_LEAVING, region.phase in _REGION_AWAY
        refused, serves = region.phase is Where.HELD_ASKING, region.phase is Where.HELD_SETTLING
        taken = region.asker != Asker.DRILL
        return Part(run, taken, leaving, away, refused, serves, out, str(region.phase), region.reason or region.note)
    outing = parse_outing(run.state)
    out = outing.since if outing.stage is Stage.OUT else None
    leaving, away = outing.stage in _LEAVING and not outing.sick, outing.stage in _AWAY
    refused, serves = outing.stage is Stage.REFUSED, outing.stage in {Stage.HELD_SERVING, Stage.HELD_SETTLING}
    taken = outing.ask.asker is not Asker.DRILL
    return Part(run, taken, leaving, away, refused, serves, out, str(outing.stage), outing.reason or outing.note)


class DrillPerformer:
    """Performs effects for runs of kind `drill`."""

    def __init__(self, world: World, store: Store, checks: DrillChecks, operations: Operations) -> None:
        self._world, self._store, self._checks, self._operations = world, store, checks, operations
        self._effects: Mapping[str, Callable[[DrillState, Interrupted], Awaitable[Event]]] = {
            "check": self._check,
            "begin": self._begin,
            "watch": self._watch,
            "return": self._return,
        }

    async def perform(self, state: DrillState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:  # noqa: ARG002
        """Do `effect` and say what came of it. It writes nothing itself: the run that it begins has the lease.

        Only StoreAway and Bug are raised; every other failure is an event.
        """
        event = await self._effects[effect.kind](state, interrupted)
        level = _LEVELS.get(DrillEvent(event.kind))
        if level is not None:
            zone = state.wish.place if state.wish.tier == "zone" else None
            what, next_command = f"drill of {state.wish.place}: {event.kind}", f"failout drill show {state.run}"
            await self._world.notifier.notify(Notice(level, state.run, zone, what, event.evidence, "I15", next_command))
        return event

    async def _check(self, state: DrillState, interrupted: Interrupted) -> Event:
        try:
            found = await self._checks.findings(state.wish, state.run, interrupted)
        except StoreAway:
            raise  # Nobody has refused it: whoever carries it waits for its state.
        except _TROUBLE as error:
            return Event(DrillEvent.REFUSED, evidence=f"{type(error).__name__.lower()}: {error}")
        if await interrupted():
            return Event(DrillEvent.INTERRUPTED, evidence="the checks were interrupted")
        failed = [f"{f.what}: {f.evidence}" for f in found if f.verdict == "failed"]
        if failed:
            return Event(DrillEvent.REFUSED, evidence="; ".join(failed))
        told: list[Json] = [f"{f.what}: {f.verdict}, {f.evidence}" for f in found]
        unchecked = sum(f.verdict == "unchecked" for f in found)
        said = f"{len(found)} checks, none speaks against it" + (f", {unchecked} not made" if unchecked else "")
        return Event(DrillEvent.CHECKED, evidence=said, args={"checks": told})

    async def _begin(self, state: DrillState, interrupted: Interrupted) -> Event:
        """Refused is only what left no run behind: one that is there takes the place out, and is watched (I11, I15)."""
        failed = ""
        while not await interrupted():
            try:
                begun = await self._is_begun(state)
            except Transient:  # The store is not there: nobody can say.
                await self._world.clock.sleep(GLANCE_S)
                continue
            if failed and not begun:
                return Event(DrillEvent.REFUSED, evidence=failed)
            stale = None if begun else self._stale(state)
            if stale is not None:
                return stale
            failed = await self._reason_not_begun(state)
            if begun or not failed:
                told = f"; {failed}" if failed else ""
                return Event(DrillEvent.BEGUN, evidence=f"run {state.outing} takes {state.wish.place} out{told}")
        return Event(DrillEvent.INTERRUPTED, evidence="beginning was interrupted")

    async def _is_begun(self, state: DrillState) -> bool:
        try:
            await self._store.load(state.outing)
        except NotFound:
            return False
        return True

    def _stale(self, state: DrillState) -> Event | None:
        """The signals were good right before, not an hour ago (I15). Where the clock was put back, nobody can say."""
        waited_s = (self._world.clock.now() - state.since).total_seconds()
        if -STALE_S <= waited_s <= STALE_S:
            return None
        why = f"it stood still for {waited_s:.0f} s since the checks: they are made anew (I15)"
        return Event(DrillEvent.STALE, evidence=why)

    async def _reason_not_begun(self, state: DrillState) -> str:
        try:
            await self._operations.begin(state)
        except Refused as refused:
            return f"refused by {refused.rule}: {refused.reason}"
        except StoreAway:
            raise  # It looks again what is begun, and begins once the state is back or the checks are stale.
        except _TROUBLE as error:
            return f"{type(error).__name__.lower()}: {error}"
        return ""

    # While it is out

    async def _watch(self, state: DrillState, interrupted: Interrupted) -> Event:
        watch = _Watch(self._world, self._checks, state)
        clock, read_at = self._world.clock, 0.0
        while not await interrupted():
            try:
                part = part_of(await self._store.load(state.outing))
                ended = await self._ended(state, part)
                if ended is None and clock.monotonic() >= read_at:
                    read_at = clock.monotonic() + state.wish.policy.read_every_s
                    ended = await watch.look(part)
            except Transient:  # The store is not there; the signals are asked again when it is.
                ended = None
            if ended is not None:
                return ended
            await clock.sleep(GLANCE_S)
        return Event(DrillEvent.INTERRUPTED, evidence="watching was interrupted")

    async def _ended(self, state: DrillState, part: Part) -> Event | None:
        """What the run itself has come to: over, refused, not to be emptied, or called back by somebody else."""
        wish = state.wish
        if part.taken:
            return Event(DrillEvent.STOPPED, evidence=f"{wish.place} was taken over: {part.why}")
        if part.refused or part.run.finished or not part.leaving:
            events = await self._store.events(part.run.id)
            if part.refused:
                return Event(DrillEvent.REFUSED, evidence=part.why)
            late = next((e.event.evidence for e in events if e.event.kind == "drain-timed-out"), None)
            if late is not None:
                return Event(DrillEvent.OUTCOME_BAD, evidence=f"{wish.place} could not be emptied: {late}")
            return Event(DrillEvent.STOPPED, evidence=f"{wish.place} was called back: {part.why}")
        if part.run.status == "held" and part.out_since is None:
            return Event(DrillEvent.STOPPED, evidence=f"{wish.place} is {part.where}: {part.why}")
        if part.out_since is not None:
            out_s = (self._world.clock.now() - part.out_since).total_seconds()
            if out_s >= wish.policy.duration_s:
                return Event(DrillEvent.OVER, evidence=f"{wish.place} was out for {duration_told(round(out_s))}")
        return None

    # Coming back

    async def _return(self, state: DrillState, interrupted: Interrupted) -> Event:
        """Send the place back and stay until it is; a good drill turns bad when users are harmed on the way."""
        watch = _Watch(self._world, self._checks, state)
        clock, read_at = self._world.clock, 0.0
        while not await interrupted():
            try:
                run = await self._store.load(state.outing)
                if run.finished:
                    return await self._returned(state, run)
                part = part_of(run)
                if part.taken:
                    return self._not_ours(state, part)
                ended = await self._send_back(state, part)
                if ended is None and state.verdict is Phase.SUCCEEDED and clock.monotonic() >= read_at:
                    read_at = clock.monotonic() + state.wish.policy.read_every_s
                    ended = await watch.outcome()
            except NotFound:
                return Event(DrillEvent.RETURNED, evidence="nothing was taken out")
            except Transient:
                ended = None
            if ended is not None:
                return ended
            await clock.sleep(GLANCE_S)
        return Event(DrillEvent.INTERRUPTED, evidence="the return goes on by itself")

    def _not_ours(self, state: DrillState, part: Part) -> Event:
        """What a person has taken over is theirs to bring back."""
        if state.verdict is Phase.SUCCEEDED:
            return Event(
                DrillEvent.NOT_RETURNED, evidence=f"{state.wish.place} was taken over on its way back: {part.why}"
            )
        return Event(DrillEvent.RETURNED, evidence=state.reason)

    async def _send_back(self, state: DrillState, part: Part) -> Event | None:
        """Once. Whatever has turned back and waits for a person by now is theirs."""
        pending = (await self._store.pending(part.run.id)).orders
        if pending:
            return None
        told = any(e.event.kind in _SENT_BACK[part.run.kind] for e in await self._store.events(part.run.id))
        if part.leaving and not told:
            await self._operations.send_back(state, f"drill {state.run}: {state.reason}")
            return None
        if part.run.status != "held":
            return None
        held = f"{state.wish.place} is {part.where}: {part.why}"
        if part.serves and state.verdict is not Phase.SUCCEEDED:
            # Its users are back; with a survivor lost nobody can tell how well, and that is a person's to judge.
            return Event(DrillEvent.RETURNED, evidence=held)
        return Event(DrillEvent.NOT_RETURNED, evidence=held)

    async def _returned(self, state: DrillState, run: Run) -> Event:
        """Its proof is the recorder's; a drill that users paid for has not succeeded, whatever the signals said."""
        proofs = await self._proofs(run) if state.verdict is Phase.SUCCEEDED else []
        bad = [f"{p.zone}: {p.evidence}" for p in proofs if p.worth is Worth.BAD]
        if bad:
            return Event(DrillEvent.OUTCOME_BAD, evidence=f"its proof is bad: {'; '.join(bad)}")
        told = "; ".join(f"proof of {p.zone} is {p.worth}: {p.evidence}" for p in proofs)
        back = f"{state.wish.place} is back" if state.verdict is Phase.SUCCEEDED else state.reason
        return Event(DrillEvent.RETURNED, evidence=f"{back}; {told}" if told else back)

    async def _proofs(self, run: Run) -> Sequence[Proof]:
        clock = self._world.clock
        until = clock.monotonic() + PROOF_S
        while clock.monotonic() < until:
            found = [p for p in await self._store.proofs(run.service, 50) if p.run == run.id and p.returned]
            if found:
                return found
            await clock.sleep(GLANCE_S)
        return []


@dataclass(slots=True)
class _Watch:
    """What is remembered from one look at the outside to the next.

    A carrier that has just started knows of no reading since the phase began: carriers that die one after the other may
    not watch for ever what nobody can read (I15).
    """

    world: World
    checks: DrillChecks
    state: DrillState
    gauge: Gauge = field(init=False)
    unknown_since: float | None = None
    lost: int = 0

    def __post_init__(self) -> None:
        self.gauge = Gauge(self.world)
        unread_s = (self.world.clock.now() - self.state.since).total_seconds()
        self.unknown_since = self.world.clock.monotonic() - abs(unread_s)

    async def look(self, part: Part) -> Event | None:
        """The signals and, once others carry the load, those others."""
        return await self._signals() or (await self._survivors() if part.away else None)

    async def outcome(self) -> Event | None:
        """Of a drill that is over only harm is asked for."""
        for name, reading in (await self.checks.signals.read(self.state.wish.policy.outcome_signals)).items():
            if reading.state == "bad":
                return Event(DrillEvent.OUTCOME_BAD, evidence=f"outcome signal {name} is bad: {reading.evidence}")
        return None

    async def _signals(self) -> Event | None:
        policy, clock = self.state.wish.policy, self.world.clock
        readings = await self.checks.signals.read([*policy.outcome_signals, *policy.blocking_signals])
        for name in policy.outcome_signals:
            if readings[name].state == "bad":
                why = f"outcome signal {name} is bad: {readings[name].evidence}"
                return Event(DrillEvent.OUTCOME_BAD, evidence=why)
        for name in policy.blocking_signals:
            if readings[name].state == "bad":
                return Event(DrillEvent.STOPPED, evidence=f"blocking signal {name} fired: {readings[name].evidence}")
        unknown = {name: r.evidence for name, r in readings.items() if r.state == "unknown"}
        if not unknown:
            self.unknown_since = None
            return None
        if self.unknown_since is None:
            self.unknown_since = clock.monotonic()
        if clock.monotonic() - self.unknown_since < policy.unknown_max_s:
            return None
        told = "; ".join(f"{name}: {evidence}" for name, evidence in unknown.items())
        why = f"I15: nobody could say how the service is for {policy.unknown_max_s:g} s: {told}"
        return Event(DrillEvent.STOPPED, evidence=why)

    async def _survivors(self) -> Event | None:
        topology, wish = self.world.topology, self.state.wish
        limit = self.checks.policy.max_utilisation
        try:
            loads = await self.gauge.loads(self.checks.policy.load_window_s)
        except _TROUBLE:
            return None  # Unseen is not lost (I6); the outcome signals say what users get meanwhile.
        out = [z.id for z in topology.zones_at(wish.place)]
        why = reason_survivors_fail(out, loads, topology, limit)
        self.lost = self.lost + 1 if why else 0
        return Event(DrillEvent.STOPPED, evidence=why) if why and self.lost >= LOST_LOOKS else None
