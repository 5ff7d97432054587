"""Clouds whose APIs misbehave in the middle of a deploy: what passes is survived, what does not holds with a clear message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2e.cases import Case
from e2e.stage import Stage, blueprint, stage

from orchestrator.core.topology import ZoneState as Z

pytestmark = pytest.mark.soak

AWS, AZURE = "aws/us-east-1a", "azure/eastus-1"
ZONES = [AWS, AZURE, "aws/us-east-1b", "azure/eastus-2"]
POLICY = {"upgrade_timeout_s": 15.0, "verify_timeout_s": 10.0, "on_failure": "rollback-zone"}

# title, faults set before the deploy starts
PASSING: dict[str, list[dict[str, Any]]] = {
    "throttling without Retry-After": [
        {"cloud": "aws", "kind": "throttle", "call": r"(Describe|Modify|Attach|Detach|Start|Suspend)", "count": 25},
        {"cloud": "azure", "kind": "throttle", "count": 25},
    ],
    "throttling with Retry-After 1 s": [
        {"cloud": "aws", "kind": "throttle", "call": r"\.(Modify|Start|Attach|Detach)", "count": 6, "retry_after_s": 1},
        {"cloud": "azure", "kind": "throttle", "method": "PATCH", "count": 4, "retry_after_s": 1},
    ],
    "server errors": [
        {"cloud": "aws", "kind": "error", "count": 25},
        {"cloud": "azure", "kind": "error", "count": 25},
    ],
    "calls that time out and happen all the same": [
        {"cloud": "aws", "kind": None, "call": r"\.(StartInstanceRefresh|ModifyListener)", "count": 3, "delay_s": 2.5},
        {"cloud": "azure", "kind": None, "method": "PATCH", "count": 2, "delay_s": 2.5},
    ],
    "resets and cut replies after the cloud has acted": [
        {"cloud": "aws", "kind": "reset", "call": r"\.(Start|Modify|Attach|Detach)", "count": 4},
        {"cloud": "aws", "kind": "cut", "call": r"\.Describe", "count": 10},
        {"cloud": "azure", "kind": "reset", "method": "PATCH", "count": 3},
        {"cloud": "azure", "kind": "cut", "method": "GET", "count": 10},
    ],
    "stale reads": [
        {"cloud": "aws", "kind": "stale", "call": r"DescribeAutoScalingGroups|DescribeTargetHealth", "count": 12},
        {"cloud": "azure", "kind": "stale", "method": "GET", "call": "virtualMachineScaleSets", "count": 12},
    ],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("clouds"), blueprint(policy=POLICY)) as made:
        yield made


@pytest.fixture
def made(lab: Stage) -> Iterator[Stage]:
    yield lab
    for cloud in ("aws", "azure"):
        lab.lab("/cloud-fault", cloud=cloud, clear=True)
    lab.lab("/cloud-fault", cloud="aws", zone=AWS, room=None)


def other(made: Stage) -> str:
    """The version that the lab does not run yet."""
    running = {version for of_zone in made.versions().values() for version in of_zone}
    assert 1 == len(running), f"the case before left {running}"
    return "v3" if running == {"v2"} else "v2"


@pytest.mark.parametrize("title", PASSING)
def test_what_passes_is_survived_with_no_failed_request(made: Stage, case: Case, title: str) -> None:
    version = other(made)
    for fault in PASSING[title]:
        made.lab("/cloud-fault", **fault)
    deploy = made.deploy(version)
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert 0 == ended.code, ended.err[-3000:]
    assert {zone: {version: 2} for zone in ZONES} == made.ending()["processes"]
    bad = [e for e in made.timeline("api", deploy.started_at) if e["status"] >= 400]
    told = f"{ended.seconds:.0f} s; {len(bad)} calls answered with an error"
    case.tell(f"Both clouds' APIs: {title}", users, "succeeded", told)


# title, zone that is hit, fault, code, the state it holds in, what it says
LASTING: dict[str, tuple[str, dict[str, Any], str]] = {
    "AWS denies the upgrade half-way": (
        AWS, {"cloud": "aws", "kind": "deny", "call": "StartInstanceRefresh", "count": 1000}, "AccessDenied",
    ),
    "AWS credentials expire in the middle": (
        AWS, {"cloud": "aws", "kind": "deny", "code": "ExpiredToken", "call": ".*", "count": 10000}, "ExpiredToken",
    ),
    "Azure denies the upgrade half-way": (
        AZURE, {"cloud": "azure", "kind": "deny", "method": "PATCH", "count": 1000}, "AuthorizationFailed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", LASTING)
def test_what_does_not_pass_holds_the_zone_out_with_a_clear_message_and_goes_on_when_mended(
    made: Stage, case: Case, title: str
) -> None:
    zone, fault, says = LASTING[title]
    version = other(made)
    deploy = made.deploy(version)
    made.until_zone(zone, Z.DRAINING)
    made.lab("/cloud-fault", **fault)
    held = deploy.wait()
    assert (11, "held") == (held.code, held.run and held.run.status), held.err[-3000:]
    assert says in held.out
    assert zone in held.out
    made.lab("/cloud-fault", cloud=fault["cloud"], clear=True)
    assert 0 == made.order("resume").code
    ended = made.resume().wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert 0 == ended.code, ended.err[-3000:]
    assert held.state is not None
    case.tell(title, users, f"held ({held.zones()[zone]}), resumed by a person, succeeded", held.state.reason)


def test_an_upgrade_that_fails_for_want_of_capacity_on_azure_rolls_the_zone_back(made: Stage, case: Case) -> None:
    version = other(made)
    fault = {"kind": "fail", "code": "AllocationFailed", "message": "Allocation failed. We do not have capacity."}
    made.lab("/cloud-fault", cloud="azure", method="POST", call="manualupgrade|/update", count=1, **fault)
    deploy = made.deploy(version)
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert (10, "failed") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    assert "AllocationFailed" in ended.evidence("unhealthy")
    case.tell("Azure has no capacity for an upgrade", users, "failed; zone back", ended.evidence("unhealthy"))
    assert 0 == made.deploy(version).wait().code


def test_aws_without_room_for_an_instance_holds_the_zone_out_until_there_is(made: Stage, case: Case) -> None:
    """The old instances are gone and new ones cannot come: no rollback could mend it, so a person is asked."""
    version = other(made)
    deploy = made.deploy(version)
    made.until_zone(AWS, Z.DRAINING)
    made.lab("/cloud-fault", cloud="aws", zone=AWS, room=0)
    held = deploy.wait()
    assert (11, "held-out") == (held.code, held.zones()[AWS]), held.err[-3000:]
    made.lab("/cloud-fault", cloud="aws", zone=AWS, room=None)
    assert 0 == made.order("resume").code
    ended = made.resume().wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert "done" == ended.zones()[AWS]
    assert held.state is not None
    case.tell(
        "AWS has no capacity in the zone that is out",
        users,
        f"held out, resumed: {ended.run.status}",
        held.state.reason,
    )
    assert 0 == made.deploy(version).wait().code
