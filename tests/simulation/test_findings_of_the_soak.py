"""What long soaks of the simulator have found, each as the one history that showed it. All are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.policy import OnExpiry, OnFailure
from orchestrator.sim.faults import Fault
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Command, Cut, Scenario, Strike, Switching, good_deploy, make_topology
from orchestrator.sim.truth import Behaviour, Blow, Physics

AWS, AZURE = "aws/us-east-1", "azure/eastus"
SLOW = dict.fromkeys(range(1, 400), Fault.SLOW)


def when(result: Result, what: str, step: str | None = None) -> list[float]:
    return [h.at_s for h in result.trace if h.what == what and (step is None or h.args.get("step") == step)]


def test_a_zone_that_joins_after_the_load_rose_carries_no_two_parts() -> None:
    """In both target groups it was allowed what the survivors had carried alone, which was too much by now. Seed 6429."""
    scene = Scenario(make_topology({AWS: 3}, instances=4), users_rps=230.0)
    ramped_s = when(simulate(1, scene), "step-passed")[-1]
    paused = (Command(ramped_s + 0.2, "pause"), Command(ramped_s + 20.0, "resume"))
    result = simulate(1, replace(scene, commands=paused, loads=((ramped_s + 3.0, 350.0), (ramped_s + 25.0, 230.0))))
    assert when(result, "interrupted", "join"), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize("before_s", [2.0, 3.0])
def test_steps_are_planned_on_the_load_of_now(before_s: float) -> None:
    """Users came during the upgrade, and the steps were planned on the average since the zone had left. Seed 3091."""
    slow = Physics(boot_s=7.0, health_pass_s=6.0, deregistration_s=8.0)
    scene = Scenario(make_topology({AWS: 3}), users_rps=2.0, physics=slow)
    upgraded_s = when(simulate(1, scene), "upgraded")[0]
    result = simulate(1, replace(scene, loads=((upgraded_s - before_s, 80.0),)))
    assert (result.status, result.violations) == ("succeeded", ())


def test_steps_are_planned_anew_where_users_came_while_their_zone_waited_to_return() -> None:
    """Azure could not be asked, so nobody knew the load (I3); its steps were those of a night. Seed 1796012012."""
    scene = replace(good_deploy(), users_rps=2.0)
    verified_s = when(simulate(1, scene), "verified")[0]
    cut, crowd = Cut(verified_s, AZURE, 20.0), (verified_s + 5.0, 300.0)
    result = simulate(1, replace(scene, cuts=(cut,), loads=(crowd,)))
    assert when(result, "stale", "ramp"), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize(
    ("instances", "users_rps"), [(6, 150.0), (4, 200.0)], ids=["while a zone is emptied", "while survivors are scaled"]
)
def test_the_kill_switch_stops_an_effect_whose_every_call_is_slow(instances: int, users_rps: float) -> None:
    """It was asked before an effect's first write, and not before the next survivor's or instance's. Seed 6184."""
    scene = Scenario(make_topology({AZURE: 3}, instances=instances), users_rps=users_rps, plan=SLOW)
    for at_s in range(20, 60, 2):
        result = simulate(1, replace(scene, switches=(Switching(float(at_s), "kill", on=True),)))
        assert () == result.violations


def test_whoever_slept_through_a_return_does_not_dismiss_the_zone_again() -> None:
    """The agent's flags were the one write before which no fence was read: a zombie emptied the zone. Seed 1795547441."""
    orders = (ZoneOrder(1.0, "evacuate", f"{AWS}a", 300.0), ZoneOrder(6.0, "restore", f"{AWS}a"))
    result = simulate(1, replace(good_deploy(), deploy_at_s=200.0, zone_orders=orders, plan={6: Fault.STALL}))
    assert [h.what for h in result.trace if h.kind == "injected"] == ["stall in agent.admit"], "it is about that"
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize("order", ["resume", "retarget", "rollback", "abort"])
def test_a_zone_that_a_hand_put_back_is_not_drained_again_before_the_guards_agree(order: str) -> None:
    """Its upgrade was refused (I13), and minutes later an order took it from its users unasked. Seeds 1795547244, 1797006730."""
    scene = Scenario(
        make_topology({AWS: 3}, instances=2),
        users_rps=110.0,
        loads=((30.0, 145.0),),
        commands=(Command(5.4, "pause"), Command(15.0, "resume"), Command(60.0, order, "v3")),
        physics=Physics(boot_s=12.0),
        away=f"{AWS}a",
        away_until_s=9.0,
    )
    result = simulate(1, scene)
    assert when(result, "stale", "drain"), "this history is about that"
    assert () == result.violations


