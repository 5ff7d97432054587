"""The users double in the middle of a deploy, and both clouds' autoscalers are at work: nobody fights anybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.cases import Case
from e2e.stage import Ended, Stage, at, blueprint, stage

from orchestrator.bootstrap import reading_world
from orchestrator.core.deploy_table import RunStatus
from orchestrator.core.topology import ZoneState as Z
from orchestrator.lab.blueprint import RegionBlueprint
from orchestrator.ports import FleetSeen

pytestmark = pytest.mark.soak

AWS, AZURE = "aws/us-east-1a", "azure/eastus-1"
ORDER = [AWS, AZURE, "aws/us-east-1b", "azure/eastus-2"]
OUT = [Z.DRAINING, Z.UPGRADING, Z.VERIFYING, Z.RAMPING, Z.BAKING]
REGIONS = (RegionBlueprint("aws", "us-east-1", 2, weight=150), RegionBlueprint("azure", "eastus", 2, weight=100))
WEIGHTS = {"aws/us-east-1": 150, "azure/eastus": 100}
RATE = 75.0
# An instance is good for 32/s and is to serve 16/s; Failout lets survivors serve 27/s. Two in each zone at first.
# None is taken away meanwhile: an autoscaler of Azure ends machines whatever they serve.
AUTOSCALE = {"target": 0.5, "scale_in_after_s": 600.0}
# A zone of Azure gets 15/s: steps of 3 s are measured, whatever the users' connections do first.
POLICY = {"max_utilisation": 0.85, "upgrade_timeout_s": 20.0, "on_failure": "hold", "ramp_step_s": 3.0}


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    plan = blueprint(REGIONS, rps_per_instance=32.0, ttl_s=1, autoscale=AUTOSCALE, policy=POLICY)
    with stage(tmp_path_factory.mktemp("autoscaling"), plan, rate=RATE) as made:
        yield made


def fleets(made: Stage) -> dict[str, FleetSeen]:
    """What the clouds say of every fleet."""
    world = reading_world(made.settings, lambda *_, **__: None)

    async def read() -> dict[str, FleetSeen]:
        return {z.id: await world.fleet(z).describe(z) for z in world.topology.zones()}

    return asyncio.run(read())


def frozen(made: Stage) -> set[str]:
    return {zone for zone, fleet in fleets(made).items() if not (fleet.autoscaler and fleet.autoscaler.enabled)}


def scaled(made: Stage, since: float, state: str = "asked") -> list[dict[str, Any]]:
    return [e for e in made.timeline("scaled", since) if e["state"] == state]


def until_out(made: Stage, zone: str) -> None:
    """`zone` is out, and its autoscaler is frozen, and no other."""
    state = made.until(lambda s: s.zone(zone).state in OUT or s.status is RunStatus.HELD, 120.0, f"{zone} is out")
    assert RunStatus.HELD is not state.status, state.reason
    assert {zone} == frozen(made)


def touched_while_out(made: Stage, ended: Ended) -> list[dict[str, Any]]:
    """What autoscalers did to a zone from its preparation to its settlement."""
    since = {e.event.zone: at(e) for e in ended.events if e.event.kind == "prepared"}
    until = {e.event.zone: at(e) - e.duration_s for e in ended.events if e.event.kind == "settled"}
    assert set(ORDER) == set(since) == set(until)
    return [e for e in scaled(made, 0.0) if since[e["zone"]] < e["t"] < until[e["zone"]]]


def succeeded(made: Stage, ended: Ended) -> None:
    """Every instance runs v2 and its autoscaler is at work; the weights are the usual ones."""
    assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    assert [{"v2"}] * 4 == [set(made.versions()[zone]) for zone in ORDER]
    assert set() == frozen(made)
    assert [] == touched_while_out(made, ended)
    assert WEIGHTS == made.ending()["weights"]


def grown(made: Stage, since: float, *clouds: str) -> str:
    """How far the clouds' autoscalers went, for the table; each must have grown."""
    most = {zone: max((e["to"] for e in scaled(made, since) if e["zone"] == zone), default=2) for zone in ORDER}
    for cloud in clouds:
        assert max(n for zone, n in most.items() if zone.startswith(cloud)) > 2
    told = [f"{n} in {zone}" for zone, n in most.items() if n > 2 and zone.startswith(clouds)]
    return "autoscalers went from 2 to " + ", ".join(told)


def test_load_doubles_in_the_middle_of_a_deploy_and_both_clouds_fleets_grow(made: Stage, case: Case) -> None:
    deploy = made.deploy("v2")
    until_out(made, AWS)
    doubled = time.time()
    made.traffic.turn(2 * RATE)
    for zone in ORDER[1:]:
        until_out(made, zone)
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    succeeded(made, ended)
    case.tell("Load doubles while the first zone is out; both clouds scale", users, "succeeded, every autoscaler thawed",
              grown(made, doubled, "aws", "azure"))  # fmt: skip


def test_failout_is_killed_while_an_autoscaler_is_frozen_and_thaws_it_when_it_goes_on(made: Stage, case: Case) -> None:
    deploy = made.deploy("v2")
    until_out(made, AWS)
    made.traffic.turn(2 * RATE)
    until_out(made, AZURE)
    deploy.kill()
    time.sleep(1.0)
    assert {AZURE} == frozen(made)
    ended = made.resume().wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    succeeded(made, ended)
    case.tell(f"Load doubles; kill -9 of Failout while {AZURE} is out and frozen", users,
              "resumed, succeeded, every autoscaler thawed", grown(made, deploy.started_at, "aws", "azure"))  # fmt: skip


def test_aws_without_capacity_sends_what_it_cannot_carry_to_azure_whose_fleets_grow(made: Stage, case: Case) -> None:
    for zone in ORDER:
        if zone.startswith("aws"):
            made.lab("/cloud-fault", cloud="aws", zone=zone, room=2)
    deploy = made.deploy("v2")
    made.until_zone(AZURE, Z.BAKING)
    doubled = time.time()
    made.traffic.turn(2 * RATE)
    until_out(made, "aws/us-east-1b")
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    succeeded(made, ended)
    replanned = ended.evidence("replanned")
    assert "the global tier moves load" in replanned
    assert "sufficient" in replanned
    assert {"aws"} == {e["zone"].partition("/")[0] for e in scaled(made, deploy.started_at, "refused")}
    case.tell("Load doubles, AWS has no capacity: Azure takes the rest", users, "succeeded, the usual weights are back",
              f"{replanned}; {grown(made, doubled, 'azure')}")  # fmt: skip
