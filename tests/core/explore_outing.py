"""Every state that an outing can reach, by every outcome of every effect, every order, switch and hour at every moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from core.exploring import Explored, explored

from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.outing import Ask, Asker, Mode, OutingState, apply, begin, decide
from orchestrator.core.outing_table import FINISHED, ORDERS, OutingEvent, Stage
from orchestrator.core.policy import DeployPolicy, OnExpiry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATE = NOW + timedelta(hours=2, seconds=1)
STEPS = [{"share": s, "seconds": 1.0, "expected_requests": 50, "merged": []} for s in (0.5, 1.0)]
_V = OutingEvent
_REFUSED = Event(_V.REFUSED, "a", "refused by I1")

# What the performer may answer for each effect (orchestrator/workflows/outing.py), and nothing else.
OUTCOMES: Mapping[str, tuple[OutingEvent, ...]] = {
    "triage": (_V.DEAD, _V.SOUND, _V.INTERRUPTED),
    "admit": (_V.ADMITTED, _V.REFUSED, _V.INTERRUPTED),
    "prepare": (_V.PREPARED, _V.REPLANNED, _V.UNPREPARED, _V.INTERRUPTED),
    "drain": (_V.DRAINED, _V.DRAIN_TIMED_OUT, _V.STALE, _V.STUCK, _V.INTERRUPTED),
    "evacuate": (_V.EVACUATED, _V.STUCK, _V.INTERRUPTED),
    "relieve": (_V.PREPARED, _V.REPLANNED, _V.UNPREPARED, _V.INTERRUPTED),
    "plan-return": (_V.RETURN_PLANNED, _V.JOINED, _V.STUCK, _V.INTERRUPTED),
    "verify": (_V.VERIFIED, _V.UNHEALTHY, _V.INCONCLUSIVE, _V.STUCK, _V.INTERRUPTED),
    "ramp": (
        _V.STEP_PASSED,
        _V.STEP_MERGED,
        _V.RAMPED,
        _V.STALE,
        _V.UNHEALTHY,
        _V.INCOMPLETE,
        _V.INCONCLUSIVE,
        _V.STUCK,
        _V.INTERRUPTED,
    ),
    "join": (_V.JOINED, _V.STALE, _V.STUCK, _V.INTERRUPTED),
    "settle": (_V.SETTLED, _V.STUCK, _V.INTERRUPTED),
    "warn": (_V.WARNED,),
    "alarm": (_V.ALARMED,),
}


def ask(mode: Mode = Mode.DRAIN, asker: Asker = Asker.PERSON, on_expiry: OnExpiry = OnExpiry.HOLD) -> Ask:
    due = NOW + timedelta(hours=1) if asker is Asker.DRILL else None
    return Ask("a", mode, asker, "ada", "because", NOW + timedelta(hours=2), on_expiry, due)


def start(wanted: Ask) -> OutingState:
    return begin("gates", wanted, DeployPolicy(), NOW)


def outcome(effect: Effect, kind: OutingEvent) -> Event:
    args = {"undo": {}, "goal": "v1", "sound": True, "steps": STEPS}
    return Event(kind, effect.zone, "seen", args)  # type: ignore[arg-type]


def order(kind: str) -> Order:
    return Order(1, kind, "ada", "because", NOW, {"expires_at": (NOW + timedelta(hours=2)).isoformat()})


def successors(state: OutingState) -> Iterator[tuple[Event, OutingState]]:
    for kind in sorted({*ORDERS, "rollback"}):
        event = decide(state, Facts(NOW, (order(kind),)))
        if isinstance(event, Event):
            yield event, apply(state, event, NOW)
            if state.stage is Stage.LENT and kind in {"restore", "resume"}:  # The deploy has it yet.
                yield _REFUSED, apply(state, _REFUSED, NOW)
    for now in (NOW, LATE):
        for frozen in (False, True):
            chosen = decide(state, Facts(now, frozen=frozen))
            if isinstance(chosen, Event):
                yield chosen, apply(state, chosen, NOW)
                if chosen.kind == OutingEvent.GO:  # The store may refuse the lease (engine/carry.py).
                    yield _REFUSED, apply(state, _REFUSED, NOW)
            elif chosen is not None:
                for kind in OUTCOMES[chosen.kind]:
                    if kind is _V.STALE and chosen.kind != "ramp" and not state.as_it_left:
                        continue
                    event = outcome(chosen, kind)
                    yield event, apply(state, event, NOW)


def shape(state: OutingState) -> OutingState:
    return replace(state, note="", reason="", since=NOW, alarms=min(state.alarms, 2))


def explore(wanted: Ask) -> Explored[OutingState]:
    return explored(start(wanted), successors, shape, lambda s: s.stage in FINISHED)
