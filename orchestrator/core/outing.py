"""The outing machine: one zone is taken out of traffic on purpose and brought back, for a person or for a drill.

Its table is `outing_table`. It shares guards, lease and effects with a deploy. A drain asks every guard first; an
evacuation asks none, and nothing stands before it but the lease (I10, I14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, cast

from orchestrator.core.errors import IllegalTransition
from orchestrator.core.machine import Effect, Event, Facts, Json, Order
from orchestrator.core.outing_table import (
    ANYWHERE,
    EFFECT_OF,
    FINISHED,
    HELD,
    NOT_YET_LEFT,
    ORDER_REFUSED,
    ORDERS,
    TRANSITIONS,
    OutingEvent,
    Stage,
)
from orchestrator.core.policy import DeployPolicy, OnExpiry
from orchestrator.core.traffic import RampStep, parse_steps

WARN_AT: Final = 0.8  # of the time until it expires (I8)
ALARM_EVERY_S: Final = 900.0  # An outing that has expired is told again and again.


class Mode(StrEnum):
    DRAIN = "drain"
    EVACUATE = "evacuate"


class Asker(StrEnum):
    """Who wants the zone out. Precedence (I1): person > failure > deploy > drill."""

    PERSON = "person"
    DRILL = "drill"


_E = OutingEvent


@dataclass(frozen=True, slots=True)
class Ask:
    """What was asked for. `due_at`: come back then by itself (a drill); `overrides`: rules that are skipped by name (I4)."""

    zone: str
    mode: Mode
    asker: Asker
    author: str
    reason: str
    expires_at: datetime
    on_expiry: OnExpiry = OnExpiry.HOLD
    due_at: datetime | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutingState:
    """One zone, out on purpose. It has what effects read of a zone's progress: zone, goal, step, steps, first, undo.

    `goal`: the version it had when it left, and must come back with ("": nobody could say). `sound`: it left healthy.
    `dead`: its load balancer and its region's agent said so while another zone was out. `calling_off`: it never left or
    came back from a drain; only preparations are left to undo. `sick`: it failed on its way back and is out again.
    """

    service: str
    ask: Ask
    policy: DeployPolicy
    began: datetime
    since: datetime
    stage: Stage = Stage.WAITING
    goal: str = ""
    sound: bool = False
    dead: bool = False
    contested: bool = False
    paused: bool = False
    calling_off: bool = False
    sick: bool = False
    warned: bool = False
    alarms: int = 0
    step: int = 0
    steps: tuple[RampStep, ...] = ()
    undo: Mapping[str, Json] = field(default_factory=dict, hash=False)
    note: str = ""
    reason: str = ""

    @property
    def zone(self) -> str:
        return self.ask.zone

    @property
    def first(self) -> bool:
        return False

    @property
    def upgrades(self) -> bool:
        return False

    @property
    def as_it_left(self) -> bool:
        """It is leaving, or is put back from that: nobody has verified it since."""
        return self.calling_off or self.stage is Stage.DRAINING

    @property
    def lapsed(self) -> bool:
        """It has expired and nothing brings it back by itself."""
        return self.alarms > 0 and self.ask.on_expiry is OnExpiry.HOLD


def begin(service: str, ask: Ask, policy: DeployPolicy, now: datetime) -> OutingState:
    return OutingState(service, ask, policy, began=now, since=now)


def decide(state: OutingState, facts: Facts) -> Effect | Event | None:
    """Say what to do next: an effect, an event (an order, a time that has come), or nothing (out, held, paused)."""
    if state.stage in FINISHED:
        return None
    if facts.orders:
        return _order(state, facts.orders[0])
    alarm = _alarm(state, facts.now)
    if alarm is not None:
        return alarm
    # The kill switch stops what no person asked for: drills, and returns that only a clock asks for (I14).
    if state.paused or state.stage in HELD or (facts.killed and state.ask.asker is not Asker.PERSON):
        return None
    if state.stage in NOT_YET_LEFT and facts.now >= state.ask.expires_at:
        # It waited for another zone, or for capacity, longer than it was to be out.
        late = f"expired at {state.ask.expires_at:%H:%M:%S} UTC before it left (I8)"
        evacuates = state.ask.mode is Mode.EVACUATE
        return Event(_E.RESTORE if evacuates else NOT_YET_LEFT[state.stage], state.zone, late)
    if facts.frozen and state.stage is Stage.PREPARING and state.ask.asker is Asker.DRILL:
        return Event(_E.UNPREPARED, state.zone, "refused by I14: a freeze is on, and no drill takes a zone out")
    if state.stage is Stage.WAITING:
        return _first(state, facts)
    if state.stage is Stage.OUT:
        return None if facts.killed or state.sick else _time_to_return(state, facts.now)
    return Effect(EFFECT_OF[state.stage], state.zone, {"step": state.step})


def _first(state: OutingState, facts: Facts) -> Effect | Event:
    if state.ask.mode is Mode.EVACUATE:
        # Also with I1 overridden: the lease is refused all the same while another run has this very zone.
        return Effect("triage", state.zone) if state.contested else Event(_E.GO, state.zone, "evacuation asked for")
    if facts.frozen and "I14" not in state.ask.overrides:
        return Event(_E.REFUSED, state.zone, "refused by I14: a freeze is on, and nothing new may start")
    return Effect("admit", state.zone)


def _time_to_return(state: OutingState, now: datetime) -> Event | None:
    ask = state.ask
    if ask.due_at is not None and now >= ask.due_at:
        return Event(_E.DUE, state.zone, f"it was to be out until {ask.due_at:%H:%M:%S} UTC")
    if ask.on_expiry is OnExpiry.RESTORE and now >= ask.expires_at:
        return Event(_E.EXPIRED, state.zone, f"expired at {ask.expires_at:%H:%M:%S} UTC; policy: restore (I8)")
    return None


def _alarm(state: OutingState, now: datetime) -> Effect | None:
    """I8: a zone that is out is told of at 80 % of its time, at its end, and every quarter of an hour from then on.

    So is one that waits to be evacuated: somebody believes that its users are rid of it.
    """
    if state.stage is Stage.WAITING and state.ask.mode is Mode.DRAIN:
        return None
    lasts = state.ask.expires_at - state.began
    if now >= state.ask.expires_at + timedelta(seconds=state.alarms * ALARM_EVERY_S):
        return Effect("alarm", state.zone)
    if not state.warned and not state.alarms and now >= state.began + WARN_AT * lasts:
        return Effect("warn", state.zone)
    return None


def _order(state: OutingState, order: Order) -> Event:
    kind = _E.RESTORE if order.kind == "abort" else order.kind
    evidence = f"{order.kind} ordered by {order.author}: {order.reason}"
    known = kind in ORDERS and (kind in ANYWHERE or kind in TRANSITIONS[state.stage])
    if not known and not (kind == _E.RESUME and state.paused):
        why = f"{order.kind} makes no sense while {state.zone} is {state.stage}"
        if order.kind == "rollback":
            why = f"nothing was replaced in {state.zone}, so there is nothing to roll back; restore brings it back"
        return Event(ORDER_REFUSED, evidence=why, order=order.id)
    if kind in {_E.EXTEND, _E.TAKE_OVER} and _instant(order.args.get("expires_at")) is None:
        return Event(ORDER_REFUSED, evidence=f"{kind} needs expires_at, an instant with its zone", order=order.id)
    args = order.args
    if kind == _E.TAKE_OVER:
        if state.ask.asker is Asker.PERSON:
            return Event(ORDER_REFUSED, evidence=f"{state.zone} is {state.ask.author}'s already", order=order.id)
        args = {"on_expiry": str(OnExpiry.HOLD), **args, "author": order.author}
    return Event(kind, state.zone, evidence, args, order.id)


def _instant(text: Json) -> datetime | None:
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return instant if instant.tzinfo else None


def apply(state: OutingState, event: Event, now: datetime) -> OutingState:
    """Fold `event` into `state`. An illegal event raises IllegalTransition and changes nothing."""
    if event.kind == ORDER_REFUSED:
        return state
    try:
        kind = OutingEvent(event.kind)
    except ValueError:
        raise IllegalTransition(f"{event.kind} is no event of an outing") from None
    if state.stage in FINISHED:
        raise IllegalTransition(f"outing of {state.zone}: {event.kind} while {state.stage}")
    match kind:
        case _E.PAUSE:
            return replace(state, paused=True, reason=event.evidence)
        case _E.RESUME if state.paused and state.stage not in HELD:
            return replace(state, paused=False, reason=event.evidence)  # It goes on where it stood.
        case _E.EXTEND:
            until = _instant(event.args["expires_at"])
            assert until is not None
            return replace(state, ask=replace(state.ask, expires_at=until), began=now, warned=False, alarms=0)
        case _E.TAKE_OVER:
            return _taken_over(state, event, now)
        case _E.WARNED:
            return replace(state, warned=True)
        case _E.ALARMED:  # Once, also for what it missed while nobody carried it: a day of pages at once helps nobody.
            missed = int((now - state.ask.expires_at).total_seconds() // ALARM_EVERY_S)
            return replace(state, alarms=max(state.alarms, missed) + 1, reason=event.evidence)
        case _:
            paused = state.paused and event.order is None
            return _after(replace(state, paused=paused), meaning(state, kind), event, now)


def _taken_over(state: OutingState, event: Event, now: datetime) -> OutingState:
    """The zone stays where it is, until that person or that person's expiry says otherwise."""
    until = _instant(event.args["expires_at"])
    assert until is not None
    ask = replace(
        state.ask,
        asker=Asker.PERSON,
        author=str(event.args["author"]),
        expires_at=until,
        on_expiry=OnExpiry(str(event.args["on_expiry"])),
        due_at=None,
    )
    return replace(state, ask=ask, began=now, warned=False, alarms=0, reason=event.evidence)


