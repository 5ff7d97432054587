"""What a region's run does between two looks: nothing that takes users away, or gives some to a region, unasked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from simulation.test_regions import AWS, AZURE, moved, weights

from orchestrator.sim.history import History
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Cut, Scenario, Strike, Switching
from orchestrator.sim.truth import Blow

LEAVES = RegionOrder(2.0, "evacuate", AZURE)
BUSY = replace(moved(LEAVES), users_rps=240.0, deploy_at_s=500.0)

IN_STEPS = [f"{AWS}=255 {AZURE}=13", f"{AWS}=255 {AZURE}=85", f"{AWS}=100 {AZURE}=100"]


def happened_s(scene: Scenario, event: str, step: str, evidence: str = "") -> float:
    """When it first happened so."""
    trace = simulate(1, scene).trace
    told = (h for h in trace if h.what == event and h.args.get("step") == step)
    return next(h.at_s for h in told if evidence in str(h.args.get("evidence")))


def switched(at_s: float, lasts_s: float) -> tuple[Switching, Switching]:
    """The kill switch is on from that moment."""
    return Switching(at_s - 0.01, "kill", on=True), Switching(at_s + lasts_s, "kill", on=False)


def killed(scene: Scenario, at_s: float, lasts_s: float, *orders: RegionOrder, **changes: object) -> Result:
    """The same, and meanwhile people say this."""
    given = {"switches": switched(at_s, lasts_s), "region_orders": (*scene.region_orders, *orders), **changes}
    return simulate(1, replace(scene, **given))  # type: ignore[arg-type]


def test_i3_a_region_that_never_left_is_called_off_with_its_users() -> None:
    """Two zones of the survivors died, and its return took nine tenths of its users to the one that was left."""
    at_s = happened_s(BUSY, "prepared", "prepare-region")
    strikes = tuple(Strike(at_s + 10.0, f"{AWS}{z}", Blow.DEAD, 300.0) for z in "bc")
    result = killed(BUSY, at_s, 60.0, RegionOrder(at_s + 30.0, "return", AZURE), strikes=strikes)
    assert ([], ()) == (weights(result), result.violations)
    assert 0.0 == result.harmed.get("overload", 0.0)
    assert ["effect-began", "serves"] == [h.what for h in result.trace if h.args.get("step") == "verify-region"]


def test_i3_a_region_that_is_called_back_before_it_left_again_keeps_what_it_has() -> None:
    """It was sent out again at half of its part, and called back: it went down to a tenth first."""
    away = replace(BUSY, region_orders=(LEAVES, RegionOrder(70.0, "return", AZURE)))
    at_s = happened_s(away, "step-passed", "return-region", "at 50%")
    orders = (RegionOrder(at_s + 10.0, "evacuate", AZURE), RegionOrder(at_s + 20.0, "return", AZURE))
    result = killed(away, at_s, 30.0, *orders)
    assert [f"{AWS}=100 {AZURE}=0", *IN_STEPS] == weights(result)
    assert () == result.violations


def test_i4_to_override_i3_skips_no_other_rule_when_a_region_stood_still() -> None:
    """A zone of the survivors was taken out by hand while the kill switch was on, and the region left beside it (I1)."""
    scene = moved(RegionOrder(2.0, "evacuate", AZURE, ("I3",)), deploy_at_s=500.0)
    at_s = happened_s(scene, "prepared", "prepare-region")
    history = History(1, replace(scene, switches=switched(at_s, 60.0)))
    for when_s, out in ((at_s + 40.0, True), (at_s + 70.0, False)):
        history.scheduler.at(when_s, partial(history.world.take_by_hand, history.world.zones[f"{AWS}b"], out=out))
    result = history.go()
    assert at_s + 70.0 < next(h.at_s for h in result.trace if h.kind == "dns")
    assert () == result.violations


def test_i9_a_dead_region_comes_back_in_the_steps_that_its_users_are_enough_for_by_then() -> None:
    """Its agent was silent when it left, so that no load was known, and every step was merged into one."""
    orders = (RegionOrder(2.0, "evacuate", AZURE, ("I3",)), RegionOrder(100.0, "return", AZURE))
    result = simulate(1, replace(BUSY, region_orders=orders, cuts=(Cut(1.0, AZURE, 60.0),)))
    assert [f"{AWS}=100 {AZURE}=0", *IN_STEPS] == weights(result)
    assert () == result.violations


CROWDED = replace(BUSY, users_rps=400.0, region_orders=(LEAVES, RegionOrder(100.0, "return", AZURE)))


def sizes(result: Result, zone: str) -> list[tuple[float, int]]:
    return [(h.at_s, h.args["instances"]) for h in result.trace if h.kind == "scale" and h.what == zone]


def test_i3_what_a_survivors_autoscaler_has_made_more_of_it_stays_when_a_region_is_back() -> None:
    """It was made as small as before the region left, with a load that had nearly doubled, and its minimum was lost."""
    history = History(1, replace(CROWDED, loads=((70.0, 700.0),), trouble_ends_s=350.0))
    place = history.world.zones[f"{AWS}a"]
    place.minimum = 2

    def more() -> None:
        """Its cloud's autoscaler asks for more; its minimum stays."""
        minimum = place.minimum
        history.world.scale(place, place.desired + 4)
        place.minimum = minimum

    history.scheduler.at(71.0, more)
    result = history.go()
    assert [5, 9] == [instances for at_s, instances in sizes(result, f"{AWS}a") if at_s < CROWDED.deploy_at_s]
    assert 2 == place.minimum
    assert {"converges"} >= {v.rule for v in result.violations}  # This autoscaler never lets it shrink again.