def test_a_zone_that_a_hand_has_just_put_back_is_out_until_it_takes_users() -> None:
    """A person had overridden I2, and the next zone left before the first one served. Seed 1795548247."""
    drain = ZoneOrder(0.5, "drain", f"{AWS}a", 100.0, overrides=("I2",))
    scene = replace(good_deploy(), users_rps=150.0, zone_orders=(drain,), deploy_at_s=60.0)
    result = simulate(1, replace(scene, physics=Physics(health_pass_s=6.0), away=f"{AWS}b", away_until_s=20.0))
    assert when(result, "admitted")[0] > 26.0
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize("after_s", [2.4, 3.0])
def test_no_share_is_taken_of_what_a_scaling_back_has_left(after_s: float) -> None:
    """Whoever had asked for it died, and the share that left its surplus out was applied to the rest. Seed 1795551771."""
    scene = Scenario(make_topology({AZURE: 3}), users_rps=250.0)
    scaled_s = [h.at_s for h in simulate(1, scene).trace if h.kind == "scale" and h.args["instances"] == 3]
    result = simulate(1, replace(scene, deaths=((scaled_s[1] + after_s, Fault.KILL_BEFORE),)))
    assert (result.status, result.violations) == ("succeeded", ())


def test_no_share_is_taken_while_a_scaling_back_takes_longer_than_its_run_waits() -> None:
    """Held, and resumed when the surplus had gone: the join moved the region's traffic. Seed 1797005147."""
    slow = Physics(deregistration_s=72.0)
    scene = Scenario(make_topology({AZURE: 3}), users_rps=250.0, physics=slow, commands=(Command(120.0, "resume"),))
    result = simulate(1, scene)
    assert when(result, "stuck", "settle"), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_an_evacuations_users_go_to_no_region_that_lacks_a_zone_itself() -> None:
    """A hand had taken one of its zones out, whose ready instances were counted. Seed 1797008857."""
    evacuate, no_room = ZoneOrder(2.0, "evacuate", "aws/eu-west-1a", 200.0), ("aws/eu-west-1b", "aws/eu-west-1c")
    zones = make_topology({AWS: 3, "aws/eu-west-1": 3}, instances=4)
    scene = Scenario(zones, users_rps=563.0, away=f"{AWS}c", full=no_room, deploy_at_s=100.0)
    result = simulate(1, replace(scene, zone_orders=(evacuate,)))
    assert [] == [h for h in result.trace if h.kind == "dns" and h.at_s < scene.away_until_s]
    assert "aws/us-east-1 has 0/s to spare" in str([h.args for h in result.trace if h.what == "unprepared"])
    assert () == result.violations


def test_a_zone_that_left_dead_and_serves_again_does_not_leave_beside_another() -> None:
    """It kept the right to leave beside another one that only a dead zone has. Seed 1795575204."""
    dead = Strike(0.5, f"{AZURE}-2", Blow.DEAD, 20.0)
    orders = (
        ZoneOrder(1.0, "evacuate", f"{AZURE}-1", 300.0),
        ZoneOrder(3.0, "evacuate", f"{AZURE}-2", 300.0),
        ZoneOrder(40.0, "restore", f"{AZURE}-2"),
        ZoneOrder(46.0, "evacuate", f"{AZURE}-2"),
    )
    result = simulate(1, replace(good_deploy(), users_rps=60.0, strikes=(dead,), zone_orders=orders, deploy_at_s=300.0))
    assert "I1" in str([h.args for h in result.trace if h.what == "stuck"]), "this history is about that"
    assert () == result.violations