def meaning(state: OutingState, kind: OutingEvent) -> OutingEvent:
    """Translate what was measured into what it means here."""
    if kind is _E.REFUSED and state.ask.mode is Mode.EVACUATE and state.stage is Stage.WAITING:
        return _E.CONTESTED  # The lease is another's; an evacuation waits for it, and looks whether it has to (I1).
    if kind is _E.RESUME and state.stage is Stage.HELD_LEAVING and state.ask.mode is Mode.EVACUATE:
        return _E.EVACUATE
    if kind in {_E.RESUME, _E.RESTORE} and state.stage is Stage.HELD_SERVING and state.calling_off:
        return _E.PUT_BACK  # No return was planned for it: there are no steps.
    if kind is _E.INCOMPLETE:
        return _E.INCONCLUSIVE
    if kind is _E.STEP_PASSED and state.step + 1 >= len(state.steps):
        return _E.RAMPED
    if kind is _E.SETTLED and state.calling_off:
        return _E.UNDONE
    return kind


def _after(state: OutingState, kind: OutingEvent, event: Event, now: datetime) -> OutingState:
    try:
        stage = TRANSITIONS[state.stage][kind]
    except KeyError:
        raise IllegalTransition(f"outing of {state.zone}: {kind} while {state.stage}") from None
    # Neither to hold it nor to call it back made anything known anew.
    called_back = state.stage is Stage.DRAINING and stage is Stage.JOINING
    since = state.since if stage is state.stage or state.stage in HELD or called_back else now
    moved = replace(state, stage=stage, since=since, note=event.evidence or state.note)
    match kind:
        case _E.ADMITTED:
            args = event.args
            return replace(moved, undo=_mapping(args["undo"]), goal=str(args["goal"]), sound=bool(args["sound"]))
        case _E.REPLANNED | _E.PREPARED:
            return replace(moved, undo=_mapping(event.args["undo"]), sound=event.args.get("sound", moved.sound) is True)
        case _E.CONTESTED:
            return replace(moved, contested=True, reason=event.evidence)
        case _E.DEAD | _E.SOUND:
            return replace(moved, dead=kind is _E.DEAD, contested=kind is _E.DEAD, reason=state.ask.reason)
        case _E.EVACUATE:
            ask = _waived(replace(state.ask, mode=Mode.EVACUATE), event)
            return replace(moved, ask=ask, sound=False, calling_off=False, step=0)
        case _E.UNHEALTHY | _E.INCONCLUSIVE:
            return replace(moved, sound=False, sick=True, step=0, reason=event.evidence)
        case _E.RETURN_PLANNED:
            return _return_planned(moved, event)
        case _E.RESTORE | _E.RESUME | _E.UNPREPARED | _E.DRAIN_TIMED_OUT:
            leaving = state.stage in {Stage.PREPARING, Stage.DRAINING}
            back, sick = state.calling_off or leaving, state.sick and kind is _E.UNPREPARED
            return replace(moved, ask=_waived(state.ask, event), sick=sick, calling_off=back, reason=event.evidence)
        case _E.STEP_PASSED | _E.STEP_MERGED:
            return replace(moved, step=min(state.step + 1, max(0, len(state.steps) - 1)))
        case _E.REFUSED | _E.STUCK:
            return replace(moved, reason=event.evidence)
        case _:
            dead = moved.dead and kind not in {_E.VERIFIED, _E.JOINED}  # From then on it serves (I1).
            moved = replace(moved, calling_off=moved.calling_off and kind is not _E.STALE, dead=dead)
            return replace(moved, undo={}) if stage in FINISHED else moved


def _waived(ask: Ask, event: Event) -> Ask:
    """I4: from here on the outing skips the rules that the person's order names."""
    named = cast("list[str]", event.args.get("overrides", []))
    return replace(ask, overrides=tuple(sorted({*ask.overrides, *named}))) if named else ask


def _return_planned(moved: OutingState, event: Event) -> OutingState:
    """I9: what left healthy and has the version it left with may return at once: its only step is the whole share."""
    goal, steps = str(event.args["goal"]), parse_steps(event.args["steps"])
    at_once = moved.sound and goal == moved.goal
    return replace(moved, goal=goal, steps=steps[-1:] if at_once else steps, step=0)


def _mapping(data: Json) -> Mapping[str, Json]:
    assert isinstance(data, dict)
    return data
