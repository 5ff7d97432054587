"""Runs are told as schemas/ says in every phase that they go through, in virtual time."""

from __future__ import annotations

import asyncio

from cli.shell import errors
from workflows.drill_stage import DrillService
from workflows.outing_stage import AZURE, Service, now_
from workflows.test_runbook_steps import ASK, BOTH, FREEZE, Desk

from orchestrator.cli.status import human_run
from orchestrator.operations.status import describe_run, rule_to_accept


def test_every_phase_of_a_region_that_leaves_and_returns_is_as_its_schema_says() -> None:
    service = DrillService(users_rps=120.0, drain_timeout_s=900.0)
    run = service.drill(service.topology.region_of(AZURE).id, tier="region", duration_s=30.0)
    wrong: dict[str, list[str]] = {}

    def ended() -> bool:
        for moved in now_(service.store.runs("gates", 10)):
            if moved.kind == "region":
                told = {"schema": 1, "service": "gates", **describe_run(moved, {}, service.now())}
                wrong[told["course"]] = errors("region", told)
        return service.run(run).finished

    service.until(ended, 1800.0)
    assert {"leaving", "out", "verifying", "returning", "returned"} <= wrong.keys()
    assert {} == {phase: found for phase, found in wrong.items() if found}


def test_a_runbook_that_waits_is_answered_and_fails_is_as_its_schema_says() -> None:
    desk = Desk(lasts={"deploy": 60.0, "zone drain": 50.0}, fails=("zone drain", "freeze"))
    run = desk.start(ASK, BOTH, f"{FREEZE}\non_failure: ask")
    desk.carry(run, until=desk.since(run, 60.0))
    assert "waiting" == sound(desk, run)
    asyncio.run(desk.order(run, "approve")())
    desk.carry(run, until=desk.since(run, 600.0))
    assert "held" == sound(desk, run)
    desk.carry(run, until=desk.since(run, 60.0), then=desk.order(run, "abort"))
    assert "aborted" == sound(desk, run)


def test_the_version_of_a_zone_is_told_once_it_is_known_and_never_as_none() -> None:
    service = Service()
    run = service.take_out(AZURE)
    asked = human_run(describe_run(service.run(run), {}, service.now()))
    service.until_status(run, "out")
    out = human_run(describe_run(service.run(run), {}, service.now()))
    assert (False, False) == ("None" in asked, "->" in asked), asked
    assert (True, False) == (" v1 " in out, "->" in out), out


def sound(desk: Desk, run: str) -> str:
    """The run's status, once it has been held to its schema."""
    told = {"schema": 1, "service": "gates", **describe_run(asyncio.run(desk.store.load(run)), {}, desk.clock.now())}
    assert [] == errors("runbook", told)
    return str(told["status"])


def test_a_held_deploy_names_the_rule_that_a_person_may_accept_and_no_other() -> None:
    told = {
        "refused by I3: r without a: 90/s over 100/s is 0.90, allowed 0.75": "I3",
        "at 50% for 4.0 s: 0 errors of 7 requests, p99 5 ms (survivors 0 of 40, p99 5 ms); fewer than 30 requests": "I2",
        "at 50% for 8.1 s: the zone served 0 requests in 8.1 s": "I2",
        "refused by I2: a may not leave: b takes traffic on 0 of 3 instances": None,
        "baking for 4.0 s: 9 errors of 40 requests, p99 5 ms (survivors 0 of 40, p99 5 ms)": None,
    }
    assert told == {reason: (rule_to_accept(reason) or (None,))[0] for reason in told}