def test_a_zone_that_is_found_sick_in_hand_goes_back_first() -> None:
    """A retarget to the same version found it dead, and no other zone had left since: the checker erred. Seed 1795567018."""
    dead = Strike(60.0, f"{AWS}a", Blow.DEAD, 200.0)
    scene = replace(good_deploy(), users_rps=90.0, strikes=(dead,))
    result = simulate(1, replace(scene, commands=(Command(90.0, "retarget", "v2"),)))
    assert when(result, "unhealthy"), "this history is about that"
    assert "I12" not in {violation.rule for violation in result.violations}


def test_a_zone_that_was_sick_when_it_left_is_not_just_put_back() -> None:
    """An abort called it back from its drain, and nothing in it had been replaced; but it was sick before (I2)."""
    sick = Strike(1.0, f"{AWS}a", Blow.GRAY, 200.0, hard=0.5)
    scene = replace(good_deploy(), users_rps=150.0, strikes=(sick,), physics=Physics(deregistration_s=15.0))
    result = simulate(1, replace(scene, deploy_at_s=20.0, commands=(Command(23.0, "abort"),)))
    assert when(result, "stale", "join"), "this history is about that"
    assert () == result.violations


def test_a_dead_zone_that_a_person_has_out_is_lent_to_the_deploy_that_can_mend_it() -> None:
    """The outing waited for instances that its version kills, the rollback for the zone. Seeds 1797005453, 1798018848."""
    scene = replace(good_deploy(), users_rps=150.0, target=Behaviour(dies_after_s=30.0))
    evacuate = ZoneOrder(36.0, "evacuate", f"{AWS}a", 200.0)
    orders = (Command(31.0, "suspend"), Command(60.0, "rollback"))
    result = simulate(1, replace(scene, zone_orders=(evacuate,), commands=orders))
    assert when(result, "release"), "this history is about that"
    assert (result.status, result.violations) == ("rolled-back", ())


def test_i1_a_zone_that_is_out_already_is_rolled_back_before_newer_ones() -> None:
    """It was lent to the deploy, whose newest zone may not leave beside it: neither was ever rolled back."""
    dead = Strike(74.0, f"{AWS}a", Blow.DEAD, 80.0)
    kinds = {80.0: "evacuate", 100.0: "restore", 135.0: "release", 250.0: "restore"}
    scene = Scenario(make_topology({AWS: 4}), users_rps=150.0, strikes=(dead,))
    orders = (Command(77.0, "suspend"), Command(140.0, "rollback"))
    zone_orders = tuple(ZoneOrder(at_s, kind, f"{AWS}a", 400.0) for at_s, kind in kinds.items())
    result = simulate(1, replace(scene, zone_orders=zone_orders, commands=orders))
    back = [h.what for h in result.trace if h.kind == "replace" and h.args["version"] == "v1"]
    assert [f"{AWS}{zone}" for zone in "acb"] == back
    assert (result.status, result.violations) == ("rolled-back", ())


def test_where_two_zones_wait_for_one_ramp_a_person_says_that_survivors_may_carry_more() -> None:
    """One may not leave the ramp (I3) before the other is back, which needs it. Seeds 1798012783, 1798016834."""
    scene = Scenario(make_topology({AWS: 4}), users_rps=250.0)
    ramping_s = when(simulate(1, scene), "verified")[0] + 1.0
    dead = Strike(ramping_s, f"{AWS}d", Blow.DEAD, 60.0)
    evacuate = ZoneOrder(ramping_s + 40.0, "evacuate", f"{AWS}d", 400.0)
    scene = replace(scene, strikes=(dead,), commands=(Command(ramping_s + 1.0, "retarget", "v3"),))
    result = simulate(1, replace(scene, zone_orders=(evacuate,)))
    assert any("on the ramp of the same" in str(h.args.get("evidence")) for h in result.trace), (
        "this history is about that"
    )
    assert (result.status, result.violations) == ("aborted", ())


