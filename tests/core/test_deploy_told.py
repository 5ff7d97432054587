"""What a held run says is the cause, not the last thing that was done about it."""

from __future__ import annotations

from core.explore import NOW, outcome, start

from orchestrator.core.deploy import E, OnFailure, RunStatus, apply
from orchestrator.core.machine import Effect, Event


def test_a_zone_that_could_not_be_prepared_holds_the_run_with_the_reason_why() -> None:
    state = apply(start(OnFailure.HOLD), outcome(Effect("admit", "a"), E.ADMITTED), NOW)
    state = apply(state, Event(E.UNPREPARED, "a", "nocapacity: no room"), NOW)
    state = apply(state, Event(E.SETTLED, "a", "what was prepared is undone"), NOW)
    assert (RunStatus.HELD, "a: nocapacity: no room") == (state.status, state.reason)
