"""The deploy machine over its two tables (`deploy_table`): `decide` names the next effect, `apply` folds its outcome in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import cast

import msgspec
from msgspec.structs import replace

from orchestrator.core.deploy_table import (
    CALLED_OFF,
    EFFECT_OF,
    FINISHED,
    HELD,
    IDLE,
    ORDER_REFUSED,
    ORDERS,
    RUN_TRANSITIONS,
    ZONE_TRANSITIONS,
    Course,
    E,
    R,
    RunStatus,
)
from orchestrator.core.errors import IllegalTransition
from orchestrator.core.machine import Effect, Event, Facts, Json, Order
from orchestrator.core.policy import DeployPolicy, OnFailure
from orchestrator.core.topology import ZoneState
from orchestrator.core.traffic import RampStep, parse_steps

_Z, _S = ZoneState, RunStatus


class ZoneProgress(msgspec.Struct, frozen=True):
    """Where one zone stands. `goal` is the version it must reach, `previous` the one that it had when the run began.

    `touched`: an upgrade was begun since it left traffic. `changed`: it waits again, with another version than it had.
    `undo`: what was prepared for it and must be put back. `sound`: it was well when it was last looked at.
    """

    zone: str
    state: ZoneState
    goal: str
    previous: str
    since: datetime
    step: int = 0
    steps: tuple[RampStep, ...] = ()
    reverting: bool = False
    withdrawing: bool = False
    touched: bool = False
    changed: bool = False
    first: bool = False
    undo: Mapping[str, Json] = msgspec.field(default_factory=dict)
    sound: bool = True
    note: str = ""

    @property
    def upgrades(self) -> bool:
        return True

    @property
    def as_it_left(self) -> bool:
        """It is leaving, or is put back from that: nothing in it was replaced, and nobody has verified it since."""
        return not self.touched


class DeployState(msgspec.Struct, frozen=True):
    service: str
    target: str
    policy: DeployPolicy
    zones: tuple[ZoneProgress, ...]
    status: RunStatus = RunStatus.ACTIVE
    course: Course = Course.FORWARD
    reason: str = ""
    suspended: bool = False
    ahead: str = ""  # The zone that others have yielded to.
    overrides: tuple[str, ...] = ()  # Rules that a person has overridden for this run, by name (I4).
    behind: tuple[str, ...] = ()  # What drills have out when it begins: they make way, and the first admission waits.

    @property
    def admit_timeout_s(self) -> float:
        """What a drill has out comes back in steps, and is watched: for that it waits as long as an upgrade may take."""
        return max(self.policy.admit_timeout_s, self.policy.upgrade_timeout_s if self.behind else 0.0)

    def zone(self, zone_id: str) -> ZoneProgress:
        return next(z for z in self.zones if z.zone == zone_id)

    def active_zone(self) -> ZoneProgress | None:
        """The one zone that is prepared, out, on its way back or held; I1 allows one."""
        return next((z for z in self.zones if z.state not in IDLE), None)

    def waiting(self) -> list[ZoneProgress]:
        """Zones that are still to be taken, in their order."""
        waiting = [z for z in self.zones if z.state is ZoneState.WAITING and self.course is not Course.ABORT]
        return [z for z in reversed(waiting) if z.reverting] if self.course is Course.ROLLBACK else waiting

    def next_zone(self) -> ZoneProgress | None:
        waiting = self.waiting()
        return next((z for z in waiting if z.zone == self.ahead), waiting[0] if waiting else None)


def begin(
    service: str, target: str, previous: Mapping[str, str], order: tuple[str, ...], policy: DeployPolicy, now: datetime
) -> DeployState:
    """Start a deploy of `target` over `previous` (zone -> version), zone by zone in `order`."""
    zones = tuple(
        ZoneProgress(zone, ZoneState.WAITING, target, previous[zone], now, first=i == 0) for i, zone in enumerate(order)
    )
    return DeployState(service, target, policy, zones)


def decide(state: DeployState, facts: Facts) -> Effect | Event | None:
    """Say what to do next: an effect for one zone, an event (an order, or the end), or nothing (held, paused, frozen)."""
    if state.status in FINISHED:
        return None
    if facts.orders:
        return _order(state, facts.orders[0])
    if state.status is not RunStatus.ACTIVE or facts.killed:
        return None
    active, frozen = state.active_zone(), facts.frozen and "I14" not in state.overrides
    if active is not None:
        not_left = active.state is _Z.PREPARING and (active.changed or not active.touched)
        if frozen and state.course is Course.FORWARD and not_left:
            return None  # I14: it has not left yet, and does not while the freeze lasts.
        return None if active.state in HELD else Effect(EFFECT_OF[active.state], active.zone, {"step": active.step})
    following = state.next_zone()
    if following is None:
        return Event(f"complete-{state.course}", evidence=f"every zone is where the {state.course} wants it")
    if state.suspended:
        return Event(R.COMPLETE_SUSPEND, evidence=state.reason)
    if frozen and state.course is Course.FORWARD:
        return None  # I14: a freeze starts no further zone; the one that was out has been brought back first.
    return Effect("admit", following.zone)


def _order(state: DeployState, order: Order) -> Event:
    if order.kind not in RUN_TRANSITIONS[state.status] or order.kind not in ORDERS:
        why = f"{order.kind} makes no sense while the run is {state.status}"
        return Event(ORDER_REFUSED, evidence=why, order=order.id)
    evidence = f"{order.kind} ordered by {order.author}: {order.reason}"
    return Event(order.kind, evidence=evidence, args=order.args, order=order.id)


def apply(state: DeployState, event: Event, now: datetime) -> DeployState:
    """Fold `event` into `state`. An illegal event raises IllegalTransition and changes nothing."""
    if event.kind == ORDER_REFUSED:
        return state
    if event.zone is None:
        return _apply_to_run(state, event, now)
    try:
        kind = E(event.kind)
        zone = state.zone(event.zone)
    except (ValueError, StopIteration):
        raise IllegalTransition(f"{event.kind} is no event of a zone of this run ({event.zone})") from None
    if kind is E.REFUSED and event.args.get("rule") == "I1" and _waits(state, now):
        # The store's own word for a lease that another run holds: ask again, on fresh facts.
        raise IllegalTransition(f"{event.zone} waits for the lease: {event.evidence}")
    after = _zone_after(state, zone, kind, event, now)
    zones = tuple(after if z is zone else z for z in state.zones)
    if kind is E.DRAINED and not after.reverting and not zone.changed:
        zones = _newest_last(zones, after)
    behind = () if kind is E.ADMITTED else state.behind
    ahead = state.ahead if after.state is _Z.WAITING else ""
    return _after_zone(replace(state, zones=zones, ahead=ahead, behind=behind), zone, kind, event, now)


def _waits(state: DeployState, now: datetime) -> bool:
    """An admission may last as long as it takes to be refused."""
    waited_s = (now - max(zone.since for zone in state.zones)).total_seconds()
    return 0 <= waited_s < state.admit_timeout_s


def _newest_last(zones: tuple[ZoneProgress, ...], zone: ZoneProgress) -> tuple[ZoneProgress, ...]:
    """I12: `zone` is about to change. It stands after all that have, for a rollback takes them backwards."""
    others = [z for z in zones if z is not zone]
    has_changed = [z.changed or (z.state is _Z.DONE and not z.reverting and z.goal != z.previous) for z in others]
    at = max((i + 1 for i, so in enumerate(has_changed) if so), default=0)
    return (*others[:at], zone, *others[at:])


def meaning(state: DeployState, zone: ZoneProgress, kind: E) -> E:
    """Translate what was measured into what it means here: policy, and whether the zone is on its way back already."""
    if kind in {E.UNHEALTHY, E.INCOMPLETE}:
        # A zone that is sick at the version it had is nothing that a second rollback would mend: a person must look.
        at_home = zone.reverting or zone.withdrawing
        back = E.REVERT if kind is E.UNHEALTHY else E.SENT_BACK
        return E.HOLD if at_home or state.policy.on_failure is OnFailure.HOLD else back
    if kind in {E.DRAIN_TIMED_OUT, E.UNPREPARED} and zone.touched:
        return E.STUCK  # It left sick or half upgraded: it may not take traffic back.
    if kind is E.SENT_BACK and not zone.touched and zone.state in CALLED_OFF:
        return CALLED_OFF[zone.state]
    if kind in {E.SENT_BACK, E.RESUME} and zone.state is _Z.HELD_SERVING and zone.withdrawing and not zone.touched:
        return E.CANCELLED if kind is E.SENT_BACK else E.PUT_BACK
    if kind is E.JOINED and (zone.reverting or zone.withdrawing or state.suspended):
        return E.REJOINED
    if kind is E.SETTLED and zone.withdrawing:
        return E.WITHDRAWN
    if kind is E.STEP_PASSED and zone.step + 1 >= len(zone.steps):
        return E.RAMPED
    return kind


def _move(zone: ZoneProgress, kind: E, now: datetime) -> ZoneProgress:
    try:
        state = ZONE_TRANSITIONS[zone.state][kind]
    except KeyError:
        raise IllegalTransition(f"zone {zone.zone}: {kind} while {zone.state}") from None
    # What stood still stays as old as it is: neither an order nor a call back makes anything known anew.
    ordered = kind in {E.RESUME, E.SENT_BACK, E.RETARGET}
    same = state is zone.state or ordered or (zone.state is _Z.DRAINING and state is _Z.JOINING)
    return replace(zone, state=state, since=zone.since if same else now)


def _zone_after(state: DeployState, zone: ZoneProgress, kind: E, event: Event, now: datetime) -> ZoneProgress:
    kind = meaning(state, zone, kind)
    moved = replace(_move(zone, kind, now), note=event.evidence or zone.note)
    if moved.state is _Z.PREPARING and zone.state in {_Z.JOINING, _Z.HELD_SERVING}:
        moved = replace(moved, touched=True)  # Part of it may be out: to undo its preparations would not bring it back.
    if _Z.DONE in {zone.state, moved.state}:
        moved = replace(moved, changed=zone.state is _Z.DONE and not zone.reverting and zone.goal != zone.previous)
    match kind:
        case E.ADMITTED:
            undo, steps = cast("dict[str, Json]", event.args.get("undo", {})), parse_steps(event.args.get("steps", []))
            sound = event.args.get("sound", True) is True
            return replace(moved, undo=undo, steps=steps, step=0, touched=zone.reverting, sound=sound)
        case E.UNPREPARED | E.CANCELLED | E.RECALLED if state.suspended or kind is E.UNPREPARED:
            return replace(moved, withdrawing=True, step=0)
        case E.REVERT | E.SENT_BACK | E.DRAIN_TIMED_OUT | E.CANCELLED | E.RECALLED:
            again, sound = zone.changed and kind not in {E.REVERT, E.SENT_BACK}, zone.sound and kind is not E.REVERT
            return replace(moved, goal=zone.previous, reverting=True, withdrawing=again, step=0, sound=sound)
        case E.REPLANNED | E.PREPARED:
            sound = event.args.get("sound", zone.sound) is True
            return replace(moved, undo=cast("dict[str, Json]", event.args["undo"]), sound=sound)
        case E.WITHDRAWN:
            return replace(moved, goal=zone.previous if zone.reverting else state.target, withdrawing=False, undo={})
        case E.DRAINED | E.STALE if moved.state is not _Z.PREPARING:
            goal = zone.previous if kind is E.STALE and zone.as_it_left else zone.goal
            return replace(moved, goal=goal, touched=True, changed=False, step=0)
        case E.VERIFIED:
            steps = parse_steps(event.args["steps"]) if "steps" in event.args else moved.steps
            return replace(moved, steps=steps, sound=True)
        case E.STEP_PASSED | E.STEP_MERGED:
            return replace(moved, step=min(zone.step + 1, max(0, len(zone.steps) - 1)))
        case E.SETTLED:
            return replace(moved, undo={}, touched=False)
        case _:
            return moved


def _after_zone(state: DeployState, before: ZoneProgress, kind: E, event: Event, now: datetime) -> DeployState:
    """What a zone's event means for the run: hold, stop, or roll the others back too."""
    after = state.zone(before.zone)
    if kind is E.YIELDED:
        to = str(event.args["to"])
        return replace(state, ahead="" if to == state.waiting()[0].zone else to)
    told = f"{before.zone}: {event.evidence}"
    if after.state in HELD or kind is E.REFUSED:
        return _move_run(replace(state, reason=told), R.ZONE_HELD)
    if after.withdrawing and not before.withdrawing:
        return replace(state, reason=told)
    if after.state is _Z.WAITING and before.state is _Z.SETTLING:
        return _move_run(state, R.ZONE_HELD)  # The reason is why it was withdrawn, not that this is now undone.
    if after.state is _Z.DONE and after.reverting and state.course is Course.FORWARD:
        if state.policy.on_failure is OnFailure.ROLLBACK_ALL:
            return _roll_back_done(replace(state, course=Course.ROLLBACK), now)
        return _move_run(replace(state, reason=state.reason or told), R.ZONE_LOST)
    return replace(state, reason=told) if after.reverting and not before.reverting else state


