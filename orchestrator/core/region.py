"""The region machine: one or more whole regions are emptied through the global tier, stay out, and come back in steps.

One run from the evacuation to the verified return, and it holds the lease all the way (I1): no deploy, drill or person
takes a zone out of the survivors meanwhile. `decide` names the next effect, `apply` folds its outcome in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, cast

from orchestrator.core.errors import IllegalTransition
from orchestrator.core.machine import Effect, Event, Facts, Json, Order
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.traffic import RampStep, parse_steps


class Phase(StrEnum):
    """Where the regions stand. From LEAVING to RETURNING they count as out."""

    ASKING = "asking"
    PREPARING = "preparing"  # Leased, still serving: the survivors are scaled.
    LEAVING = "leaving"  # The global tier no longer answers with them; resolvers still may, for the TTL.
    EMPTYING = "emptying"
    OUT = "out"
    VERIFYING = "verifying"
    RETURNING = "returning"
    SETTLING = "settling"
    HELD_ASKING = "held-asking"
    HELD_LEAVING = "held-leaving"
    HELD_OUT = "held-out"
    HELD_RETURNING = "held-returning"
    HELD_SETTLING = "held-settling"
    RETURNED = "returned"
    CALLED_OFF = "called-off"  # It never left.


class M(StrEnum):
    """Everything that can happen to the regions of a run."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    PREPARED = "prepared"
    UNPREPARED = "unprepared"
    MOVED = "moved"
    EMPTIED = "emptied"
    VERIFIED = "verified"
    SERVES = "serves"  # It never left: to take it back in steps would take its users away first (I3, I4).
    STEP_PASSED = "step-passed"
    LAST_STEP_PASSED = "last-step-passed"
    UNHEALTHY = "unhealthy"
    INCONCLUSIVE = "inconclusive"
    STUCK = "stuck"
    SETTLED = "settled"
    UNDONE = "undone"
    EXPIRED = "expired"  # I8: out for longer than it may be silently.
    STALE = "stale"  # It stood still, and what was known when it was asked for may be so no longer (ADR 13).
    INTERRUPTED = "interrupted"
    PAUSE = "pause"  # Nothing but orders and alarms until it is resumed: it moves no phase.
    RESUME = "resume"
    RETURN = "return"
    EVACUATE = "evacuate"
    TAKE_OVER = "take-over"  # A person wants what a drill has out: it moves no phase.


_P = Phase
_AGAIN: Final = {M.EVACUATE: _P.LEAVING}

