"""Whole regions are moved beside a deploy: what the simulator demands of it, and what it has found. All are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core import region_plan
from orchestrator.sim.faults import Fault
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Cut, Scenario, good_deploy
from orchestrator.sim.truth import Physics

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


def test_i1_the_checker_finds_a_region_that_leaves_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for guard in ("refuse_beside_zones_out", "refuse_absent_survivors"):
        monkeypatch.setattr(region_plan, guard, lambda *_: None)
    assert {("I1", AZURE)} <= {(v.rule, v.zone) for v in simulate(1, AWAY).violations}