def test_i3_survivors_keep_what_they_were_given_while_another_zone_is_lost() -> None:
    """One died as the last step passed, and those that were left were made as small as before at once."""
    at_s = happened_s(CROWDED, "step-passed", "return-region", "at 100%")
    result = simulate(1, replace(CROWDED, strikes=(Strike(at_s + 1.0, f"{AWS}b", Blow.DEAD, 100.0),)))
    back_s = [when_s for zone in "bc" for when_s, instances in sizes(result, f"{AWS}{zone}") if instances == 3]
    assert at_s + 100.0 < min(back_s)
    told = next(h for h in result.trace if h.what == "stuck" and h.args.get("step") == "settle-region")
    assert f"refused by I3: {AWS}b is unmeasured" in str(told.args["evidence"])
    assert () == result.violations


def test_i2_a_region_that_died_between_two_steps_goes_out_again_and_gets_no_more_users() -> None:
    """All of its zones were dead when the kill switch was turned off, and it got the next step."""
    back = replace(BUSY, region_orders=(LEAVES, RegionOrder(70.0, "return", AZURE)))
    at_s = happened_s(back, "step-passed", "return-region", "at 50%")
    strikes = tuple(Strike(at_s + 50.0, f"{AZURE}-{number}", Blow.DEAD, 300.0) for number in (1, 2, 3))
    result = killed(back, at_s, 60.0, strikes=strikes)
    assert [f"{AWS}=100 {AZURE}=0", *IN_STEPS[:2], f"{AWS}=100 {AZURE}=0"] == weights(result)[:4]
    assert () == result.violations


def shrunk(scene: Scenario) -> tuple[Result, list[int]]:
    """While the region is out its zones are made as small as can be; their sizes at the end."""
    history = History(1, scene)
    zones = history.world.regions[AZURE].zones
    for zone in zones:
        history.scheduler.at(60.0, partial(history.world.scale, zone, 1))
    result = history.go()
    return result, [size for zone in zones for at_s, size in sizes(result, zone.zone.id) if at_s < scene.deploy_at_s]


def test_i3_a_region_that_has_become_too_small_is_made_larger_before_the_step_that_it_cannot_carry() -> None:
    """It got 43/s on each instance of 40/s."""
    scene = replace(BUSY, users_rps=260.0, region_orders=(LEAVES, RegionOrder(100.0, "return", AZURE)))
    result, made = shrunk(scene)
    assert [1, 2, 1, 2, 1, 2] == made
    assert IN_STEPS == [step for step in weights(result) if not step.endswith("=0")][:3]
    assert ([], 0.0) == ([v for v in result.violations if v.rule == "I3"], result.harmed.get("overload", 0.0))


def test_i2_a_region_that_is_made_larger_is_not_sick_while_its_instances_boot() -> None:
    """They took longer than a verification may, and it was sent out again."""
    physics = replace(BUSY.physics, boot_s=45.0)
    orders = (LEAVES, RegionOrder(100.0, "return", AZURE))
    result, made = shrunk(replace(BUSY, users_rps=260.0, physics=physics, region_orders=orders))
    assert [1, 2, 1, 2, 1, 2] == made
    assert [f"{AWS}=100 {AZURE}=0", *IN_STEPS] == weights(result)[:4]