TRANSITIONS: Final[Mapping[Phase, Mapping[M, Phase]]] = {
    _P.ASKING: {
        M.ADMITTED: _P.PREPARING,
        M.REFUSED: _P.HELD_ASKING,
        M.INTERRUPTED: _P.ASKING,
        M.EVACUATE: _P.ASKING,
        M.RETURN: _P.CALLED_OFF,
    },
    _P.PREPARING: {
        M.PREPARED: _P.LEAVING,
        M.UNPREPARED: _P.SETTLING,
        M.INTERRUPTED: _P.PREPARING,
        M.EVACUATE: _P.PREPARING,
        M.RETURN: _P.SETTLING,
    },
    _P.LEAVING: {
        M.MOVED: _P.EMPTYING,
        M.STALE: _P.PREPARING,
        M.STUCK: _P.HELD_LEAVING,
        M.INTERRUPTED: _P.LEAVING,
        M.EVACUATE: _P.LEAVING,
        M.RETURN: _P.VERIFYING,
    },
    _P.EMPTYING: {
        M.EMPTIED: _P.OUT,
        M.STUCK: _P.HELD_LEAVING,
        M.INTERRUPTED: _P.EMPTYING,
        M.EVACUATE: _P.EMPTYING,
        M.RETURN: _P.VERIFYING,
    },
    _P.OUT: {M.EXPIRED: _P.OUT, M.INTERRUPTED: _P.OUT, M.EVACUATE: _P.OUT, M.RETURN: _P.VERIFYING},
    _P.VERIFYING: {
        M.VERIFIED: _P.RETURNING,
        M.SERVES: _P.SETTLING,
        M.UNHEALTHY: _P.HELD_OUT,
        M.INCONCLUSIVE: _P.HELD_OUT,
        M.STUCK: _P.HELD_OUT,
        M.INTERRUPTED: _P.VERIFYING,
        **_AGAIN,
    },
    _P.RETURNING: {
        M.STEP_PASSED: _P.RETURNING,
        M.LAST_STEP_PASSED: _P.SETTLING,
        M.STALE: _P.VERIFYING,
        M.UNHEALTHY: _P.LEAVING,  # Sick with users on it: out again at once, whatever the survivors then carry.
        M.INCONCLUSIVE: _P.HELD_RETURNING,
        M.STUCK: _P.HELD_RETURNING,
        M.INTERRUPTED: _P.RETURNING,
        **_AGAIN,
    },
    _P.SETTLING: {
        M.SETTLED: _P.RETURNED,
        M.UNDONE: _P.CALLED_OFF,
        M.STUCK: _P.HELD_SETTLING,
        M.INTERRUPTED: _P.SETTLING,
        M.EVACUATE: _P.PREPARING,
    },
    _P.HELD_ASKING: {M.RESUME: _P.ASKING, M.EVACUATE: _P.ASKING, M.RETURN: _P.CALLED_OFF},
    _P.HELD_LEAVING: {M.RESUME: _P.LEAVING, M.RETURN: _P.VERIFYING, **_AGAIN},
    _P.HELD_OUT: {M.RESUME: _P.VERIFYING, M.RETURN: _P.VERIFYING, **_AGAIN},
    _P.HELD_RETURNING: {M.RESUME: _P.RETURNING, M.RETURN: _P.RETURNING, **_AGAIN},
    _P.HELD_SETTLING: {M.RESUME: _P.SETTLING, M.EVACUATE: _P.PREPARING},
    _P.RETURNED: {},
    _P.CALLED_OFF: {},
}
_EFFECT_OF: Final[Mapping[Phase, str]] = {
    _P.ASKING: "admit-region",
    _P.PREPARING: "prepare-region",
    _P.LEAVING: "leave-region",
    _P.EMPTYING: "empty-region",
    _P.OUT: "stay-out",
    _P.VERIFYING: "verify-region",
    _P.RETURNING: "return-region",
    _P.SETTLING: "settle-region",
}
FINISHED: Final = frozenset({_P.RETURNED, _P.CALLED_OFF})
HELD: Final = frozenset({_P.HELD_ASKING, _P.HELD_LEAVING, _P.HELD_OUT, _P.HELD_RETURNING, _P.HELD_SETTLING})
ORDERS: Final = frozenset({M.PAUSE, M.RESUME, M.RETURN, M.EVACUATE, M.TAKE_OVER})
ORDER_REFUSED: Final = "order-refused"
_CALLED_OFF: Final = {_P.ASKING: M.RETURN, _P.PREPARING: M.UNPREPARED}
_UNLEASED: Final = frozenset({_P.ASKING, _P.HELD_ASKING})


@dataclass(frozen=True, slots=True)
class RegionState:
    """`weights`: the global tier while they are out. `scaled`: zone -> {from, to, minimum}, to be put back.

    `overrides`: rules that a person skips by name (I4). `step` counts the steps of the return. `calling_off`: nothing but
    the preparations is to be undone. `asker`: a drill makes way for a person.
    `alarms`: how often it has been told that they are out for too long; `since` says since when.
    """

    run: str
    service: str
    regions: tuple[str, ...]
    policy: DeployPolicy
    since: datetime
    overrides: tuple[str, ...] = ()
    phase: Phase = Phase.ASKING
    weights: Mapping[str, int] = field(default_factory=dict, hash=False)
    scaled: Mapping[str, Json] = field(default_factory=dict, hash=False)
    steps: tuple[RampStep, ...] = ()
    step: int = 0
    calling_off: bool = False
    unasked: bool = False  # It leaves again, because it fell sick or a person says so, whatever the others then carry.
    asker: str = "person"
    paused: bool = False
    alarms: int = 0
    behind: bool = False  # Others make way for it: the admission waits for what they bring back.
    inside: tuple[str, ...] = ()  # What people have out of these regions: its leases stand in nobody's way (I1).
    contested: str = ""  # Why the lease was refused for as long as an admission lasts, until a person is told.
    note: str = ""
    reason: str = ""

    @property
    def place(self) -> str:
        """What lease and lists call it: `aws/us-east-1`, or several joined."""
        return "+".join(self.regions)

    @property
    def admit_timeout_s(self) -> float:
        """What makes way comes back in steps, and is watched: for that it waits as long as an upgrade may take."""
        return max(self.policy.admit_timeout_s, self.policy.upgrade_timeout_s if self.behind else 0.0)


def begin(
    run: str, service: str, regions: tuple[str, ...], policy: DeployPolicy, overrides: tuple[str, ...], now: datetime
) -> RegionState:
    return RegionState(run, service, regions, policy, now, overrides)


