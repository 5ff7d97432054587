"""I8 for whole regions: out for longer than they may be silently, they are told of, and still brought back. All are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.result import Result
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import BRISK, Switching, good_deploy
from orchestrator.sim.signals import SignalTurn
from orchestrator.sim.truth import Physics

AZURE = "azure/eastus"
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