def test_i1_an_evacuation_asks_about_a_zone_that_is_lent_to_a_deploy() -> None:
    """Nobody has its lease until a deploy takes it, and the sound one was emptied beside it."""
    dead = Strike(74.0, f"{AWS}a", Blow.DEAD, 200.0)
    told = {80.0: ("evacuate", "a"), 100.0: ("restore", "a"), 135.0: ("release", "a"), 140.0: ("evacuate", "b")}
    zone_orders = tuple(ZoneOrder(at_s, kind, f"{AWS}{zone}", 400.0) for at_s, (kind, zone) in told.items())
    scene = Scenario(make_topology({AWS: 4}), users_rps=150.0, strikes=(dead,), commands=(Command(77.0, "suspend"),))
    result = simulate(1, replace(scene, zone_orders=zone_orders))
    assert when(result, "stuck", "evacuate"), "this history is about that"
    assert () == result.violations


def test_a_silent_zone_is_drained_where_a_person_knows_what_the_others_may_carry() -> None:
    """Its own load was unmeasured, and its steps were to be planned on that. Seed 1796026966549."""
    silent = Strike(1.0, f"{AWS}a", Blow.AGENT_CUT, 100.0)
    drain = ZoneOrder(20.0, "drain", f"{AWS}a", 100.0, overrides=("I3",))
    scene = replace(good_deploy(), users_rps=150.0, strikes=(silent,), zone_orders=(drain,), deploy_at_s=200.0)
    result = simulate(1, scene)
    assert (result.status, result.violations) == ("succeeded", ())


def test_a_zone_that_its_silent_cloud_has_not_emptied_yet_is_asked_about_anew() -> None:
    """Another zone had got sick while the wish was on its way. Seed 1796026955729."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=120.0)
    prepared_s = when(simulate(1, scene), "prepared")[0]
    cut, sick = Cut(prepared_s, AWS, 35.0), Strike(prepared_s, f"{AWS}b", Blow.GRAY, 60.0, hard=0.3)
    result = simulate(1, replace(scene, cuts=(cut,), strikes=(sick,)))
    assert when(result, "stale", "drain"), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_what_comes_back_first_to_a_region_gets_all_of_it_and_the_others_come_after_it() -> None:
    """A share below 1 of what nobody else serves was refused, and with it every write, for ever. Seed 1796026964414."""
    scene = Scenario(make_topology({AWS: 2, AZURE: 3}), users_rps=150.0)
    drained_s = when(simulate(1, scene), "drained")[0]
    dead = Strike(drained_s + 1.0, f"{AWS}b", Blow.DEAD, 60.0)
    evacuate = ZoneOrder(drained_s + 3.0, "evacuate", f"{AWS}b", 400.0)
    result = simulate(1, replace(scene, strikes=(dead,), zone_orders=(evacuate,)))
    assert [] == when(result, "stuck", "ramp")
    assert (result.status, result.violations) == ("succeeded", ())


def test_an_order_gives_a_zone_no_part_that_was_recorded_before_the_kill_switch() -> None:
    """Few users make one step, which had not begun; more came, and the abort gave it all of them. Seed 1796026947472."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=2.0)
    ramping_s = when(simulate(1, scene), "verified")[0]
    switches = (Switching(ramping_s + 0.3, "kill", on=True), Switching(ramping_s + 50.0, "kill", on=False))
    scene = replace(scene, switches=switches, loads=((ramping_s + 20.0, 140.0),))
    result = simulate(1, replace(scene, commands=(Command(ramping_s + 30.0, "abort"),)))
    assert ("aborted", ()) == (result.status, result.violations)


@pytest.mark.parametrize("first", ["pause", "rollback"])
def test_i12_a_rollback_brings_back_also_what_waits_for_another_target(first: str) -> None:
    """It had the new version and was to get a third; the rollback left it where it was. Seeds 1796027579512, 1796030249001."""
    scene = Scenario(make_topology({AWS: 4}), users_rps=150.0)
    second_s = when(simulate(1, scene), "settled")[1]
    pause, retarget = Command(second_s + 1.0, first), Command(second_s + 1.2, "retarget", "v3")
    orders = (pause, retarget, Command(second_s + 1.4, "pause"))
    result = simulate(1, replace(scene, commands=(*orders, Command(second_s + 10.0, "rollback"))))
    replaced = [(h.what, h.args["version"]) for h in result.trace if h.kind == "replace"]
    assert [(f"{AWS}a", "v2"), (f"{AWS}b", "v2"), (f"{AWS}b", "v1"), (f"{AWS}a", "v1")] == replaced
    assert (result.status, result.violations) == ("rolled-back", ())