def decide(state: RegionState, facts: Facts) -> Effect | Event | None:
    """The next effect, an order, or nothing: held, ended, paused, or the kill switch is on.

    A freeze stops no evacuation, and calls a drill off that has not left yet (I14). No switch stops an alarm (I8).
    """
    if state.phase in FINISHED:
        return None
    if facts.orders:
        return _order(state, facts.orders[0])
    quiet = state.paused and state.phase is not Phase.OUT  # Its time out is minded all the same (I8).
    if state.phase in HELD or quiet or (facts.killed and not _is_late(state, facts.now)):
        return None
    if facts.frozen and state.asker == "drill" and state.phase in _CALLED_OFF:
        return Event(
            _CALLED_OFF[state.phase], evidence="refused by I14: a freeze is on, and no drill takes a region out"
        )
    return Effect(_EFFECT_OF[state.phase], args={"step": state.step})


def silent_s(state: RegionState, now: datetime) -> float:
    """For so long they may yet be out silently (I8); they are told of again and again."""
    return (state.alarms + 1) * state.policy.out_expires_s - (now - state.since).total_seconds()


def _is_late(state: RegionState, now: datetime) -> bool:
    return state.phase is Phase.OUT and silent_s(state, now) <= 0.0


def _order(state: RegionState, order: Order) -> Event:
    kind = M.RETURN if order.kind in {"abort", "restore"} else order.kind
    still = kind == M.PAUSE or (kind == M.TAKE_OVER and state.asker == "drill") or (kind == M.RESUME and state.paused)
    if kind not in ORDERS or not (still or kind in TRANSITIONS[state.phase]):
        why = f"{order.kind} makes no sense while {state.place} is {state.phase}"
        return Event(ORDER_REFUSED, evidence=why, order=order.id)
    return Event(
        kind, evidence=f"{order.kind} ordered by {order.author}: {order.reason}", args=order.args, order=order.id
    )


def apply(state: RegionState, event: Event, now: datetime) -> RegionState:
    """Fold `event` into `state`. An illegal event raises IllegalTransition and changes nothing."""
    if event.kind == ORDER_REFUSED:
        return state
    if event.kind == M.REFUSED and event.args.get("rule") == "I1":
        # The store's own word for a lease that another run holds: wait for it, and decide again on fresh facts.
        if 0 <= (now - state.since).total_seconds() < state.admit_timeout_s:
            raise IllegalTransition(f"{state.place} waits for the lease: {event.evidence}")
        return replace(state, contested=event.evidence)  # The next admission tells it to a person.
    if event.kind in {M.PAUSE, M.TAKE_OVER, M.RESUME} and (still := _still(state, event, now)) is not None:
        return still
    kind, phase = _transition(state, event)
    # What stood still stays as old as it is: neither a hold before it left nor an order makes anything known anew.
    same = phase is state.phase or kind is M.RESUME or Phase.HELD_LEAVING in {phase, state.phase}
    since = state.since if same and not (phase is Phase.ASKING and state.phase is not phase) else now
    paused = state.paused and event.order is None
    alarms = _told_by(state, now) if kind is M.EXPIRED else state.alarms if phase is Phase.OUT else 0
    moved = replace(state, phase=phase, since=since, paused=paused, alarms=alarms, note=event.evidence or state.note)
    return _told(moved, state.phase, kind, event)


def _told_by(state: RegionState, now: datetime) -> int:
    """One alarm more, and those that were missed while nobody carried the run: a day of pages at once helps nobody."""
    missed = (now - state.since).total_seconds() // max(state.policy.out_expires_s, 1.0)
    return max(state.alarms + 1, int(missed))


def _still(state: RegionState, event: Event, now: datetime) -> RegionState | None:
    """What an order is that leaves them where they stand; None for one that does not."""
    if state.phase in FINISHED:
        return None
    if event.kind == M.PAUSE:
        return replace(state, paused=True, reason=event.evidence)
    if event.kind == M.TAKE_OVER:
        return replace(state, asker="person", reason=event.evidence)
    if not state.paused or state.phase in HELD:
        return None
    since = now if state.phase is Phase.ASKING else state.since  # It goes on where it stood, and only asks anew.
    return replace(state, paused=False, since=since, overrides=_waived(state, event), reason=event.evidence)


def _waived(state: RegionState, event: Event) -> tuple[str, ...]:
    """I4: from here on it skips the rules, too, that the person's order names."""
    return tuple(sorted({*state.overrides, *cast("list[str]", event.args.get("overrides", []))}))


