"""The runbook machine, exhaustively: every outcome of every step and every order, at every moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.core import runbook
from orchestrator.core.errors import IllegalTransition
from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.runbook import (
    FINISHED,
    ORDERS,
    RUN_TRANSITIONS,
    VISITS_MAX,
    K,
    RunbookState,
    RunbookStatus,
    StepProgress,
    StepState,
    apply,
    decide,
)
from orchestrator.core.runbook_row import dump, parse
from orchestrator.core.script import Do, Look, OnFailure, Step

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = (
    Step("look", Do.VERIFY, look=Look("zones-steady"), on_failure=OnFailure.CONTINUE),
    Step("ask", Do.ASK, "really?", when=Look("frozen"), on_failure=OnFailure.GOTO, goto="back"),
    Step("act", Do.DO, "deploy", {"version": "v2"}, when=Look("frozen", negated=True), on_failure=OnFailure.ASK),
    Step("again", Do.WAIT, look=Look("zones-ready"), on_failure=OnFailure.GOTO, goto="look", then="end"),
    Step("back", Do.DO, "deployments rollback"),
)


def start(denied: OnFailure = OnFailure.GOTO) -> RunbookState:
    """`denied`: what a no to the question means."""
    steps = tuple(replace(s, on_failure=denied) if s.kind is Do.ASK else s for s in STEPS)
    progress = tuple(StepProgress() for _ in steps)
    return RunbookState("run-1", "mend", "Mend", "abc", "gates", {"zone": "aws/us-east-1a"}, steps, progress)


def outcomes(state: RunbookState, effect: Effect) -> list[K]:
    """What orchestrator/workflows/runbook.py may answer, and nothing else."""
    step = state.step()
    assert step is not None
    if effect.kind == "ask":
        return [K.ASKED, K.STEP_FAILED, K.INTERRUPTED, *([K.STEP_SKIPPED] if step.when else [])]
    if step.kind is Do.ASK:
        return [K.INTERRUPTED, K.STEP_FAILED]
    return [K.STEP_DONE, K.STEP_FAILED, K.INTERRUPTED, *([K.STEP_SKIPPED] if step.when else [])]


def successors(state: RunbookState) -> Iterator[tuple[str, RunbookState]]:
    for kind in sorted(ORDERS):
        event = decide(state, Facts(NOW, (Order(1, kind, "ada", "because", NOW),)))
        if isinstance(event, Event):
            yield event.kind, apply(state, event, NOW)
    chosen = decide(state, Facts(NOW))
    if isinstance(chosen, Event):
        yield chosen.kind, apply(state, chosen, NOW)
    elif chosen is not None:
        for kind in outcomes(state, chosen):
            yield kind, apply(state, Event(kind, evidence="seen"), NOW)


def shape(state: RunbookState) -> RunbookState:
    """Without prose."""
    progress = tuple(replace(p, evidence="", since=None) for p in state.progress)
    return replace(state, reason="", progress=progress)


@pytest.fixture(scope="module")
def edges() -> dict[RunbookState, list[tuple[str, RunbookState]]]:
    found: dict[RunbookState, list[tuple[str, RunbookState]]] = {}
    todo = deque(shape(start(denied)) for denied in OnFailure)
    while todo:
        state = todo.popleft()
        if state in found:
            continue
        # Tries by hand have no bound: those up to here stand for all of them.
        found[state] = [] if max(p.visits for p in state.progress) > VISITS_MAX + 1 else list(successors(state))
        todo.extend(shape(after) for _, after in found[state])
    return found


Edges = dict[RunbookState, list[tuple[str, RunbookState]]]


def test_every_transition_of_the_table_is_taken(edges: Edges) -> None:
    """What cannot be reached may not stand in the table."""
    taken = set()
    for state, after in edges.items():
        for kind, _ in after:
            if kind != runbook.ORDER_REFUSED:
                taken.add((state.status, runbook._meaning(state, K(kind))))
    assert {(s, k) for s, events in RUN_TRANSITIONS.items() for k in events} == taken


def test_from_every_state_a_person_can_end_it(edges: Edges) -> None:
    for state, after in edges.items():
        if state.status not in FINISHED and after:
            assert K.ABORT in {kind for kind, _ in after}


def test_an_end_needs_no_lease_and_nothing_follows(edges: Edges) -> None:
    ends = [s for s in edges if s.status in FINISHED]
    assert {RunbookStatus.SUCCEEDED, RunbookStatus.FAILED, RunbookStatus.ABORTED} == {s.status for s in ends}
    assert all(decide(s, Facts(NOW)) is None for s in ends)


def test_a_question_is_passed_by_an_approval_only(edges: Edges) -> None:
    for state, after in edges.items():
        for kind, then in after:
            if state.progress[1].state is not StepState.DONE and then.progress[1].state is StepState.DONE:
                assert (RunbookStatus.WAITING, K.APPROVE) == (state.status, kind)


def test_a_circle_ends_by_itself(edges: Edges) -> None:
    """`again` goes back to `look` at most VISITS_MAX times without a person."""
    state = start()
    for _ in range(100):
        chosen = decide(state, Facts(NOW))
        if chosen is None:
            break
        if isinstance(chosen, Event):
            state = apply(state, chosen, NOW)
        elif chosen.kind == "ask":
            state = apply(state, Event(K.ASKED), NOW)
        elif state.status is RunbookStatus.WAITING:
            state = apply(state, Event(K.APPROVE), NOW)
        else:
            failing = state.steps[state.at].name == "again"
            state = apply(state, Event(K.STEP_FAILED if failing else K.STEP_DONE, evidence="seen"), NOW)
    assert (RunbookStatus.FAILED, "again: seen") == (state.status, state.reason)
    assert VISITS_MAX == state.progress[0].visits


def test_a_held_or_paused_run_does_nothing_until_a_person_speaks(edges: Edges) -> None:
    for state in edges:
        if state.status in {RunbookStatus.HELD, RunbookStatus.PAUSED}:
            assert decide(state, Facts(NOW)) is None


def test_i14_the_kill_switch_stops_every_step(edges: Edges) -> None:
    assert all(decide(s, Facts(NOW, killed=True)) is None for s in edges)


def test_every_state_survives_its_row_steps_and_all(edges: Edges) -> None:
    for state in list(edges)[:300]:
        assert state == parse(dump(state))
        assert dict(STEPS[2].args) == dict(parse(dump(state)).steps[2].args)


def test_what_makes_no_sense_is_refused_and_changes_nothing() -> None:
    event = decide(start(), Facts(NOW, (Order(7, "approve", "ada", "because", NOW),)))
    assert isinstance(event, Event)
    assert ("order-refused", 7) == (event.kind, event.order)
    assert start() == apply(start(), event, NOW)
    with pytest.raises(IllegalTransition):
        apply(start(), Event(K.APPROVE), NOW)
    with pytest.raises(IllegalTransition):
        apply(start(), Event("dance"), NOW)


def test_the_store_remembers_a_step_by_its_own_name() -> None:
    chosen = decide(start(), Facts(NOW))
    assert isinstance(chosen, Effect)
    assert "mend/look" == chosen.kind
