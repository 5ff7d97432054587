"""What the simulator has found, each as the one history that showed it. All are mended; they stay as regressions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sim.faults import STATE, Fault
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import BRISK, Command, Cut, Scenario, Strike, Switching, good_deploy, make_topology
from orchestrator.sim.truth import Blow, Physics

AWS, AZURE = "aws/us-east-1", "azure/eastus"
HEAVY = Scenario(make_topology({AWS: 3, AZURE: 3}), users_rps=420.0)


def rules(result: Result) -> set[str]:
    return {violation.rule for violation in result.violations}


def test_the_next_zone_is_not_carried_by_instances_that_are_leaving() -> None:
    result = simulate(1, Scenario(make_topology({AWS: 4}, instances=2), users_rps=187.0))
    assert not [v for v in result.violations if v.rule == "I3" and "now 62/s on 2" in v.what]


def test_a_joining_zone_is_not_overloaded() -> None:
    result = simulate(1, Scenario(make_topology({AWS: 4}), users_rps=276.0))
    assert result.harmed["overload"] == 0


def test_scaling_back_harms_nobody_on_azure() -> None:
    result = simulate(1, HEAVY)
    assert "I16" not in rules(result)


def test_a_zone_lost_while_survivors_are_scaled_stops_the_drain() -> None:
    slow = Physics(boot_s=25.0)
    strike = Strike(4.0, f"{AZURE}-1", Blow.DARK, 100.0)
    result = simulate(1, replace(HEAVY, physics=slow, strikes=(strike,)))
    assert "I1" not in rules(result)


def test_no_zone_leaves_beside_a_gray_one() -> None:
    strike = Strike(1.0, f"{AZURE}-3", Blow.GRAY, 100.0, hard=0.3)
    assert "I2" not in rules(simulate(1, replace(good_deploy(), strikes=(strike,))))


def test_a_rollback_asks_for_capacity_too() -> None:
    result = simulate(
        1,
        Scenario(
            make_topology({AWS: 3}),
            users_rps=160.0,
            loads=((32.0, 250.0),),
            commands=(Command(31.0, "pause"), Command(60.0, "rollback")),
        ),
    )
    assert not [v for v in result.violations if v.rule == "I3" and 60.0 < v.at_s < 65.0]


@pytest.mark.parametrize("region", [AWS, AZURE])
def test_a_region_of_one_zone_is_deployed(region: str) -> None:
    other = AZURE if region == AWS else AWS
    result = simulate(1, Scenario(make_topology({region: 1, other: 3}), users_rps=100.0))
    assert (result.status, result.violations) == ("succeeded", ())


def test_an_agent_that_answers_late_does_not_hide_load() -> None:
    late = (replace(HEAVY, plan={call: Fault.SLOW}) for call in range(8, 20))
    assert not [v for scenario in late for v in simulate(1, scenario).violations if v.rule == "I3"]


def test_a_carrier_that_dies_while_the_dns_ttl_passes_leaves_its_successor_to_wait_for_it() -> None:
    """Weights that are right already were taken for load that has moved already, and the zone left under its users."""
    scene = Scenario(make_topology({AZURE: 3, "azure/westus": 2}), users_rps=226.0, full=("azure/westus-2",))
    moved_s = next(h.at_s for h in simulate(1, scene).trace if h.kind == "dns")
    result = simulate(1, replace(scene, deaths=((moved_s + 1.0, Fault.KILL_BEFORE),)))
    assert (result.status, result.violations) == ("succeeded", ())
    assert result.faults == {"kill-before": 1}


def test_survivors_stay_scaled_while_one_of_them_is_lost() -> None:
    """A zone came back, its survivors were made smaller, and what was left could not carry a region with a dead zone."""
    strike = Strike(15.0, f"{AWS}c", Blow.DARK, 200.0)
    result = simulate(1, replace(HEAVY, strikes=(strike,)))
    assert "I3" not in rules(result)
    assert result.status == "succeeded"


def test_a_drain_that_expired_while_it_waited_does_not_leave() -> None:
    """A drain waited for another zone's return for longer than its zone was to be out, and left when nobody wanted it."""
    first, late = ZoneOrder(0.0, "drain", f"{AWS}a", 100.0), ZoneOrder(0.5, "drain", f"{AZURE}-1", 20.0)
    result = simulate(1, replace(good_deploy(), zone_orders=(first, late, ZoneOrder(40.0, "restore", f"{AWS}a"))))
    told = [h for h in result.trace if h.what == "refused" and "before it left" in str(h.args.get("evidence"))]
    assert [h.args["zone"] for h in told] == [f"{AZURE}-1"]
    assert result.violations == ()


