"""Whole regions that are out: for too long, and beside what zones' runs have prepared. All are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import BRISK, Scenario, Switching, good_deploy, make_topology
from orchestrator.sim.signals import SignalTurn
from orchestrator.sim.truth import Physics

AWS, AZURE, WESTUS = "aws/us-east-1", "azure/eastus", "azure/westus"
EXPIRES_S = 20.0
SOON = replace(
    good_deploy(),
    users_rps=150.0,
    physics=Physics(connection_life_s=10.0),
    policy=replace(BRISK, out_expires_s=EXPIRES_S),
    deploy_at_s=250.0,
)
OUT = replace(SOON, region_orders=(RegionOrder(1.0, "evacuate", AZURE), RegionOrder(190.0, "return", AZURE)))


def when(result: Result, kind: str, what: str) -> list[float]:
    return [h.at_s for h in result.trace if h.kind == kind and what in h.what]


def test_a_region_that_is_out_for_too_long_is_told_of_again_and_again_with_the_time_since_when_it_is_out() -> None:
    result = simulate(1, OUT)
    out_s = when(result, "log", "emptied")[0]
    alarms = [h for h in result.trace if h.kind == "log" and h.what == "expired"]
    assert [out_s + n * EXPIRES_S for n in (1, 2, 3)] == pytest.approx([h.at_s for h in alarms[:3]], abs=0.5)
    assert 1 == len({str(h.args["evidence"]) for h in alarms})
    assert ("succeeded", ()) == (result.status, result.violations)


def test_the_kill_switch_silences_no_alarm() -> None:
    """It stopped the run of the region, which was to tell. An outing of a zone told all the same."""
    killed = (Switching(30.0, "kill", on=True), Switching(170.0, "kill", on=False))
    result = simulate(1, replace(OUT, switches=killed))
    assert [t for t in when(result, "told", "expired") if 50.0 < t < 170.0]
    assert ("succeeded", ()) == (result.status, result.violations)


def test_a_drill_ends_when_its_time_is_over_though_its_region_has_expired_meanwhile() -> None:
    """With each alarm the region counted as out from then on, and the time of its drill was never over."""
    drill = RegionOrder(1.0, "drill", AZURE, lasts_s=100.0)
    result = simulate(1, replace(SOON, region_orders=(drill,)))
    out_s = when(result, "log", "emptied")[0]
    assert [out_s + 50.0] == pytest.approx(when(result, "log", "over"), abs=3.0)
    assert ("succeeded", ()) == (result.status, result.violations)


def test_a_drill_calls_a_region_back_that_has_expired_before() -> None:
    """I15: an alarm counted as the order to return, so that the order was never given. Seed 1797300000621."""
    drill = RegionOrder(1.0, "drill", AZURE, lasts_s=300.0)
    bad = SignalTurn(60.0, "others", "bad", 60.0)
    result = simulate(1, replace(SOON, region_orders=(drill,), signals=(bad,)))
    assert when(result, "told", "expired")[0] < 60.0 < when(result, "log", "return")[0] < 70.0
    assert ("succeeded", ()) == (result.status, result.violations)


@pytest.mark.parametrize("called_back_s", [0.5, 1.5])
def test_i3_a_region_that_is_called_back_before_it_left_leaves_weights_that_others_have_moved(
    called_back_s: float,
) -> None:
    """Its settling gave one of its zones' users back to two, while that zone was out: 0.93 of them. Seed 1798200003292."""
    zone, full = f"{WESTUS}-1", (f"{AZURE}-1", f"{WESTUS}-2")
    scene = Scenario(make_topology({AZURE: 3, WESTUS: 2}), users_rps=299.1, full=full, deploy_at_s=400.0)
    scene = replace(scene, zone_orders=(ZoneOrder(1.0, "evacuate", zone, 600.0), ZoneOrder(200.0, "restore", zone)))
    orders = (RegionOrder(30.0, "evacuate", WESTUS), RegionOrder(30.0 + called_back_s, "return", WESTUS))
    result = simulate(1, replace(scene, region_orders=orders))
    assert [True, False] == [at_s < 200.0 for at_s in when(result, "dns", "")], "moved once, and put back at the end"
    assert () == result.violations


def test_i2_i9_a_zone_that_settles_gives_nobody_back_to_a_region_that_a_person_keeps_out() -> None:
    """All of its users came at once, and nobody had looked whether it was sound. Seed 1798200001396."""
    zone = f"{AWS}b"
    scene = Scenario(
        make_topology({AWS: 3, "aws/eu-west-1": 3}), users_rps=370.0, full=(f"{AWS}a", f"{AWS}c"), deploy_at_s=600.0
    )
    restored = ZoneOrder(150.0, "restore", zone), ZoneOrder(200.0, "restore", zone, overrides=("I2",))
    scene = replace(scene, zone_orders=(ZoneOrder(1.0, "drain", zone, 900.0), *restored))
    orders = (RegionOrder(60.0, "evacuate", AWS, overrides=("I3",)), RegionOrder(400.0, "return", AWS))
    result = simulate(1, replace(scene, region_orders=orders))
    back_s = next(h.at_s for h in result.trace if h.kind == "log" and h.what == "settled")
    assert 200.0 < back_s < 300.0
    given = [h.what for h in result.trace if h.kind == "dns" and 61.0 < h.at_s < 400.0]
    assert all(f"{AWS}=0" in weights.split() for weights in given), given
    assert () == result.violations