def _told(moved: RegionState, before: Phase, kind: M, event: Event) -> RegionState:
    """What the event says beside where they stand now."""
    match kind:
        case M.ADMITTED:
            scaled, steps = (event.args[k] for k in ("scaled", "steps"))
            assert isinstance(scaled, dict)
            steps_ = parse_steps(steps)
            return replace(moved, weights=_weights(event), scaled=scaled, steps=steps_, behind=False, reason="")
        case M.PREPARED:
            return replace(moved, unasked=False, weights=_weights(event) or moved.weights)
        case M.STEP_PASSED:
            return replace(moved, step=moved.step + 1)
        case M.VERIFIED:
            steps, scaled = event.args.get("steps"), event.args.get("scaled")
            assert scaled is None or isinstance(scaled, dict)
            planned = moved.steps if steps is None else parse_steps(steps)
            return replace(moved, step=0, steps=planned, scaled=moved.scaled if scaled is None else scaled)
        case M.SERVES:
            return replace(moved, calling_off=True, reason=event.evidence)
        case M.UNPREPARED | M.RETURN:
            # Before it has left, the weights are those of others, who may need them as they are (I3).
            early = kind is M.UNPREPARED or before is Phase.PREPARING
            return replace(moved, calling_off=early, weights={} if early else moved.weights, reason=event.evidence)
        case M.EVACUATE:
            behind = event.args.get("behind", moved.behind) is True
            # One that is leaving, or was held in that, goes on: it is no older, and no newer, for being told again.
            goes_on = before in {Phase.LEAVING, Phase.HELD_LEAVING}
            unasked = moved.unasked if goes_on else moved.phase is Phase.LEAVING
            inside = tuple(cast("list[str]", event.args.get("inside", moved.inside)))
            moved = replace(moved, calling_off=False, unasked=unasked, reason=event.evidence)
            return replace(moved, behind=behind, inside=inside, contested="", overrides=_waived(moved, event))
        case M.UNHEALTHY:
            return replace(moved, unasked=moved.phase is Phase.LEAVING, reason=event.evidence)
        case M.RESUME:
            return replace(moved, overrides=_waived(moved, event), reason=event.evidence)
        case M.REFUSED | M.STALE | M.STUCK | M.INCONCLUSIVE | M.EXPIRED:
            return replace(moved, contested="", reason=event.evidence)
        case _:
            return moved


def _weights(event: Event) -> dict[str, int]:
    weights = event.args.get("weights", {})
    assert isinstance(weights, dict)
    return {region: int(str(weight)) for region, weight in weights.items()}


def _transition(state: RegionState, event: Event) -> tuple[M, Phase]:
    try:
        kind = meaning(state, M(event.kind))
        return kind, TRANSITIONS[state.phase][kind]
    except ValueError:
        raise IllegalTransition(f"{event.kind} is no event of a region") from None
    except KeyError:
        raise IllegalTransition(f"{state.place}: {event.kind} while {state.phase}") from None


def meaning(state: RegionState, kind: M) -> M:
    if kind is M.STEP_PASSED and state.step + 1 >= len(state.steps):
        return M.LAST_STEP_PASSED
    if kind is M.SETTLED and state.calling_off:
        return M.UNDONE
    return kind


def leased_place(state: RegionState) -> str | None:
    """I1: from the admission until the return is verified and what was prepared is put back."""
    return None if state.phase in _UNLEASED or state.phase in FINISHED else state.place


def way_back(regions: tuple[str, ...]) -> str:
    """The command that brings them back. All regions of a cloud left together, and come back together."""
    where = regions[0] if len(regions) == 1 else f"--cloud {regions[0].split('/')[0]}"
    return f"failout region return {where} --reason ..."


def where_it_stands(state: RegionState) -> str:
    """How many of its usual users it has there, as far as the run knows: what resolvers hold lives on for the TTL."""
    match state.phase:
        case Phase.LEAVING | Phase.HELD_LEAVING:
            share = "between 100% and 0%"
        case Phase.EMPTYING | Phase.OUT | Phase.VERIFYING | Phase.HELD_OUT:
            share = "at 0%"
        case Phase.RETURNING | Phase.HELD_RETURNING:
            before, at = state.steps[state.step - 1 : state.step], state.steps[state.step : state.step + 1]
            least, most = (before[0].share if before else 0.0), (at[0].share if at else 1.0)
            share = f"between {least:.0%} and {most:.0%} (step {state.step + 1} of {len(state.steps) or 1})"
        case _:
            share = "at 100%"
    return f"{state.place} stands {share} of its usual users, {state.phase}"


def status(state: RegionState) -> str:
    """One word for lists: paused, held, out, or what the run is about."""
    if state.phase in FINISHED:
        return "succeeded" if state.phase is Phase.RETURNED else "aborted"
    if state.paused:
        return "paused"
    if state.phase in HELD:
        return "held"
    return "out" if state.phase is Phase.OUT else "active"