@pytest.mark.parametrize("orders", [("abort",), ("pause", "abort"), ("rollback",), ("pause", "suspend", "abort")])
def test_an_abort_ends_a_run_whose_undoing_got_stuck(orders: tuple[str, ...]) -> None:
    """What was prepared could not be undone; an abort left the zone held and the run active, with its lease, for ever."""
    full = Scenario(make_topology({AWS: 3}), users_rps=242.0, full=(f"{AWS}c",), plan={28: Fault.DENIED})
    commands = tuple(Command(60.0 + 10.0 * i, order) for i, order in enumerate(orders))
    result = simulate(1, replace(full, commands=commands))
    stuck = [h.args["step"] for h in result.trace if h.what == "stuck"]
    assert stuck == ["settle"], "this history is about that"
    assert result.violations == ()
    assert result.status in {"aborted", "rolled-back"}
    assert result.ended_s < 60.0 + 10.0 * len(orders) + 120.0


def test_a_zone_called_back_from_its_drain_and_then_ordered_twice_is_not_left_out() -> None:
    """It was joining again when a new target asked for its capacity anew; a rollback then undid only preparations."""
    killed = (Switching(2.0, "kill", on=True), Switching(60.0, "kill", on=False))
    orders = (Command(10.0, "suspend"), Command(20.0, "retarget", "v3"), Command(30.0, "rollback"))
    for at_s in (3.0, 4.0, 5.0):
        stopped = (replace(killed[0], at_s=at_s), killed[1])
        result = simulate(1, replace(good_deploy(), switches=stopped, commands=orders))
        assert (result.status, result.violations) == ("rolled-back", ())


def test_a_resume_of_a_zone_that_never_left_goes_on_undoing_its_preparations() -> None:
    """It went to the ramp for a version that it did not run, was found sick there, and was emptied at once."""
    full = Scenario(make_topology({AWS: 3}), users_rps=242.0, full=(f"{AWS}c",), plan={28: Fault.DENIED})
    result = simulate(1, replace(full, commands=(Command(60.0, "resume"),)))
    assert result.violations == ()
    told = [
        (h.args["step"], h.what) for h in result.trace if h.kind == "log" and 60.0 < h.at_s < 70.0 and "step" in h.args
    ]
    assert ("join", "joined") in told
    assert not [step for step, _ in told if step == "drain"]


def test_a_zone_that_left_at_night_returns_in_steps_in_the_morning() -> None:
    """Its steps were planned when it left, for a load that was too little to measure any but the last."""
    night = replace(good_deploy(), loads=((0.0, 6.0), (14.0, 300.0)), physics=Physics(boot_s=20.0))
    result = simulate(1, night)
    assert [h.what for h in result.trace if h.what == "admitted" and h.at_s < 14.0] == ["admitted"]
    assert (result.status, result.violations) == ("succeeded", ())


def test_a_drill_that_is_to_evacuate_leaves_a_zone_alone_that_a_person_drains() -> None:
    """It hurried that person's drain on, took the run for its own, and then looked for its own for ever."""
    drill = ZoneOrder(1.0, "evacuate", f"{AWS}a", 60.0, drill=True)
    result = simulate(
        1, replace(good_deploy(), zone_orders=(drill, ZoneOrder(2.5, "drain", f"{AWS}a", 40.0)), deploy_at_s=90.0)
    )
    assert [h.args["zone"] for h in result.trace if h.what == "evacuate" and h.kind == "log"] == []
    assert (result.status, result.violations) == ("succeeded", ())


