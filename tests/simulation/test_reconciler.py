"""The reconciler beside its carrier: it asks no guard, so it puts back what has just been so, and carries out no wish."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sim.checkers import NoReplacementUnderTraffic
from orchestrator.sim.faults import Fault
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Command, Cut, Hand, Scenario, Strike, Switching, good_deploy, two_clouds
from orchestrator.sim.scheduler import Scheduler
from orchestrator.sim.truth import Admin, Blow, Physics
from orchestrator.sim.world import build

KEPT = replace(good_deploy(), reconciles=True)
AWS, FIRST, OTHER = "aws/us-east-1", "aws/us-east-1a", "azure/eastus-2"


def when(result: Result, what: str, step: str) -> float:
    return next(h.at_s for h in result.trace if h.what == what and h.args.get("step") == step)


def put_back(result: Result) -> list[float]:
    return [h.at_s for h in result.trace if h.kind == "puts back"]


@pytest.mark.parametrize(
    ("step", "move", "blow", "zone"),
    [
        pytest.param("drain", "detach steady", Blow.DEAD, OTHER, id="it does not leave beside a zone that died since"),
        pytest.param("join", "attach steady", Blow.GRAY, FIRST, id="it does not come back though it fell sick since"),
        pytest.param("ramp", "attach ramp", Blow.GRAY, FIRST, id="it gets no share though it fell sick since"),
    ],
)
def test_i1_i2_a_wish_whose_run_was_stopped_before_it_came_true_waits_for_the_run(
    step: str, move: str, blow: Blow, zone: str
) -> None:
    """The wish stood in the document when the kill switch was turned; it was carried out a minute later, unasked."""
    calm = simulate(1, KEPT)
    moved_s = next(h.at_s for h in calm.trace if f"{h.kind} {h.args.get('pool')}" == move)
    free_s = moved_s + 60.0
    scene = replace(
        KEPT,
        cuts=(Cut(moved_s - 0.025, AWS, 1.0),),
        switches=(Switching(moved_s + 0.3, "kill", on=True), Switching(free_s, "kill", on=False)),
        commands=(Command(moved_s + 2.0, "pause"),),
        strikes=(Strike(moved_s + 10.0, zone, blow, 100.0, 0.5),),
    )
    result = simulate(1, scene)
    assert when(result, "interrupted", step) < free_s, "this history is about that"
    assert ([], ()) == (put_back(result), result.violations)


@pytest.mark.parametrize("after_s", [0.01, 2.0], ids=["at once, seen out by the drain only", "later"])
def test_i13_what_a_hand_puts_in_while_a_run_has_it_out_is_put_back_within_two_seconds(after_s: float) -> None:
    """Seed 1796084009453: no look of the reconciler's own lay between, and instances were replaced under users."""
    hand_s = when(simulate(1, KEPT), "effect-began", "upgrade") + after_s
    result = simulate(1, replace(KEPT, hands=(Hand(hand_s, FIRST),)))
    assert hand_s <= put_back(result)[0] <= hand_s + 2.0
    assert ("succeeded", ()) == (result.status, result.violations)


@pytest.mark.parametrize(("after_s", "blamed"), [(3.0, False), (20.0, True)], ids=["at once", "much later"])
def test_i13_the_checker_blames_no_run_for_users_that_a_hand_brought_until_they_can_have_gone(
    after_s: float, blamed: bool
) -> None:
    """The reconciler put it back, and the replacement that had begun went on under what was in flight. Seed 1796098001589."""
    scheduler = Scheduler()
    world = build(two_clouds(), scheduler, version="v1", users_rps=150.0, physics=Physics(connection_life_s=4.0))
    checker, zone = NoReplacementUnderTraffic(), world.zones[OTHER]
    world.take_by_hand(zone, out=True)
    scheduler.run(30.0)
    world.take_by_hand(zone, out=False)
    scheduler.run(31.0)
    for box in zone.boxes:
        world.set_admin(box, Admin.DOWN)
    scheduler.run(30.0 + after_s)
    zone.boxes[0].busy_until_s = world.now_s + 1.0
    checker.replaced(world, zone.boxes[0])
    assert blamed == bool(checker.violations)


def test_a_reconciler_lives_and_dies_with_its_carrier() -> None:
    """Else two would write, one of them for a process that is dead."""
    scene: Scenario = replace(KEPT, deaths=((30.0, Fault.KILL_BEFORE),), hands=(Hand(30.5, FIRST),))
    result = simulate(1, scene)
    assert all(at_s >= 30.0 + scene.restart_s for at_s in put_back(result))
    assert ("succeeded", ()) == (result.status, result.violations)


def test_i1_what_a_hand_puts_in_while_its_run_prepares_stays_until_the_guards_agree() -> None:
    """Another zone had died; before it asked a guard the run took the users away that a hand had just given it. Seed 1796100002313."""
    verified_s = when(simulate(1, good_deploy()), "verified", "verify")
    scene = replace(
        good_deploy(),
        strikes=(Strike(verified_s - 0.5, f"{AWS}c", Blow.DEAD, 200.0),),
        commands=(Command(verified_s - 0.05, "rollback"), Command(verified_s + 45.0, "retarget", "v2")),
        hands=(Hand(verified_s + 12.0, FIRST),),
    )
    result = simulate(1, scene)
    assert when(result, "unprepared", "prepare") < verified_s + 45.0, "this history is about that"
    assert () == result.violations
