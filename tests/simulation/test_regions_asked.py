"""A person or a drill asks for a region, or for a zone, beside other runs: who makes way, who waits, and who is told."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.policy import DeployPolicy
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Strike, Switching, good_deploy
from orchestrator.sim.truth import Blow, Physics

AWS, AZURE = "aws/us-east-1", "azure/eastus"
DEPLOYING = replace(good_deploy(), users_rps=150.0, physics=Physics(connection_life_s=10.0, boot_s=15.0))


def times(result: Result, what: str, step: str | None = None) -> list[float]:
    return [h.at_s for h in result.trace if h.what == what and step in {None, h.args.get("step")}]


def test_i1_a_region_asked_for_between_two_zones_of_a_deploy_goes_before_the_next_one() -> None:
    """Only who held a lease was told to make way, and the deploy held none for a moment: it took the next zone, and all after it."""
    between_s = times(simulate(1, DEPLOYING), "settled")[0] + 0.05
    result = simulate(1, replace(DEPLOYING, region_orders=(RegionOrder(between_s, "evacuate", AZURE),)))
    assert between_s < times(result, "suspend")[0] < times(result, "admitted", "admit-region")[0] < between_s + 5.0
    assert () == result.violations


def test_i1_a_zone_asked_for_in_the_moment_of_a_deploys_admission_goes_before_the_deploy() -> None:
    admitted_s = times(simulate(1, DEPLOYING), "admitted")[1]
    evacuated = ZoneOrder(admitted_s, "evacuate", f"{AWS}c", 600.0)
    result = simulate(1, replace(DEPLOYING, zone_orders=(evacuated,)))
    assert 1 == len(times(result, "suspend"))
    assert times(result, "evacuated")[0] < admitted_s + 5.0
    assert () == result.violations


def test_i1_a_region_waits_as_long_as_the_deploy_that_makes_way_for_it_needs() -> None:
    """By default a deploy's zone comes back in minutes: the region was held two minutes after it was asked for, and stayed."""
    asked = (RegionOrder(30.0, "evacuate", AZURE),)
    result = simulate(1, replace(DEPLOYING, policy=DeployPolicy(), trouble_ends_s=600.0, region_orders=asked))
    pages = [h for h in result.trace if h.kind == "told" and h.at_s < 600.0]
    assert [(150.0, f"page {AZURE}: waits")] == [(round(h.at_s), h.what) for h in pages]
    back_s, admitted_s = times(result, "complete-suspend")[0], times(result, "admitted", "admit-region")[0]
    assert 200.0 < back_s < admitted_s < back_s + 5.0
    assert () == result.violations


QUIET = replace(DEPLOYING, deploy_at_s=600.0, trouble_ends_s=500.0)
INSIDE = ZoneOrder(10.0, "evacuate", f"{AZURE}-1", 3000.0)


def test_i1_a_region_leaves_although_a_person_has_a_zone_of_it_out_already() -> None:
    """It waited for its own zone's lease without a word, and left hours later, when the zone had come back and all was well."""
    result = simulate(1, replace(QUIET, zone_orders=(INSIDE,), region_orders=(RegionOrder(40.0, "evacuate", AZURE),)))
    assert 40.0 < times(result, "admitted", "admit-region")[0] < 45.0
    assert () == result.violations


def test_i8_a_region_that_is_refused_the_lease_tells_a_person_and_leaves_when_it_is_asked_for_again() -> None:
    """Its zone was taken out after it had been asked for, and before it was admitted."""
    asked = (RegionOrder(9.9, "evacuate", AZURE), RegionOrder(100.0, "evacuate", AZURE))
    result = simulate(1, replace(QUIET, zone_orders=(INSIDE,), region_orders=asked))
    page = next(h for h in result.trace if h.kind == "told" and h.what == f"page {AZURE}: refused")
    assert 9.9 + QUIET.policy.admit_timeout_s < page.at_s < 50.0
    assert 100.0 < times(result, "admitted", "admit-region")[0] < 105.0
    assert () == result.violations


def test_i14_a_freeze_calls_off_the_drill_of_a_region_whose_survivors_are_being_scaled() -> None:
    """It left fifty seconds into the freeze; that of a zone never did."""
    drill = (RegionOrder(2.0, "drill", AZURE, lasts_s=100.0),)
    scene = replace(QUIET, users_rps=400.0, region_orders=drill)
    frozen_s = times(simulate(1, scene), "admitted", "admit-region")[0] + 1.0
    switches = (Switching(frozen_s, "freeze", on=True), Switching(frozen_s + 300.0, "freeze", on=False))
    result = simulate(1, replace(scene, switches=switches))
    assert frozen_s < times(result, "unprepared")[0] < frozen_s + 5.0
    assert [] == [h.what for h in result.trace if h.kind == "dns"]
    assert ("succeeded", ()) == (result.status, result.violations)


def test_i13_a_region_that_was_paused_before_it_left_asks_the_guards_again_when_it_is_resumed() -> None:
    asked = RegionOrder(2.0, "evacuate", AZURE)
    prepared_s = times(simulate(1, replace(QUIET, region_orders=(asked,))), "prepared", "prepare-region")[0]
    paused = RegionOrder(prepared_s - 0.01, "pause", AZURE), RegionOrder(prepared_s + 60.0, "resume", AZURE)
    dead = (Strike(prepared_s + 10.0, f"{AWS}b", Blow.DEAD, 100.0),)
    result = simulate(1, replace(QUIET, region_orders=(asked, *paused), strikes=dead))
    assert [] == [h for h in result.trace if h.kind == "dns" and h.at_s < prepared_s + 60.0]
    assert prepared_s + 60.0 < times(result, "stale", "leave-region")[0] < prepared_s + 62.0
    assert () == result.violations