def test_a_zone_that_got_stuck_while_it_joined_again_after_a_drain_is_put_back() -> None:
    """No return had been planned for it, so that a resume brought it to a ramp without steps, and its carrier died."""
    orders = (ZoneOrder(0.0, "drain", f"{AWS}a", 300.0), ZoneOrder(5.0, "restore", f"{AWS}a"))
    told = (ZoneOrder(60.0, "resume", f"{AWS}a"),)
    cut = Cut(5.5, AWS, 40.0)
    slow = Physics(deregistration_s=15.0)
    result = simulate(
        1, replace(good_deploy(), zone_orders=orders + told, cuts=(cut,), physics=slow, deploy_at_s=120.0)
    )
    assert [h.args["step"] for h in result.trace if h.what == "stuck"] == ["join"], "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_two_zones_beside_each_other_against_i1_do_not_wait_for_each_other_for_ever() -> None:
    """One could not leave its ramp because the other was out, which could not return because the ramp was taken."""
    beside = (ZoneOrder(22.0, "evacuate", f"{AWS}b", 400.0, overrides=("I1",)), ZoneOrder(60.0, "restore", f"{AWS}b"))
    orders = (Command(19.0, "pause"), Command(40.0, "rollback"))
    result = simulate(1, replace(good_deploy(), users_rps=150.0, zone_orders=beside, commands=orders))
    assert (result.status, result.violations) == ("rolled-back", ())


def test_an_evacuation_that_was_paused_before_it_began_takes_nothing_from_a_zone_that_got_well() -> None:
    """Its return brought a zone that had never left to the ramp, beside the one that a deploy had out."""
    dead, evacuate = Strike(12.0, f"{AZURE}-1", Blow.DEAD, 20.0), ZoneOrder(13.0, "evacuate", f"{AZURE}-1", 200.0)
    scene = replace(good_deploy(), strikes=(dead,), physics=Physics(boot_s=25.0))
    found = next(h.at_s for h in simulate(1, replace(scene, zone_orders=(evacuate,))).trace if h.what == "dead")
    paused = ZoneOrder(found - 0.01, "pause", f"{AZURE}-1")
    result = simulate(1, replace(scene, zone_orders=(evacuate, paused, ZoneOrder(60.0, "restore", f"{AZURE}-1"))))
    told = [h.args["step"] for h in result.trace if h.what == "joined" and h.args["zone"] == f"{AZURE}-1"]
    assert told[0] == "plan-return", "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_a_run_that_was_paused_before_its_zone_left_asks_again_what_the_survivors_carry() -> None:
    """It drained the zone on a resume, on what the guards had said before the load rose."""
    told = (Command(2.2, "pause"), Command(60.0, "resume"))
    scene = Scenario(make_topology({AWS: 3}), users_rps=160.0, loads=((10.0, 230.0),), commands=told)
    result = simulate(1, scene)
    assert ("stale", "drain") in steps(result), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize("asked", ["by a deploy", "for a drill"])
def test_a_zone_that_is_called_back_after_minutes_of_a_kill_switch_is_verified_first(asked: str) -> None:
    """It was put back at once, for nothing in it had changed; meanwhile it had got sick. Seed 13494."""
    sick, killed = Strike(60.0, f"{AWS}a", Blow.GRAY, 60.0, hard=0.3), Switching(6.0, "kill", on=True)
    scene = replace(good_deploy(), strikes=(sick,), switches=(killed, Switching(90.0, "kill", on=False)))
    if asked == "for a drill":
        drill = ZoneOrder(0.0, "drain", f"{AWS}a", 300.0, drill=True)
        scene = replace(scene, zone_orders=(drill,), deploy_at_s=30.0)
    else:
        scene = replace(scene, commands=(Command(6.5, "abort"),))
    result = simulate(1, scene)
    assert ("stale", "join") in steps(result), "this history is about that"
    assert () == result.violations


