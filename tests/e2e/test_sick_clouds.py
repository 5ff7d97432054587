"""Clouds whose APIs misbehave in the middle of a deploy: what passes is survived, what does not holds with a clear message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2e.cases import Case
from e2e.stage import Ended, Labs, Stage, blueprint

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


def at_one_version(made: Stage) -> bool:
    running = made.versions()
    return set(ZONES) == set(running) and 1 == len({v for of_zone in running.values() for v in of_zone})


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    kept = Labs(tmp_path_factory.mktemp("clouds"), blueprint(policy=POLICY), at_one_version)
    yield kept
    kept.close()


@pytest.fixture
def made(labs: Labs) -> Iterator[Stage]:
    lab = labs.get()
    yield lab
    for cloud in ("aws", "azure"):
        lab.lab("/cloud-fault", cloud=cloud, clear=True)
    lab.lab("/cloud-fault", cloud="aws", zone=AWS, room=None)


def other(made: Stage) -> str:
    """The version that the lab does not run yet."""
    return "v3" if "v2" in made.versions()[AWS] else "v2"


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


def mended(made: Stage, held: Ended, zone: str, says: str, cloud: str) -> Ended:
    """One line names the zone, what was seen, the rule and the next command; then the cloud is well again."""
    assert (11, "held") == (held.code, held.run and held.run.status), held.err[-3000:]
    assert held.run is not None
    line = next(line for line in held.out.splitlines() if line.lstrip().startswith("why:"))
    wanted = (zone, says, "(rule I", f"next: failout deployments resume {held.run.id}")
    assert [] == [word for word in wanted if word not in line], line
    made.lab("/cloud-fault", cloud=cloud, clear=True)
    assert 0 == made.order("resume").code
    return made.resume().wait()


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
    ended = mended(made, held, zone, says, fault["cloud"])
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


def test_an_azure_operation_that_never_ends_is_given_up_and_goes_on_when_mended(made: Stage, case: Case) -> None:
    """Held after the upgrade's time, or succeeded where the instances themselves say that the work is done."""
    version = other(made)
    made.lab("/cloud-fault", cloud="azure", method="POST", call="manualupgrade|/update", count=1, kind="hang")
    deploy = made.deploy(version, "--on-failure", "hold")
    first = ended = deploy.wait()
    end = "succeeded"
    if first.code:
        ended = mended(made, first, AZURE, "the upgrade to", "azure")
        end = f"held ({first.zones()[AZURE]}), resumed by a person, succeeded"
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert 0 == ended.code, ended.err[-3000:]
    assert {zone: {version: 2} for zone in ZONES} == made.ending()["processes"]
    why = first.state.reason if first.code and first.state else "the instances said that they were done"
    case.tell("Azure's upgrade operation hangs", users, end, why)


def test_aws_without_room_for_an_instance_holds_the_zone_out_until_there_is(made: Stage, case: Case) -> None:
    """The old instances are gone and new ones cannot come: a person is asked."""
    version = other(made)
    deploy = made.deploy(version, "--on-failure", "hold")
    made.until_zone(AWS, Z.DRAINING)
    made.lab("/cloud-fault", cloud="aws", zone=AWS, room=0)
    held = deploy.wait()
    assert "held-out" == held.zones()[AWS], held.err[-3000:]
    made.lab("/cloud-fault", cloud="aws", zone=AWS, room=None)
    ended = mended(made, held, AWS, "the upgrade to", "aws")
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert 0 == ended.code, ended.err[-3000:]
    assert held.state is not None
    case.tell("AWS has no capacity in the zone that is out", users, "held (held-out), resumed by a person, succeeded",
              held.state.reason)  # fmt: skip