def test_a_zone_that_a_hand_put_back_is_not_emptied_to_be_brought_back() -> None:
    """The outing came to its end, and first made sure that its zone was out: all of its users left. Seed 1796028313366."""
    out = ZoneOrder(2.0, "drain", f"{AWS}a", 100.0, OnExpiry.RESTORE)
    scene = Scenario(make_topology({AWS: 3}), users_rps=150.0, zone_orders=(out,), deploy_at_s=300.0)
    result = simulate(1, replace(scene, away=f"{AWS}a", away_until_s=40.0, loads=((45.0, 320.0), (200.0, 150.0))))
    assert when(result, "joined", "plan-return"), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_a_zone_that_a_hand_put_back_during_its_upgrade_keeps_its_users() -> None:
    """More came, and the ramp's first step took the zone away from all of them. Seed 1796029752372."""
    scene = Scenario(make_topology({AWS: 3}, instances=4), users_rps=150.0, physics=Physics(boot_s=20.0))
    upgrading_s = when(simulate(1, scene), "drained")[0] + 1.0
    scene = replace(scene, away=f"{AWS}a", away_until_s=upgrading_s, loads=((upgrading_s + 7.0, 315.0),))
    result = simulate(1, scene)
    assert [h for h in result.trace if "its whole part already" in str(h.args.get("evidence"))]
    assert (result.status, result.violations) == ("succeeded", ())


def test_few_users_do_not_make_a_sick_zone_sound() -> None:
    """What it had failed before was forgotten, and the few requests of one window said nothing. Seed 1796030731233."""
    sick = Strike(1.0, f"{AZURE}-3", Blow.GRAY, 200.0, hard=0.9)
    result = simulate(1, replace(good_deploy(), strikes=(sick,), loads=((20.0, 8.0),)))
    assert (result.status, result.violations) == ("succeeded", ())


def test_i9_steps_are_planned_on_what_users_ask_for_when_the_zone_is_verified() -> None:
    """More came during its synthetic requests, and it got all of them in one step. Seeds 1796031205849, 1796031211018."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=2.0, physics=Physics(synthetic_s=0.03))
    upgraded_s = when(simulate(1, scene), "upgraded")[0]
    result = simulate(1, replace(scene, loads=((upgraded_s + 12.0, 150.0),)))
    assert (result.status, result.violations) == ("succeeded", ())


def test_i1_a_zone_that_was_dead_when_its_evacuation_was_paused_is_looked_at_again() -> None:
    """It had got well, and was emptied beside one that was out. Seed 1796031206533."""
    scene = Scenario(make_topology({AWS: 4}), users_rps=150.0)
    drained_s = when(simulate(1, scene), "drained")[0]
    dead = Strike(drained_s, f"{AWS}d", Blow.DEAD, 40.0)
    told = {drained_s + 3.0: "evacuate", drained_s + 4.5: "pause", drained_s + 70.0: "resume"}
    zone_orders = tuple(ZoneOrder(at_s, kind, f"{AWS}d", 400.0) for at_s, kind in told.items())
    scene = replace(scene, strikes=(dead,), zone_orders=zone_orders, commands=(Command(drained_s + 4.0, "pause"),))
    assert () == simulate(1, scene).violations


def test_i2_an_order_does_not_carry_out_that_a_sick_zone_joins() -> None:
    """Its cloud was silent when it was to join, it fell sick, and a new target made it whole before it left. Seed 2086."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=150.0)
    usual = simulate(1, scene)
    ramped_s = max(at_s for at_s in when(usual, "step-passed") if at_s <= when(usual, "joined")[0])
    cut, gray = Cut(ramped_s + 0.03, AWS, 35.0), Strike(ramped_s + 10.0, f"{AWS}a", Blow.GRAY, 32.0, hard=0.5)
    scene = replace(scene, cuts=(cut,), strikes=(gray,), commands=(Command(ramped_s + 38.0, "retarget", "v3"),))
    result = simulate(1, scene)
    assert when(result, "stuck", "join"), "this history is about that"
    assert (result.status, result.violations) == ("succeeded", ())


