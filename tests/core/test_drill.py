"""The drill machine, exhaustively, and what it is decided by: I1, I3, I11, I14 and I15 over every state that can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from core.exploring import Explored, explored
from core.proof_facts import ZONES, topology

from orchestrator.core.drill import (
    FINISHED,
    ORDERS,
    TRANSITIONS,
    Choice,
    DrillEvent,
    DrillPolicy,
    DrillState,
    Phase,
    Wish,
    apply,
    begin,
    choose,
    decide,
    reason_survivors_fail,
)
from orchestrator.core.drill_row import DrillMachine, dump, parse
from orchestrator.core.errors import IllegalTransition, Rejected
from orchestrator.core.guards import ZoneLoad
from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.outing import Mode
from orchestrator.core.standing import RegionStanding, Standing, State

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
V = DrillEvent
WISH = Wish("aws/a", "zone", Mode.DRAIN, DrillPolicy(("users",), ("pages",)), "ada", "a test", "nightly")

# What the performer may answer for each effect (orchestrator/workflows/drill.py), and nothing else.
OUTCOMES = {
    "check": (V.CHECKED, V.REFUSED, V.INTERRUPTED),
    "begin": (V.BEGUN, V.REFUSED, V.STALE, V.INTERRUPTED),
    "watch": (V.OVER, V.OUTCOME_BAD, V.STOPPED, V.REFUSED, V.INTERRUPTED),
    "return": (V.RETURNED, V.NOT_RETURNED, V.OUTCOME_BAD, V.INTERRUPTED),
}


def order(kind: str) -> Order:
    return Order(1, kind, "eve", "lunch", NOW)


def ordered(state: DrillState, kind: str) -> Event:
    event = decide(state, Facts(NOW, (order(kind),)))
    assert isinstance(event, Event)
    return event


def successors(state: DrillState) -> Iterator[tuple[Event, DrillState]]:
    for kind in sorted({*ORDERS, "rollback"}):
        event = decide(state, Facts(NOW, (order(kind),)))
        if isinstance(event, Event):
            yield event, apply(state, event, NOW)
    for frozen in (False, True):
        chosen = decide(state, Facts(NOW, frozen=frozen))
        if isinstance(chosen, Event):
            yield chosen, apply(state, chosen, NOW)
        elif chosen is not None:
            for kind in OUTCOMES[chosen.kind]:
                event = Event(kind, "aws/a", "seen")
                yield event, apply(state, event, NOW)


@pytest.fixture(scope="module")
def found() -> Explored[DrillState]:
    def shape(state: DrillState) -> DrillState:
        return replace(state, note="", reason="", since=NOW)

    return explored(begin("d", "gates", WISH, NOW), successors, shape, lambda s: s.phase in FINISHED)


def test_every_transition_is_reached_and_from_every_state_the_drill_can_end(found: Explored[DrillState]) -> None:
    reached = {(before.phase, kind) for before, kind, _ in found.steps()} - {
        (p, kind) for p in Phase for kind in ("order-refused", V.PAUSE, V.RESUME)
    }
    listed = {(phase, str(kind)) for phase, kinds in TRANSITIONS.items() for kind in kinds}
    assert listed == reached
    assert [] == found.stuck()


def test_i15_nothing_is_begun_that_was_not_checked_and_nothing_succeeds_that_was_bad(
    found: Explored[DrillState],
) -> None:
    for before, kind, after in found.steps():
        if after.phase is Phase.BEGINNING:
            assert before.phase in {Phase.CHECKING, Phase.BEGINNING}
        if kind == V.OUTCOME_BAD:
            assert (Phase.RETURNING, Phase.FAILED) == (after.phase, after.verdict)
        if before.verdict is not Phase.SUCCEEDED:
            assert after.phase is not Phase.SUCCEEDED


def test_i13_while_it_is_paused_only_an_order_moves_it_and_a_resume_makes_nothing_known_anew(
    found: Explored[DrillState],
) -> None:
    """`failout state restore` said that a drill is paused, whose machine knew no pause: it began on what the copy knew."""
    paused = {s for s in found.states if s.paused}
    assert {p for p in Phase if p not in FINISHED} == {s.phase for s in paused}
    later = NOW + timedelta(hours=1)
    for state in paused:
        for frozen, killed in ((False, False), (True, False), (False, True)):
            assert decide(state, Facts(later, frozen=frozen, killed=killed)) is None
        resumed, aborted = (apply(state, ordered(state, kind), later) for kind in ("resume", "abort"))
        assert replace(state, paused=False, note=resumed.note) == resumed, (
            "since when it stands there stays known (I15)"
        )
        back = Phase.INTERRUPTED if state.phase is Phase.CHECKING else Phase.RETURNING
        assert (False, back) == (aborted.paused, aborted.phase)


def test_a_pause_tells_that_nobody_watches_and_a_resume_needs_a_pause() -> None:
    state = replace(begin("d", "gates", WISH, NOW), phase=Phase.WATCHING)
    told = ordered(state, "pause").evidence
    back = "failout deployments abort d --reason ... brings aws/a back"
    assert f"pause ordered by eve: lunch; nobody reads its signals meanwhile: {back}" == told
    refused = ordered(state, "resume")
    why = "resume makes no sense for a drill that is not paused; abort brings aws/a back"
    assert ("order-refused", why) == (refused.kind, refused.evidence)


def test_i11_a_row_that_was_written_before_drills_could_be_paused_is_read() -> None:
    row = dump(begin("d", "gates", WISH, NOW))
    assert isinstance(row, dict)
    assert begin("d", "gates", WISH, NOW) == parse({k: v for k, v in row.items() if k != "paused"})


def test_harm_outweighs_what_interrupted_it_and_nothing_outweighs_harm(found: Explored[DrillState]) -> None:
    assert all(after.verdict is Phase.FAILED for before, _, after in found.steps() if before.verdict is Phase.FAILED)


def test_i1_the_drill_itself_holds_no_lease(found: Explored[DrillState]) -> None:
    machine = DrillMachine()
    assert {(None, False)} == {(machine.leased_zone(s), machine.extra_slot(s)) for s in found.states}
    assert {"active", "paused", *map(str, FINISHED)} == {machine.status(s) for s in found.states}


def test_i14_the_kill_switch_stops_every_effect_and_a_freeze_only_what_is_not_begun(
    found: Explored[DrillState],
) -> None:
    for state in found.states:
        assert decide(state, Facts(NOW, killed=True)) is None
        frozen = decide(state, Facts(NOW, frozen=True))
        begun = state.phase in {Phase.WATCHING, Phase.RETURNING} and not state.paused
        assert begun == isinstance(frozen, Effect)


def test_i11_a_row_read_back_is_the_state_that_was_written(found: Explored[DrillState]) -> None:
    assert all(parse(dump(state)) == state for state in found.states)
    with pytest.raises(Rejected, match="schema 2"):
        parse({**dump(begin("d", "gates", WISH, NOW)), "schema": 2})  # type: ignore[dict-item]


def test_an_event_that_the_phase_does_not_expect_is_refused_and_changes_nothing() -> None:
    state = begin("d", "gates", WISH, NOW)
    for kind in ("returned", "no such event"):
        with pytest.raises(IllegalTransition):
            apply(state, Event(kind), NOW)
    refused = decide(state, Facts(NOW, (order("rollback"),)))
    assert isinstance(refused, Event)
    assert ("rollback makes no sense for a drill; abort brings aws/a back", state) == (refused.evidence, apply(state, refused, NOW))  # fmt: skip


# ---- choosing


def stand(zone: str, state: State, age_days: float | None = None, strength: float | None = None) -> Standing:
    age_s = None if age_days is None else age_days * 86400
    proof = None if age_days is None else object()
    return Standing(zone, state, proof, age_s, strength, "", None)  # type: ignore[arg-type]


STANDS = [
    stand("proven", State.PROVEN, 1, 0.9),
    stand("stale", State.STALE, 9, 0.8),
    stand("weak", State.WEAK, 2, 0.2),
    stand("broken", State.BROKEN, 30, 0.9),
]


def test_the_weakest_is_what_was_never_proven_then_what_was_proven_at_too_little_load() -> None:
    never = stand("never", State.NEVER)
    assert "never" == choose([*STANDS, never], Choice.WEAKEST)
    assert "weak" == choose(STANDS, Choice.WEAKEST)
    assert "oldest-of-weak" == choose([*STANDS, stand("oldest-of-weak", State.WEAK, 3, 0.2)], Choice.WEAKEST)


def test_the_oldest_is_what_was_never_proven_then_what_was_proven_longest_ago() -> None:
    assert "stale" == choose(STANDS, Choice.OLDEST)
    assert "never" == choose([*STANDS, stand("never", State.NEVER)], Choice.OLDEST)


def test_where_the_last_fail_out_did_harm_a_person_drills_first() -> None:
    assert choose([stand("broken", State.BROKEN, 30, 0.9)], Choice.OLDEST) is None


def test_a_region_is_as_old_as_the_last_time_when_all_of_it_was_out() -> None:
    def region(place: str, emptied_days: float | None, strength: float | None) -> RegionStanding:
        emptied_s = None if emptied_days is None else emptied_days * 86400
        return RegionStanding(place, State.PROVEN, (), 60.0, 1.0, "", emptied_s, strength)

    regions = [region("east", 3, 0.4), region("west", 9, 0.9), region("south", None, None)]
    assert "south" == choose(regions, Choice.OLDEST) == choose(regions, Choice.WEAKEST)
    assert ("west", "east") == (choose(regions[:2], Choice.OLDEST), choose(regions[:2], Choice.WEAKEST))


# ---- I3 while it lasts

PLACES = [z for zones in ZONES.values() for z in zones]


def loads(rps: float = 100.0, **healthy: int) -> dict[str, ZoneLoad]:
    return {z: ZoneLoad(z, 0.0 if z == "aws/a" else rps, 3, healthy.get(z.replace("/", "_"), 3)) for z in PLACES}


def test_i3_survivors_that_are_whole_carry_on_until_they_are_full() -> None:
    assert reason_survivors_fail(["aws/a"], loads(290.0), topology(), 0.75) is None
    assert "I3: aws/east carries 640/s over 600/s" == reason_survivors_fail(["aws/a"], loads(320.0), topology(), 0.75)


def test_i3_instances_that_are_missing_count_only_when_the_rest_exceeds_what_policy_allows() -> None:
    assert reason_survivors_fail(["aws/a"], loads(100.0, aws_b=2), topology(), 0.75) is None
    why = reason_survivors_fail(["aws/a"], loads(200.0, aws_b=2), topology(), 0.75)
    assert "I3: aws/east carries 400/s over 500/s, instances are missing in aws/b" == why


@pytest.mark.parametrize("zone", ["aws/b", "azure/1"])
def test_i3_a_survivor_in_which_nobody_answers_is_lost_wherever_it_is(zone: str) -> None:
    dead = {z: load for z, load in loads(1.0).items() if z != zone}
    told = f"survivor {zone} is lost: none of its instances answers"
    assert told == reason_survivors_fail(["aws/a"], dead, topology(), 0.75)
    assert told == reason_survivors_fail(["aws/a"], {**dead, zone: ZoneLoad(zone, 0.0, 3, 0)}, topology(), 0.75)


def test_a_drill_that_ended_has_nothing_more_to_do() -> None:
    state = replace(begin("d", "gates", WISH, NOW), phase=Phase.FAILED, since=NOW + timedelta(1))
    assert decide(state, Facts(NOW, (order("abort"),))) is None
