"""The runbook machine: what may happen to a run and to each of its steps.

The row of a run holds its steps whole, so that a document may change under a run that waits for an answer. `decide`
names the step to perform, `apply` folds its outcome in; every transition stands in RUN_TRANSITIONS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from orchestrator.core.errors import IllegalTransition
from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.script import END, Do, OnFailure, Runbook, Step, bind

VISITS_MAX: Final = 5  # A step that is entered more often than this goes round in circles.


class RunbookStatus(StrEnum):
    ACTIVE = "active"
    WAITING = "waiting"  # A question is open: approve or deny.
    PAUSED = "paused"
    HELD = "held"  # A step failed and a person must choose: resume (try it again), skip, abort.
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


FINISHED: Final = frozenset({RunbookStatus.SUCCEEDED, RunbookStatus.FAILED, RunbookStatus.ABORTED})


class StepState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class K(StrEnum):
    """Everything that can happen to a run."""

    STEP_DONE = "step-done"
    STEP_SKIPPED = "step-skipped"  # Its `when` did not hold.
    STEP_FAILED = "step-failed"  # What it means is the step's on_failure: one of the four below.
    STEP_STOPPED = "step-stopped"
    STEP_PASSED_OVER = "step-passed-over"
    STEP_LEFT = "step-left"  # goto
    STEP_HELD = "step-held"
    ASKED = "asked"
    INTERRUPTED = "interrupted"
    COMPLETE = "complete"
    APPROVE = "approve"
    DENY = "deny"
    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    ABORT = "abort"


_S = RunbookStatus
_FAILURES: Final = {
    K.STEP_STOPPED: _S.FAILED,
    K.STEP_PASSED_OVER: _S.ACTIVE,
    K.STEP_LEFT: _S.ACTIVE,
    K.STEP_HELD: _S.HELD,
}
_MEANING: Final[Mapping[OnFailure, K]] = {
    OnFailure.STOP: K.STEP_STOPPED,
    OnFailure.CONTINUE: K.STEP_PASSED_OVER,
    OnFailure.GOTO: K.STEP_LEFT,
    OnFailure.ASK: K.STEP_HELD,
}

RUN_TRANSITIONS: Final[Mapping[RunbookStatus, Mapping[K, RunbookStatus]]] = {
    _S.ACTIVE: {
        K.STEP_DONE: _S.ACTIVE,
        K.STEP_SKIPPED: _S.ACTIVE,
        K.ASKED: _S.WAITING,
        K.INTERRUPTED: _S.ACTIVE,
        K.COMPLETE: _S.SUCCEEDED,
        K.PAUSE: _S.PAUSED,
        K.ABORT: _S.ABORTED,
        **_FAILURES,
    },
    _S.WAITING: {
        K.APPROVE: _S.ACTIVE,
        K.INTERRUPTED: _S.WAITING,
        K.PAUSE: _S.PAUSED,
        K.ABORT: _S.ABORTED,
        **_FAILURES,  # Denied, or nobody answered in time.
    },
    _S.PAUSED: {K.RESUME: _S.ACTIVE, K.ABORT: _S.ABORTED},
    _S.HELD: {K.RESUME: _S.ACTIVE, K.SKIP: _S.ACTIVE, K.PAUSE: _S.PAUSED, K.ABORT: _S.ABORTED},
    _S.SUCCEEDED: {},
    _S.FAILED: {},
    _S.ABORTED: {},
}
ORDERS: Final = frozenset({K.APPROVE, K.DENY, K.PAUSE, K.RESUME, K.SKIP, K.ABORT})
ORDER_REFUSED: Final = "order-refused"


@dataclass(frozen=True, slots=True)
class StepProgress:
    """`visits` counts how often it was entered: tries, and ways back to it. `since`: when it was entered, then when it ended."""

    state: StepState = StepState.PENDING
    visits: int = 1
    evidence: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunbookState:
    """`run` is its own id; `at` the step to perform, equal to the number of steps when there is none left."""

    run: str
    runbook: str
    title: str
    digest: str
    service: str
    parameters: Mapping[str, str] = field(hash=False)
    steps: tuple[Step, ...]
    progress: tuple[StepProgress, ...]
    at: int = 0
    status: RunbookStatus = RunbookStatus.ACTIVE
    reason: str = ""

    def step(self) -> Step | None:
        return self.steps[self.at] if self.at < len(self.steps) else None


def begin(runbook: Runbook, run: str, service: str, given: Mapping[str, str], now: datetime) -> RunbookState:
    """Start a run with these parameters. Raises Rejected when one is unknown or missing."""
    steps = bind(runbook, given)
    values = {p.name: p.default for p in runbook.parameters if p.default is not None} | dict(given)
    progress = tuple(StepProgress(since=None if i else now) for i, _ in enumerate(steps))
    return RunbookState(run, runbook.id, runbook.title, runbook.digest, service, values, steps, progress)


def effect_kind(runbook: str, step: str) -> str:
    """The name under which the store remembers how long this very step takes."""
    return f"{runbook}/{step}"


def decide(state: RunbookState, facts: Facts) -> Effect | Event | None:
    """The step to perform, an event (an order, the end), or nothing while a person must choose or the kill switch is on."""
    if state.status in FINISHED:
        return None
    if facts.orders:
        return _order(state, facts.orders[0])
    if state.status in {_S.PAUSED, _S.HELD} or facts.killed:
        return None
    step = state.step()
    if step is None:
        return Event(K.COMPLETE, evidence=_summary(state))
    args = {"index": state.at, "visit": state.progress[state.at].visits}
    if step.kind is Do.ASK and state.status is _S.ACTIVE:
        return Effect("ask", args=args)
    return Effect(effect_kind(state.runbook, step.name), args=args)


def _summary(state: RunbookState) -> str:
    count = {s: sum(p.state is s for p in state.progress) for s in StepState}
    told = f"{count[StepState.DONE]} of {len(state.steps)} steps done"
    told += f", {count[StepState.SKIPPED]} not needed" if count[StepState.SKIPPED] else ""
    failed = [s.name for s, p in zip(state.steps, state.progress, strict=True) if p.state is StepState.FAILED]
    return told + (f", failed: {', '.join(failed)}" if failed else "")


def _order(state: RunbookState, order: Order) -> Event:
    allowed = RUN_TRANSITIONS[state.status]
    kind = K(order.kind) if order.kind in ORDERS else None
    if kind is None or (kind not in allowed and not (kind is K.DENY and state.status is _S.WAITING)):
        why = f"{order.kind} makes no sense while the run is {state.status}"
        return Event(ORDER_REFUSED, evidence=why, order=order.id)
    return Event(kind, evidence=f"{order.kind} by {order.author}: {order.reason}", order=order.id)


def apply(state: RunbookState, event: Event, now: datetime) -> RunbookState:
    """Fold `event` into `state`. An illegal event raises IllegalTransition and changes nothing."""
    if event.kind == ORDER_REFUSED:
        return state
    try:
        given = K(event.kind)
    except ValueError:
        raise IllegalTransition(f"{event.kind} is no event of a runbook") from None
    kind = _meaning(state, given)
    try:
        status = RUN_TRANSITIONS[state.status][kind]
    except KeyError:
        raise IllegalTransition(f"runbook {state.runbook}: {given} while {state.status}") from None
    return _after(replace(state, status=status), kind, event, now)


def _meaning(state: RunbookState, kind: K) -> K:
    """A failure and a denial mean what the step's on_failure says; going round in circles is a failure that stops."""
    if kind not in {K.STEP_FAILED, K.DENY}:
        return kind
    if kind is K.DENY and state.status is not _S.WAITING:
        return kind
    step = state.step()
    if step is None:
        return kind
    if step.on_failure is OnFailure.GOTO and step.goto != END:
        target = _index(state, step.goto)
        if target <= state.at and state.progress[target].visits >= VISITS_MAX:
            return K.STEP_STOPPED
    return _MEANING[step.on_failure]


