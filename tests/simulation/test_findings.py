"""What the simulator has found and nobody has mended yet. Each is one history; `strict` tells when it is mended.

Move a mended one to test_deploy.py as a regression, without its mark.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sim.faults import Fault
from orchestrator.sim.run import Result, simulate
from orchestrator.sim.scenario import Command, Scenario, Strike, good_deploy, make_topology
from orchestrator.sim.truth import Blow, Physics

AWS, AZURE = "aws/us-east-1", "azure/eastus"
HEAVY = Scenario(make_topology({AWS: 3, AZURE: 3}), users_rps=420.0)


def rules(result: Result) -> set[str]:
    return {violation.rule for violation in result.violations}


def found(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(strict=True, reason=reason)


@found("I3: instances that a scale-back is about to end are counted as capacity for the next zone")
def test_the_next_zone_is_not_carried_by_instances_that_are_leaving() -> None:
    result = simulate(1, Scenario(make_topology({AWS: 4}, instances=2), users_rps=187.0))
    assert not [v for v in result.violations if v.rule == "I3" and "now 62/s on 2" in v.what]


@found("I3: a zone that joins `steady` stands in both target groups until the next look, with up to two parts")
def test_a_joining_zone_is_not_overloaded() -> None:
    result = simulate(1, Scenario(make_topology({AWS: 4}), users_rps=276.0))
    assert result.harmed["overload"] == 0


@found("Azure: survivors are scaled back while they serve, which cuts their connections")
def test_scaling_back_harms_nobody_on_azure() -> None:
    result = simulate(1, HEAVY)
    assert "I16" not in rules(result)


@found("I1, I2, I3 are asked at admission only: what happens while survivors are scaled goes unseen")
def test_a_zone_lost_while_survivors_are_scaled_stops_the_drain() -> None:
    slow = Physics(boot_s=25.0)
    strike = Strike(4.0, f"{AZURE}-1", Blow.DARK, 100.0)
    result = simulate(1, replace(HEAVY, physics=slow, strikes=(strike,)))
    assert "I1" not in rules(result)


@found("I2: admission asks /readyz only, so a survivor that fails 30 % of its requests counts as sound")
def test_no_zone_leaves_beside_a_gray_one() -> None:
    strike = Strike(1.0, f"{AZURE}-3", Blow.GRAY, 100.0, hard=0.3)
    assert "I2" not in rules(simulate(1, replace(good_deploy(), strikes=(strike,))))


@found("I3: a person's rollback drains a serving zone without asking whether the others can carry a load that rose")
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


@found("a region of one zone cannot return in steps: its share belongs to the global tier")
@pytest.mark.parametrize("region", [AWS, AZURE])
def test_a_region_of_one_zone_is_deployed(region: str) -> None:
    other = AZURE if region == AWS else AWS
    result = simulate(1, Scenario(make_topology({region: 1, other: 3}), users_rps=100.0))
    assert (result.status, result.violations) == ("succeeded", ())


@found("I3: counters that one agent gives late are divided by a time that is not theirs, so the load seems smaller")
def test_an_agent_that_answers_late_does_not_hide_load() -> None:
    late = (replace(HEAVY, plan={call: Fault.SLOW}) for call in range(8, 20))
    assert not [v for scenario in late for v in simulate(1, scenario).violations if v.rule == "I3"]
