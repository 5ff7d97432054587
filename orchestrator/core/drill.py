"""The drill machine: a zone or a region is taken out on purpose for a while, under the eyes of outside signals, and back.

I15 lives here: no drill without an outcome signal that is good right before it, and none goes on while one is bad or
while nobody can say. The drill holds no lease and moves no traffic: the run that it begins does (an outing, or the move
of a region), by the same guards as for a person. Every stage, event and transition stands in this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from orchestrator.core.errors import IllegalTransition
from orchestrator.core.guards import ZoneLoad
from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.outing import Mode
from orchestrator.core.standing import RegionStanding, Standing, State
from orchestrator.core.topology import Topology

AUTHOR: Final = "failout"  # of the orders that a drill gives


class Phase(StrEnum):
    CHECKING = "checking"  # Everything that may speak against it, before anything is touched.
    BEGINNING = "beginning"
    WATCHING = "watching"  # The zone leaves and is out; the signals are read all the while.
    RETURNING = "returning"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # Users were harmed, or the zone did not come back.
    INTERRUPTED = "interrupted"  # Something else came first; it says nothing about the zone.
    REFUSED = "refused"  # Nothing was touched.


class DrillEvent(StrEnum):
    CHECKED = "checked"
    REFUSED = "refused"
    BEGUN = "begun"
    STALE = "stale"  # It stood still since the checks: they are made anew (I15).
    OVER = "over"  # Its time is up, and nothing was wrong.
    OUTCOME_BAD = "outcome-bad"
    STOPPED = "stopped"  # A blocking signal, signals that nobody can read, a survivor lost, somebody who goes first.
    RETURNED = "returned"
    NOT_RETURNED = "not-returned"  # A person has to bring it back.
    INTERRUPTED = "effect-interrupted"
    ABORT = "abort"
    PAUSE = "pause"  # These two move no phase.
    RESUME = "resume"


_E = DrillEvent
_P = Phase
_BACK: Final = {_E.OUTCOME_BAD: _P.RETURNING, _E.ABORT: _P.RETURNING}


TRANSITIONS: Final[Mapping[Phase, Mapping[DrillEvent, Phase]]] = {
    _P.CHECKING: {
        _E.CHECKED: _P.BEGINNING,
        _E.REFUSED: _P.REFUSED,
        _E.INTERRUPTED: _P.CHECKING,
        _E.ABORT: _P.INTERRUPTED,
    },
    _P.BEGINNING: {
        _E.BEGUN: _P.WATCHING,
        _E.REFUSED: _P.REFUSED,
        _E.STALE: _P.CHECKING,
        _E.INTERRUPTED: _P.BEGINNING,
        _E.STOPPED: _P.RETURNING,  # A crash may have come between the run that it begins and its own row.
        _E.ABORT: _P.RETURNING,
    },
    _P.WATCHING: {
        _E.OVER: _P.RETURNING,
        _E.STOPPED: _P.RETURNING,
        _E.REFUSED: _P.RETURNING,  # By its own guards when it was to leave: only what was prepared is undone.
        _E.INTERRUPTED: _P.WATCHING,
        **_BACK,
    },
    _P.RETURNING: {
        _E.RETURNED: _P.SUCCEEDED,  # Or as `verdict` says.
        _E.NOT_RETURNED: _P.FAILED,
        _E.INTERRUPTED: _P.RETURNING,
        **_BACK,
    },
    _P.SUCCEEDED: {},
    _P.FAILED: {},
    _P.INTERRUPTED: {},
    _P.REFUSED: {},
}
_EFFECT_OF: Final = {_P.CHECKING: "check", _P.BEGINNING: "begin", _P.WATCHING: "watch", _P.RETURNING: "return"}
FINISHED: Final = frozenset({_P.SUCCEEDED, _P.FAILED, _P.INTERRUPTED, _P.REFUSED})
_PAUSING: Final = frozenset({_E.PAUSE, _E.RESUME})
ORDERS: Final = frozenset({_E.ABORT, *_PAUSING, "restore", "return"})
ORDER_REFUSED: Final = "order-refused"
_VERDICT: Final = {
    _E.OUTCOME_BAD: _P.FAILED,
    _E.STOPPED: _P.INTERRUPTED,
    _E.ABORT: _P.INTERRUPTED,
    _E.REFUSED: _P.REFUSED,
}


@dataclass(frozen=True, slots=True)
class DrillPolicy:
    """`drills:` of failout.yaml. Signals by name, of those under `signals:`. Seconds.

    `unknown_max_s`: how long a drill goes on while nobody can say how the service is.
    """

    outcome_signals: tuple[str, ...] = ()
    blocking_signals: tuple[str, ...] = ()
    duration_s: float = 1800.0
    read_every_s: float = 3.0
    unknown_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be drilled. `place` is a zone, or a region. `schedule`: whose firing it is; None when a person asked."""

    place: str
    tier: Literal["zone", "region"]
    mode: Mode
    policy: DrillPolicy
    author: str
    reason: str
    schedule: str | None = None