def _after(state: RunbookState, kind: K, event: Event, now: datetime) -> RunbookState:
    step, told = state.step(), event.evidence
    if kind in {K.ASKED, K.INTERRUPTED, K.COMPLETE, K.PAUSE, K.ABORT} or step is None:
        return replace(state, reason=told if kind is not K.INTERRUPTED else state.reason)
    match kind:
        case K.STEP_DONE | K.APPROVE:
            return _go(_mark(state, StepState.DONE, told, now), step.then, now)
        case K.STEP_SKIPPED | K.SKIP:
            return _go(_mark(state, StepState.SKIPPED, told, now), "", now)
        case K.RESUME:
            again = state.progress[state.at].state is StepState.FAILED
            return replace(_enter(state, state.at, now) if again else state, reason="")
        case K.STEP_PASSED_OVER:
            return _go(_mark(state, StepState.FAILED, told, now), "", now)
        case K.STEP_LEFT:
            return _go(_mark(state, StepState.FAILED, told, now), step.goto, now)
        case _:
            return replace(_mark(state, StepState.FAILED, told, now), reason=f"{step.name}: {told}")


def _mark(state: RunbookState, to: StepState, evidence: str, now: datetime) -> RunbookState:
    here = replace(state.progress[state.at], state=to, evidence=evidence, since=now)
    return replace(state, progress=(*state.progress[: state.at], here, *state.progress[state.at + 1 :]), reason="")


def _go(state: RunbookState, name: str, now: datetime) -> RunbookState:
    """To the step of that name, to the next one (""), or to the end."""
    target = state.at + 1 if not name else len(state.steps) if name == END else _index(state, name)
    return _enter(state, target, now)


def _enter(state: RunbookState, target: int, now: datetime) -> RunbookState:
    """To a step, ahead or back: it, and those behind it, are to be performed (anew)."""
    progress = tuple(
        replace(
            p,
            state=StepState.PENDING,
            visits=p.visits + (p.state is not StepState.PENDING),
            since=now if i == target else p.since,
        )
        if i >= target
        else p
        for i, p in enumerate(state.progress)
    )
    return replace(state, at=target, progress=progress)


def _index(state: RunbookState, name: str) -> int:
    return next(i for i, step in enumerate(state.steps) if step.name == name)
