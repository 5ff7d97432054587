"""The outing machine, exhaustively: I1, I8, I9, I10, I13 and I14 over every state that can be reached."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from core.explore_outing import LATE, NOW, ask, explore, order, outcome, start
from core.exploring import Explored

from orchestrator.core import outing
from orchestrator.core.errors import IllegalTransition
from orchestrator.core.machine import Effect, Event, Facts
from orchestrator.core.outing import ALARM_EVERY_S, Ask, Asker, Mode, OutingState, apply, decide
from orchestrator.core.outing_row import OutingMachine, dump, parse
from orchestrator.core.outing_table import FINISHED, HELD, TRANSITIONS, OutingEvent, Stage
from orchestrator.core.policy import OnExpiry

MACHINE = OutingMachine()
ASKS = [
    ask(),
    ask(on_expiry=OnExpiry.RESTORE),
    ask(Mode.EVACUATE),
    ask(asker=Asker.DRILL, on_expiry=OnExpiry.RESTORE),
    replace(ask(Mode.EVACUATE), overrides=("I1",)),
]
V = OutingEvent


@pytest.fixture(scope="module", params=ASKS, ids=["drain", "drain, restore", "evacuate", "drill", "overridden"])
def found(request: pytest.FixtureRequest) -> Explored[OutingState]:
    return explore(request.param)


def test_i1_a_lease_is_held_from_admission_to_the_end_unless_it_is_lent(found: Explored[OutingState]) -> None:
    for state in found.states:
        waits_or_ended = state.stage in {Stage.WAITING, Stage.LENT, *FINISHED}
        assert waits_or_ended == (MACHINE.leased_zone(state) is None)


def test_i1_only_the_dead_and_the_overridden_go_beyond_the_slots(found: Explored[OutingState]) -> None:
    assert all(s.dead or "I1" in s.ask.overrides for s in found.states if MACHINE.extra_slot(s))


def test_i10_an_evacuation_asks_for_nothing_but_the_lease_before_it_empties_the_zone() -> None:
    state = start(ask(Mode.EVACUATE))
    for facts in (Facts(NOW), Facts(NOW, frozen=True), Facts(NOW, killed=True)):
        first = decide(state, facts)
        assert Event(V.GO, "a", "evacuation asked for") == first
        assert isinstance(first, Event)
        assert Effect("evacuate", "a", {"step": 0}) == decide(apply(state, first, NOW), facts)


def test_i1_a_refused_lease_is_asked_for_again_only_after_a_look_also_where_i1_is_overridden() -> None:
    """Another run had that very zone: the outing asked the store as fast as that could answer. Seed 1796025962185."""
    wanted = replace(ask(Mode.EVACUATE), overrides=("I1",))
    contested = apply(start(wanted), Event(V.REFUSED, "a", "refused by I1"), NOW)
    assert Effect("triage", "a") == decide(contested, Facts(NOW))


def test_i13_from_every_state_the_outing_can_still_end(found: Explored[OutingState]) -> None:
    assert found.stuck() == []


def test_i13_abort_is_accepted_in_every_unfinished_state(found: Explored[OutingState]) -> None:
    for state in found.states:
        event = decide(state, Facts(NOW, (order("abort"),)))
        assert state.stage in FINISHED or (isinstance(event, Event) and event.kind == V.RESTORE)


def test_a_paused_or_held_outing_does_nothing_until_a_person_speaks_but_is_still_told_of(
    found: Explored[OutingState],
) -> None:
    for state in found.states:
        chosen = decide(state, Facts(NOW))
        if state.paused or state.stage in HELD:
            assert chosen is None
        if (state.paused or state.stage in HELD) and state.stage is not Stage.WAITING:
            late = decide(replace(state, alarms=0), Facts(LATE))
            assert Effect("alarm", "a") == late


def test_i9_only_what_left_healthy_and_kept_its_version_returns_in_one_step(found: Explored[OutingState]) -> None:
    for before, kind, after in found.steps():
        if kind == V.RETURN_PLANNED:
            assert (1 if before.sound and before.goal == "v1" else 2) == len(after.steps)


def test_i9_a_zone_that_fails_on_its_way_back_is_emptied_at_once_and_waits_for_a_person(
    found: Explored[OutingState],
) -> None:
    for before, kind, after in found.steps():
        if before.stage is Stage.RAMPING and kind == V.UNHEALTHY:
            assert (Stage.EVACUATING, True, False) == (after.stage, after.sick, after.sound)
        if before.stage is Stage.OUT and before.sick:
            assert kind not in {V.DUE, V.EXPIRED}
        if before.sick and not after.sick:
            assert kind in {V.RESTORE, V.RESUME}


def test_every_state_survives_its_row(found: Explored[OutingState]) -> None:
    assert all(state == parse(dump(state)) for state in found.states)


def test_every_transition_of_the_table_is_taken_and_no_other() -> None:
    taken: set[tuple[Stage, OutingEvent]] = set()
    for wanted in ASKS:
        for before, kind, after in explore(wanted).steps():
            if kind not in set(OutingEvent):
                continue
            stages = TRANSITIONS[before.stage]
            taken |= {(before.stage, k) for k in stages if _means(before, OutingEvent(kind), k)}
            assert after.stage in {before.stage, *stages.values()}
    table = {(stage, kind) for stage, kinds in TRANSITIONS.items() for kind in kinds}
    assert table - taken == set()


def _means(state: OutingState, raised: OutingEvent, meant: OutingEvent) -> bool:
    return outing.meaning(state, raised) is meant


def test_an_illegal_event_raises_and_changes_nothing() -> None:
    state = start(ask())
    for event in (Event(V.DRAINED, "a"), Event("no-such-event", "a")):
        with pytest.raises(IllegalTransition):
            apply(state, event, NOW)
    assert start(ask()) == state


# ---- I8: time


def out(wanted: Ask) -> OutingState:
    state = start(wanted)
    for effect, kind in (("admit", V.ADMITTED), ("prepare", V.PREPARED), ("drain", V.DRAINED)):
        state = apply(state, outcome(Effect(effect, "a"), kind), NOW)
    return state


def test_i8_it_is_told_at_80_percent_at_its_end_and_every_quarter_of_an_hour_after() -> None:
    state = out(ask())
    at = lambda minutes: decide(state, Facts(NOW + timedelta(minutes=minutes)))  # noqa: E731
    assert (None, Effect("warn", "a")) == (at(95), at(96))
    state = apply(state, Event(V.WARNED, "a"), NOW)
    assert (None, Effect("alarm", "a")) == (at(119), at(120))
    state = apply(state, Event(V.ALARMED, "a"), NOW)
    assert (None, Effect("alarm", "a")) == (at(134), at(120 + ALARM_EVERY_S / 60))
    state = apply(state, Event(V.ALARMED, "a"), NOW + timedelta(days=1))
    assert None is at(24 * 60 + 1), "what it missed while nobody carried it is told once"
    assert Effect("alarm", "a") == at(24 * 60 + ALARM_EVERY_S / 60)
    assert "held" == MACHINE.status(state)


def test_i8_with_policy_restore_it_comes_back_once_it_is_told() -> None:
    state = apply(out(ask(on_expiry=OnExpiry.RESTORE)), Event(V.ALARMED, "a"), NOW)
    event = decide(state, Facts(NOW + timedelta(hours=2)))
    assert isinstance(event, Event)
    assert (V.EXPIRED, Stage.RETURNING) == (event.kind, apply(state, event, NOW).stage)


def test_i8_an_extension_starts_its_time_anew() -> None:
    state = apply(out(ask()), Event(V.ALARMED, "a"), NOW)
    later = NOW + timedelta(hours=5)
    until = Event(V.EXTEND, "a", args={"expires_at": later.isoformat()}, order=1)
    extended = apply(state, until, NOW)
    assert (later, 0, "out") == (extended.ask.expires_at, extended.alarms, MACHINE.status(extended))
    assert decide(extended, Facts(NOW + timedelta(hours=3))) is None


def test_i14_the_kill_switch_stops_returns_that_only_a_clock_asks_for_and_never_a_person() -> None:
    killed = Facts(NOW + timedelta(hours=2), killed=True)
    expired = apply(out(ask(on_expiry=OnExpiry.RESTORE)), Event(V.ALARMED, "a"), NOW)
    drill = apply(out(ask(asker=Asker.DRILL)), Event(V.ALARMED, "a"), NOW)
    assert (None, None) == (decide(expired, killed), decide(drill, killed))
    restored = decide(expired, Facts(killed.now, (order("restore"),), killed=True))
    assert isinstance(restored, Event)
    going = decide(apply(expired, restored, NOW), killed)
    assert Effect("plan-return", "a", {"step": 0}) == going


def test_i14_a_freeze_refuses_what_has_not_begun_unless_overridden_and_nothing_else() -> None:
    frozen = Facts(NOW, frozen=True)
    refused = decide(start(ask()), frozen)
    assert isinstance(refused, Event)
    assert (V.REFUSED, "refused") == (refused.kind, MACHINE.status(apply(start(ask()), refused, NOW)))
    assert Effect("admit", "a") == decide(start(replace(ask(), overrides=("I14",))), frozen)
    returning = apply(out(ask()), Event(V.RESTORE, "a", order=1), NOW)
    assert decide(returning, Facts(NOW)) == decide(returning, frozen)


def test_i14_a_freeze_calls_a_drill_off_that_has_not_left_and_lets_a_person_go_on() -> None:
    """The freeze came while survivors were scaled, and the drill then emptied its zone. Seeds 1796025855, 1796036470."""
    for asker, kind in ((Asker.DRILL, V.UNPREPARED), (Asker.PERSON, "prepare")):
        preparing = apply(start(ask(asker=asker)), outcome(Effect("admit", "a"), V.ADMITTED), NOW)
        chosen = decide(preparing, Facts(NOW, frozen=True))
        assert chosen is not None
        assert kind == chosen.kind


def test_i1_a_contested_evacuation_asks_whether_the_zone_is_dead_and_only_then_goes_beyond_the_slots() -> None:
    waiting = apply(start(ask(Mode.EVACUATE)), Event(V.REFUSED, "a", "b is out"), NOW)
    assert Effect("triage", "a") == decide(waiting, Facts(NOW))
    sound = apply(waiting, Event(V.SOUND, "a"), NOW)
    dead = apply(waiting, Event(V.DEAD, "a"), NOW)
    assert (Stage.EVACUATING, False) == (sound.stage, MACHINE.extra_slot(sound))
    assert (Stage.EVACUATING, True) == (dead.stage, MACHINE.extra_slot(dead))