def test_steps_that_were_planned_while_nobody_was_there_are_planned_again() -> None:
    """The zone got its whole part in one step, on what was measured before a pause. Seeds 9510 and 3856."""
    crowd = ((6.0, 4.0), (40.0, good_deploy().users_rps))
    told = (Command(12.5, "pause"), Command(60.0, "resume"))
    result = simulate(1, replace(good_deploy(), loads=crowd, commands=told))
    assert ("stale", "ramp") in steps(result), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_a_zone_that_was_held_after_it_had_joined_keeps_its_part() -> None:
    """A resume put it on the ramp again, and nobody had asked what the survivors then carry (I4). Seed 3438."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=230.0)
    settles_s = next(h.at_s for h in simulate(1, scene).trace if h.args.get("step") == "settle")
    cut, told = Cut(settles_s, AWS, 90.0), Command(settles_s + 100.0, "resume")
    result = simulate(1, replace(scene, cuts=(cut,), commands=(told,)))
    assert ("ramped", "ramp") in steps(result), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize("at_s", [0.99, 1.0])
def test_a_zone_does_not_leave_on_guards_that_were_asked_before_another_left(at_s: float) -> None:
    """A person had overridden I1, so two runs asked side by side; either was told that the other zone carries. Seed 8030."""
    beside = ZoneOrder(at_s, "drain", f"{AWS}b", 75.0, overrides=("I1",))
    zones = make_topology({AWS: 3, "aws/eu-west-1": 3}, instances=2)
    result = simulate(1, Scenario(zones, users_rps=163.5, zone_orders=(beside,), deploy_at_s=1.0))
    assert ("stale", "drain") in steps(result), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def steps(result: Result) -> list[tuple[str, str]]:
    return [(h.what, str(h.args["step"])) for h in result.trace if h.kind == "log" and "step" in h.args]


@pytest.mark.parametrize("way_back", [False, True], ids=["out", "at its first step"])
def test_i3_a_zone_that_is_out_or_on_its_way_back_counts_as_what_it_carries_where_i1_is_overridden(
    way_back: bool,
) -> None:
    """It was counted whole: 266 requests a second over three zones, where two were in. Thousands failed."""
    a, b = f"{AWS}a", f"{AWS}b"
    rules = ("I1",) if way_back else ("I1", "I2")
    orders = [
        ZoneOrder(2.0, "evacuate" if way_back else "drain", a, 300.0),
        ZoneOrder(50.0, "drain", b, 300.0, overrides=rules),
    ]
    orders[1:1] = [ZoneOrder(30.0, "restore", a)] if way_back else []
    policy = replace(BRISK, ramp_step_s=60.0)
    scene = replace(good_deploy(), topology=make_topology({AWS: 4}), users_rps=260.0, deploy_at_s=400.0, policy=policy)
    result = simulate(1, replace(scene, zone_orders=tuple(orders)))
    refused = [h.args["evidence"] for h in result.trace if h.what == "refused" and h.args.get("zone") == b]
    assert ["over 240/s"] == [told[told.index("over") :][:10] for told in refused]
    assert 0.0 == sum(result.harmed.values())


@pytest.mark.parametrize("seconds", [0.5, 25.0])
def test_i11_whatever_a_deploy_does_when_the_state_is_lost_for_a_while_it_goes_on(seconds: float) -> None:
    """A write that was refused between two looks held the run for a person, as if an effect had failed."""
    for at_s in range(1, 60, 5):
        result = simulate(1, replace(good_deploy(), cuts=(Cut(at_s + 0.33, STATE, seconds),)))
        held = [h.what for h in result.trace if h.what in {"stuck", "unprepared", "refused", "carrier-gave-up"}]
        assert ("succeeded", (), [], 0.0) == (result.status, result.violations, held, sum(result.harmed.values())), at_s