def test_i8_synthetic_requests_of_a_slow_zone_hold_up_no_order_and_no_alarm() -> None:
    """Whoever gave an order, and whoever was to be told, waited until all had been sent. Seed 9005."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=150.0, physics=Physics(synthetic_s=0.025))
    verifying_s = when(simulate(1, scene), "upgraded")[0] + 5.0
    result = simulate(1, replace(scene, commands=(Command(verifying_s, "pause"), Command(verifying_s + 9.0, "resume"))))
    assert verifying_s + 4.0 > when(result, "pause")[-1]
    assert (result.status, result.violations) == ("succeeded", ())


def test_i3_an_evacuation_gives_survivors_back_to_users_that_were_being_made_smaller() -> None:
    """What had been taken out of traffic to end it stayed so, with nobody left beside it. Seed 1796033762037."""
    drain = ZoneOrder(1.0, "drain", f"{AZURE}-1", 100.0)
    scene = Scenario(make_topology({AZURE: 2}), users_rps=100.0, zone_orders=(drain,), deploy_at_s=300.0)
    out_s = when(simulate(1, scene), "drained")[0]
    restore = ZoneOrder(out_s + 5.0, "restore", f"{AZURE}-1")
    scene = replace(scene, zone_orders=(drain, restore))
    joined_s = when(simulate(1, scene), "joined")[0]
    evacuate = ZoneOrder(joined_s + 1.0, "evacuate", f"{AZURE}-1", 100.0)
    result = simulate(1, replace(scene, zone_orders=(drain, restore, evacuate)))
    assert when(result, "interrupted", "settle"), "this history is about that"
    again = [h.at_s for h in result.trace if h.kind == "admitted" and h.what == f"{AZURE}-2/i4"]
    assert joined_s + 6.0 > again[0]
    assert (result.status, result.violations) == ("succeeded", ())


@pytest.mark.parametrize("skew_s", [0.0, -3600.0], ids=["", "the clock is put back meanwhile"])
def test_i9_a_step_that_was_skipped_for_lack_of_users_is_not_skipped_an_hour_later(skew_s: float) -> None:
    """Half was too little to be measured, the kill switch came, then all users at once. Seed 1796037773933."""
    scene = Scenario(make_topology({AWS: 3}), users_rps=150.0, physics=Physics(synthetic_s=0.006))
    verified_s = when(simulate(1, scene), "verified")[0]
    scene = replace(scene, loads=((verified_s - 4.0, 3.0), (verified_s + 25.0, 150.0)))
    merged_s = when(simulate(1, scene), "step-merged")[0]
    switches = (Switching(merged_s + 0.02, "kill", on=True), Switching(merged_s + 60.0, "kill", on=False))
    result = simulate(1, replace(scene, switches=switches, jumps=((merged_s + 40.0, skew_s),)))
    assert (result.status, result.violations) == ("succeeded", ())


def test_i2_a_zone_that_fell_sick_while_its_survivors_were_scaled_is_not_put_back_unseen() -> None:
    """It was well when it was admitted, and an abort called it back from its drain. Seed 1796038276612."""
    scene = Scenario(make_topology({AWS: 2}), users_rps=100.0, physics=Physics(boot_s=20.0))
    prepared_s = when(simulate(1, scene), "prepared")[0]
    gray = Strike(3.0, f"{AWS}a", Blow.GRAY, 100.0, hard=0.3)
    scene = replace(scene, strikes=(gray,), commands=(Command(prepared_s + 1.0, "abort"),))
    result = simulate(1, scene)
    assert when(result, "stale", "join"), "this history is about that"
    assert () == result.violations


def test_i1_a_zone_that_lacks_an_instance_and_serves_does_not_leave_beside_a_dead_one() -> None:
    """It was baking, and its users were served: it goes back as carefully as it left, or waits. Seed 1796039111441."""
    scene = Scenario(make_topology({AWS: 3, "aws/eu-west-1": 3}), users_rps=130.0)
    joined_s = when(simulate(1, scene), "joined")[0]
    one, dead = (
        Strike(joined_s + 0.5, f"{AWS}a", Blow.ONE, 50.0),
        Strike(joined_s + 3.0, "aws/eu-west-1b", Blow.DEAD, 240.0),
    )
    result = simulate(1, replace(scene, strikes=(one, dead)))
    assert when(result, "incomplete", "bake"), "this history is about that"
    assert () == result.violations


def test_i1_a_zone_whose_evacuation_had_to_wait_is_not_emptied_to_be_brought_back() -> None:
    """It was on its ramp beside one that a deploy held out; it was called back, and began at half again. Seed 1796041681091."""
    policy = replace(good_deploy().policy, on_failure=OnFailure.HOLD)
    sick, zone = Behaviour(error_share=0.2), f"{AZURE}-3"
    scene = Scenario(make_topology({AWS: 3, AZURE: 3}, instances=2), users_rps=100.0, target=sick, policy=policy)
    held_s = when(simulate(1, scene), "unhealthy")[0]
    dead = Strike(held_s + 1.0, zone, Blow.DARK, 40.0)
    orders = (ZoneOrder(held_s + 20.0, "evacuate", zone, 500.0), ZoneOrder(held_s + 60.0, "restore", zone))
    scene = replace(scene, strikes=(dead,), zone_orders=orders)
    half_s = when(simulate(1, scene), "step-passed")[0]
    again = (*orders, ZoneOrder(half_s + 0.5, "evacuate", zone, 500.0), ZoneOrder(half_s + 20.0, "restore", zone))
    result = simulate(1, replace(scene, zone_orders=again))
    assert when(result, "interrupted", "evacuate"), "this history is about that"
    assert () == result.violations


def test_a_zone_does_not_join_on_an_answer_from_before_it_left() -> None:
    """Its cloud told what had been true before the drain, and the zone stayed out for good. Seed 1796039112386."""
    scene = Scenario(make_topology({AZURE: 3}), users_rps=60.0)
    drains_s = when(simulate(1, scene), "effect-began", "drain")[0]
    scene = replace(scene, commands=(Command(drains_s + 0.3, "abort"),))
    # The drain's own look after its write (call 24) is lost, and the join's (30) is answered from before.
    result = simulate(1, replace(scene, plan={24: Fault.NOT_DONE, 30: Fault.STALE}))
    looks = [h.what for h in result.trace if h.kind == "injected"]
    assert ["not-done in traffic.read", "stale in traffic.read"] == looks, "this history is about that"
    assert (result.status, result.violations) == ("aborted", ())


@pytest.mark.parametrize(("evacuated_s", "paused_s"), [(73.28, 75.28), (69.28, 70.28)])
def test_i3_whoever_pauses_an_evacuation_before_the_survivor_is_larger_leaves_it_as_it_is(
    evacuated_s: float, paused_s: float
) -> None:
    """The survivor was being made smaller again: what it no longer served fell to the rest, and no run did it. Seed 1796090613075."""
    zone, usual = f"{AZURE}-2", good_deploy()
    orders = (ZoneOrder(2.0, "drain", zone, lasts_s=600.0), ZoneOrder(60.0, "restore", zone))
    orders += (ZoneOrder(evacuated_s, "evacuate", zone, lasts_s=600.0), ZoneOrder(paused_s, "pause", zone))
    topology = make_topology({AZURE: 2, AWS: 3}, instances=4)
    slow = Physics(connection_life_s=30.0, close_s=20.0)
    scene = replace(usual, topology=topology, users_rps=318.0, deploy_at_s=400.0, physics=slow, zone_orders=orders)
    result = simulate(1, scene)
    assert when(result, "interrupted", "settle"), "this history is about that"
    assert () == result.violations