@dataclass(frozen=True, slots=True)
class DrillState:
    """`outing`: id of the run that takes the place out. `verdict`: what it ends as once the place is back.

    `paused`: a person has stopped it where it stands; its outing goes on, or is paused by an order of its own.
    """

    run: str
    service: str
    wish: Wish
    since: datetime
    phase: Phase = Phase.CHECKING
    verdict: Phase = Phase.SUCCEEDED
    checks: tuple[str, ...] = ()
    note: str = ""
    reason: str = ""
    paused: bool = False

    @property
    def outing(self) -> str:
        return f"{self.run}.out"


def begin(run: str, service: str, wish: Wish, now: datetime) -> DrillState:
    return DrillState(run, service, wish, now)


def decide(state: DrillState, facts: Facts) -> Effect | Event | None:
    """Say what to do next: an effect, a person's order, or nothing (it has ended, is paused, or the kill switch is on: I14)."""
    if state.phase in FINISHED:
        return None
    if facts.orders:
        return _order(state, facts.orders[0])
    if facts.killed or state.paused:
        return None
    if facts.frozen and state.phase in {Phase.CHECKING, Phase.BEGINNING}:
        kind = _E.REFUSED if state.phase is Phase.CHECKING else _E.STOPPED
        return Event(kind, state.wish.place, "refused by I14: a freeze is on, and nothing new may start")
    return Effect(_EFFECT_OF[state.phase], state.wish.place if state.wish.tier == "zone" else None)


def _order(state: DrillState, order: Order) -> Event:
    if order.kind not in ORDERS or (order.kind == _E.RESUME and not state.paused):
        what = "a drill that is not paused" if order.kind == _E.RESUME else "a drill"
        why = f"{order.kind} makes no sense for {what}; abort brings {state.wish.place} back"
        return Event(ORDER_REFUSED, evidence=why, order=order.id)
    told = f"{order.kind} ordered by {order.author}: {order.reason}"
    if order.kind not in _PAUSING:
        return Event(_E.ABORT, evidence=told, order=order.id)
    if order.kind == _E.PAUSE and state.phase in {Phase.WATCHING, Phase.RETURNING}:
        back = f"failout deployments abort {state.run} --reason ... brings {state.wish.place} back"
        told += f"; nobody reads its signals meanwhile: {back}"
    return Event(DrillEvent(order.kind), evidence=told, order=order.id)


