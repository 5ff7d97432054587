"""Whole regions are moved beside a deploy: what the simulator demands of it, and what it has found. All are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sim.checkers import OneZoneOut, OnlyHealthyAdvances, watch
from orchestrator.sim.faults import Fault
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Cut, Scenario, Strike, Switching, good_deploy, two_clouds
from orchestrator.sim.scheduler import Scheduler
from orchestrator.sim.signals import SignalTurn
from orchestrator.sim.truth import STEADY_POOL, Blow, Physics
from orchestrator.sim.world import build

AWS, AZURE = "aws/us-east-1", "azure/eastus"
QUIET = replace(good_deploy(), users_rps=150.0, physics=Physics(connection_life_s=10.0))


def moved(*orders: RegionOrder, **changes: object) -> Scenario:
    return replace(QUIET, region_orders=orders, **changes)  # type: ignore[arg-type]


def weights(result: Result) -> list[str]:
    return [h.what for h in result.trace if h.kind == "dns"]


def test_a_region_is_moved_and_returns_in_steps_beside_a_deploy_and_nobody_notices() -> None:
    result = simulate(1, moved(RegionOrder(5.0, "evacuate", AZURE), RegionOrder(60.0, "return", AZURE)))
    assert [f"{AWS}=100 {AZURE}=0", f"{AWS}=255 {AZURE}=13"] == weights(result)[:2]
    assert f"{AWS}=100 {AZURE}=100" == weights(result)[-1]
    assert ("succeeded", (), 0.0) == (result.status, result.violations, sum(result.harmed.values()))


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.KILL_INSIDE, Fault.STALL])
def test_i11_its_carrier_may_die_anywhere(fault: Fault) -> None:
    scene = moved(RegionOrder(5.0, "evacuate", AZURE), RegionOrder(60.0, "return", AZURE), rates={fault: 0.02})
    for seed in range(10):
        result = simulate(seed, scene)
        assert ("succeeded", ()) == (result.status, result.violations), f"seed {seed}"


AWAY = moved(RegionOrder(2.0, "evacuate", AZURE), away=f"{AWS}c", away_until_s=20.0, deploy_at_s=200.0)


def left_s(result: Result) -> float:
    return next(h.at_s for h in result.trace if h.kind == "dns")


def test_i1_a_region_stays_while_somebody_has_a_zone_of_another_one_out() -> None:
    """It read no placements: what a hand had taken out counted as capacity, and the region left beside it. Seed 2889."""
    result = simulate(1, AWAY)
    assert left_s(result) > 20.0
    assert () == result.violations


def test_i1_a_cloud_that_does_not_say_where_its_zones_stand_does_not_say_that_they_serve() -> None:
    """Where a person had overridden I3, a read that was throttled once was taken for a yes. Seed 17530."""
    unasked = (RegionOrder(2.0, "evacuate", AZURE, ("I3",)),)
    result = simulate(1, replace(AWAY, region_orders=unasked, cuts=(Cut(1.9, AWS, 15.0),)))
    assert left_s(result) > 20.0
    assert () == result.violations


def test_i1_the_checker_finds_a_region_that_leaves_beside_a_zone() -> None:
    scheduler = Scheduler()
    world = build(two_clouds(), scheduler, version="v1", users_rps=150.0)
    checker = OneZoneOut()
    watch(world, [checker])
    world.detach(world.zones[f"{AWS}c"], STEADY_POOL)
    scheduler.run(30.0)
    world.set_dns({AZURE: 0})
    scheduler.run(60.0)
    assert [("I1", AZURE, f"left while out: {AWS}c")] == [(v.rule, v.zone, v.what) for v in checker.violations]


def test_i1_the_checker_finds_a_zone_that_leaves_beside_a_region() -> None:
    scheduler = Scheduler()
    world = build(two_clouds(), scheduler, version="v1", users_rps=150.0)
    checker = OneZoneOut()
    watch(world, [checker])
    world.set_dns({AZURE: 0})
    scheduler.run(30.0)
    world.detach(world.zones[f"{AWS}c"], STEADY_POOL)
    scheduler.run(60.0)
    assert [("I1", f"{AWS}c", f"left while out: {AZURE}")] == [(v.rule, v.zone, v.what) for v in checker.violations]


def test_i1_the_checker_blames_nobody_for_a_region_that_has_no_zone_left_to_take() -> None:
    """People had overridden I1 for its zones one by one, and a deploy gave what they still got to the others. Seed 1796090618851."""
    scheduler = Scheduler()
    world = build(two_clouds(), scheduler, version="v1", users_rps=150.0)
    checker = OneZoneOut(waived=lambda _: True)
    watch(world, [checker])
    for zone in (*world.regions[AWS].zones, world.zones[f"{AZURE}-1"]):
        world.take_by_hand(zone, out=True)
    scheduler.run(30.0)
    world.set_dns({AWS: 0})
    scheduler.run(60.0)
    assert [] == checker.violations


def test_i2_what_befalls_one_region_excuses_nobody_who_overlooks_a_sick_zone_in_another() -> None:
    scheduler = Scheduler()
    world = build(two_clouds(), scheduler, version="v1", users_rps=150.0)
    checker = OnlyHealthyAdvances()
    watch(world, [checker])
    world.strike(world.zones[f"{AZURE}-2"], Blow.GRAY, 0.5)
    scheduler.run(30.0)
    world.strike(world.zones[f"{AWS}a"], Blow.SLOW)
    world.detach(world.zones[f"{AWS}c"], STEADY_POOL)
    scheduler.run(31.0)
    assert [("I2", f"{AZURE}-2")] == [(v.rule, v.zone) for v in checker.violations]


def test_i15_a_drill_of_a_region_ends_when_users_are_harmed() -> None:
    drill = RegionOrder(2.0, "drill", AZURE, lasts_s=200.0)
    scene = replace(moved(drill), signals=(SignalTurn(50.0, "users", "bad", 60.0),), deploy_at_s=200.0)
    result = simulate(1, scene)
    assert [f"{AWS}=100 {AZURE}=0"] == [h.what for h in result.trace if h.kind == "dns" and h.at_s < 50.0]
    assert f"{AWS}=255 {AZURE}=13" in [h.what for h in result.trace if h.kind == "dns" and 50.0 < h.at_s < 65.0]
    assert ("succeeded", ()) == (result.status, result.violations)
    assert result.exercised["I15"] > 0


ALONE = moved(RegionOrder(2.0, "evacuate", AZURE), RegionOrder(70.0, "return", AZURE), deploy_at_s=400.0)


def stopped_after(event: str, step: str, blow: Blow, zone: str) -> tuple[Result, float]:
    """The kill switch is on for a minute from that moment, and ten seconds later something befalls a zone."""
    at_s = next(h.at_s for h in simulate(1, ALONE).trace if h.what == event and h.args.get("step") == step)
    stop = (Switching(at_s - 0.01, "kill", on=True), Switching(at_s + 60.0, "kill", on=False))
    scene = replace(ALONE, switches=stop, strikes=(Strike(at_s + 10.0, zone, blow, 100.0, 0.5),))
    return simulate(1, scene), at_s + 60.0


def test_i1_a_region_that_stood_still_before_it_left_asks_the_guards_again() -> None:
    """A zone of the survivors died while the kill switch was on; it left beside that one when it was turned off."""
    result, _ = stopped_after("prepared", "prepare-region", Blow.DEAD, f"{AWS}b")
    assert ["effect-began", "stale"] == [h.what for h in result.trace if h.args.get("step") == "leave-region"]
    assert ([], ()) == (weights(result), result.violations)


def test_i2_a_region_that_stood_still_before_it_got_users_is_verified_again() -> None:
    """It got its first users though it had fallen sick since it was verified."""
    result, on_s = stopped_after("verified", "verify-region", Blow.DEAD, f"{AZURE}-2")
    steps = [h.what for h in result.trace if h.kind == "log" and on_s < h.at_s < on_s + 60.0]
    assert ["stale", "unhealthy"] == [what for what in steps if what not in {"effect-began", "run-claimed"}][:2]
    assert () == result.violations


def test_i1_a_deploy_waits_for_the_drill_that_makes_way_and_is_not_held() -> None:
    """The lease was the drill's until all was put back: the deploy was refused once, and held for a person."""
    drill = RegionOrder(2.0, "drill", AZURE, lasts_s=300.0)
    result = simulate(1, replace(moved(drill), deploy_at_s=60.0))
    said = [h for h in result.trace if h.kind == "log" and h.args.get("status") == "held"]
    settled_s = next(h.at_s for h in result.trace if h.what == "settled" and h.args.get("step") == "settle-region")
    admitted_s = next(h.at_s for h in result.trace if h.what == "admitted" and h.args.get("step") == "admit")
    assert ([], "succeeded", ()) == (said, result.status, result.violations)
    assert settled_s < admitted_s < settled_s + 5.0
