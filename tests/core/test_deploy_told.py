"""What a held run says is the cause, not the last thing that was done about it."""

from __future__ import annotations

from core.explore import NOW, outcome, start

from orchestrator.core.deploy import apply
from orchestrator.core.deploy_table import E, R, RunStatus
from orchestrator.core.machine import Effect, Event
from orchestrator.core.policy import OnFailure
from orchestrator.core.topology import ZoneState


def test_a_zone_that_could_not_be_prepared_holds_the_run_with_the_reason_why() -> None:
    state = apply(start(OnFailure.HOLD), outcome(Effect("admit", "a"), E.ADMITTED), NOW)
    state = apply(state, Event(E.UNPREPARED, "a", "nocapacity: no room"), NOW)
    state = apply(state, Event(E.SETTLED, "a", "what was prepared is undone"), NOW)
    assert (RunStatus.HELD, "a: nocapacity: no room") == (state.status, state.reason)


def test_a_zone_whose_drain_got_stuck_is_drained_again_when_a_person_resumes() -> None:
    """I13: it may still take traffic, so its upgrade would be refused for ever."""
    state = apply(start(OnFailure.HOLD), outcome(Effect("admit", "a"), E.ADMITTED), NOW)
    state = apply(state, outcome(Effect("prepare", "a"), E.PREPARED), NOW)
    state = apply(state, Event(E.STUCK, "a", "denied: ExpiredToken"), NOW)
    assert (RunStatus.HELD, ZoneState.HELD_OUT) == (state.status, state.zone("a").state)
    state = apply(state, Event(R.RESUME, evidence="resume ordered by ada: new credentials"), NOW)
    assert (RunStatus.ACTIVE, ZoneState.DRAINING) == (state.status, state.zone("a").state)