def apply(state: DrillState, event: Event, now: datetime) -> DrillState:
    """Fold `event` into `state`. An illegal event raises IllegalTransition and changes nothing."""
    if event.kind == ORDER_REFUSED:
        return state
    try:
        kind = DrillEvent(event.kind)
        stays = kind in _PAUSING and state.phase not in FINISHED
        phase = state.phase if stays else TRANSITIONS[state.phase][kind]
    except (KeyError, ValueError):
        raise IllegalTransition(f"drill of {state.wish.place}: {event.kind} while {state.phase}") from None
    phase = state.verdict if kind is _E.RETURNED else phase
    since = state.since if phase is state.phase else now
    paused = kind is _E.PAUSE or (state.paused and kind not in {_E.RESUME, _E.ABORT})
    moved = replace(state, phase=phase, since=since, note=event.evidence or state.note, paused=paused)
    match kind:
        case _E.CHECKED:
            told = event.args.get("checks")
            checks = tuple(str(c) for c in told) if isinstance(told, list) else ()
            return replace(moved, checks=checks, reason=event.evidence)
        case _E.OUTCOME_BAD | _E.STOPPED | _E.ABORT | _E.REFUSED:
            # Harm outweighs whatever else ends it; of equals the first reason stands.
            worse = state.verdict is Phase.SUCCEEDED or (kind is _E.OUTCOME_BAD and state.verdict is not Phase.FAILED)
            return replace(moved, verdict=_VERDICT[kind], reason=event.evidence) if worse else moved
        case _E.OVER:
            return replace(moved, reason=event.evidence)
        case _E.NOT_RETURNED:
            before = f"{state.reason}; " if state.verdict is not Phase.SUCCEEDED else ""
            return replace(moved, reason=f"{before}{event.evidence}")
        case _E.RETURNED if state.verdict is Phase.SUCCEEDED:
            return replace(moved, reason=event.evidence)
        case _:
            return moved


# ---- choosing


class Choice(StrEnum):
    """Which place a schedule drills: the one whose proof is oldest, or the one that is least proven."""

    OLDEST = "oldest"
    WEAKEST = "weakest"


_LEAST_FIRST: Final = (State.NEVER, State.WEAK, State.STALE, State.PROVEN)


def choose(standings: Iterable[Standing | RegionStanding], choice: Choice) -> str | None:
    """The place to drill; None when there is none. Where the last fail-out did harm, a person goes first.

    A region's age is that of the last time when all of it was out at once.
    """
    fit = [s for s in standings if s.state is not State.BROKEN]

    def oldest(standing: Standing | RegionStanding) -> tuple[float, str]:
        age_s = proof_age_s(standing)
        return (float("-inf") if age_s is None else -age_s, standing.place)

    def weakest(standing: Standing | RegionStanding) -> tuple[float, float, tuple[float, str]]:
        region = isinstance(standing, RegionStanding)
        strength = standing.emptied_strength if isinstance(standing, RegionStanding) else standing.strength
        rank = 0 if region else _LEAST_FIRST.index(standing.state)
        return (rank, -1.0 if strength is None else strength, oldest(standing))

    return min(fit, key=oldest if choice is Choice.OLDEST else weakest).place if fit else None


def proof_age_s(standing: Standing | RegionStanding) -> float | None:
    """Since its last good proof; None: there is none."""
    if isinstance(standing, RegionStanding):
        return standing.emptied_age_s
    return standing.age_s if standing.proof is not None and standing.state is not State.BROKEN else None


# ---- what ends it


def reason_survivors_fail(
    zones_out: Sequence[str], loads: Mapping[str, ZoneLoad], topology: Topology, max_utilisation: float
) -> str | None:
    """I3 while the drill lasts: why those who serve can no longer carry it, or None.

    A survivor in which nobody answers is lost. Instances that are missing end a drill only when those that are left
    exceed what policy allows; a load that only rises ends it when they are full.
    """
    survivors = [z for z in topology.zones() if z.id not in zones_out]
    for zone in survivors:
        load = loads.get(zone.id)
        if load is None or load.healthy == 0:
            return f"survivor {zone.id} is lost: none of its instances answers"
    for region in topology.regions:
        here = [z for z in region.zones if z.id not in zones_out]
        if not here:
            continue
        load_rps = sum(loads[z.id].rps for z in here)
        capacity = sum(z.rps_per_instance * loads[z.id].healthy for z in here)
        lost = [z.id for z in here if loads[z.id].healthy < loads[z.id].instances]
        if load_rps > (max_utilisation if lost else 1.0) * capacity:
            missing = f", instances are missing in {', '.join(lost)}" if lost else ""
            return f"I3: {region.id} carries {load_rps:.0f}/s over {capacity:.0f}/s{missing}"
    return None