def _move_run(state: DeployState, kind: R) -> DeployState:
    try:
        return replace(state, status=RUN_TRANSITIONS[state.status][kind])
    except KeyError:
        raise IllegalTransition(f"run of {state.target}: {kind} while {state.status}") from None


def _apply_to_run(state: DeployState, event: Event, now: datetime) -> DeployState:
    try:
        kind = R(event.kind)
    except ValueError:
        raise IllegalTransition(f"{event.kind} is no event of a run") from None
    suspended = kind is R.SUSPEND or (kind in {R.PAUSE, R.COMPLETE_SUSPEND} and state.suspended)
    state = _move_run(replace(state, reason=event.evidence, suspended=suspended), kind)
    match kind:
        case R.SUSPEND:  # What has begun to change ends where it was going: the other way would be no shorter.
            state = _each(state, E.REJOINED, now, lambda z: z.state is _Z.BAKING)
            if state.status is _S.ACTIVE and any(z.state in HELD for z in state.zones):
                return _move_run(state, R.ZONE_HELD)  # It was paused while held, and waits for a person as before.
            leaving = {_Z.PREPARING, _Z.DRAINING}
            return _each(state, E.SENT_BACK, now, lambda z: z.state in leaving and not (z.touched or z.withdrawing))
        case R.RESUME:
            return _each(_waive(state, event), E.RESUME, now, lambda z: z.state in HELD)
        case R.ABORT | R.ROLLBACK:
            course = Course.ABORT if kind is R.ABORT else Course.ROLLBACK
            state = _waive(replace(state, course=course), event)
            # What is being reverted, or only has its preparations to undo, needs no second order.
            back = IDLE | {z.state for z in state.zones if (z.reverting or z.withdrawing) and z.state not in HELD}
            state = _each(state, E.SENT_BACK, now, lambda z: z.state not in back)
            return _roll_back_done(state, now) if kind is R.ROLLBACK else state
        case R.RETARGET:
            target = str(event.args["target"])
            state = _each(replace(state, target=target, course=Course.FORWARD), E.RETARGET, now, lambda _: True)
            zones = (replace(z, goal=target, reverting=False, withdrawing=False, step=0) for z in state.zones)
            return replace(state, zones=tuple(zones))
        case _:
            return state


def _waive(state: DeployState, event: Event) -> DeployState:
    """I4: from here on the run skips the rules that the person's order names."""
    named = cast("list[str]", event.args.get("overrides", []))
    return replace(state, overrides=tuple(sorted({*state.overrides, *named})))


def _each(state: DeployState, kind: E, now: datetime, which: Callable[[ZoneProgress], bool]) -> DeployState:
    """Give the same event to every zone that `which` picks."""
    event = Event(kind, evidence=state.reason)
    zones = tuple(_zone_after(state, z, kind, event, now) if which(z) else z for z in state.zones)
    return replace(state, zones=zones)


def _roll_back_done(state: DeployState, now: datetime) -> DeployState:
    """I12: every zone that got the new version waits to be rolled back; `waiting` has the newest first."""
    state = _each(state, E.SENT_BACK, now, lambda z: z.state is _Z.DONE and not z.reverting and z.goal != z.previous)
    changed = (replace(z, goal=z.previous, reverting=True) if z.changed else z for z in state.zones)
    return replace(state, zones=tuple(changed))
