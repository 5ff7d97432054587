"""Clouds whose APIs misbehave in the middle of a deploy: what passes is survived, what does not holds with a clear message."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e.cases import Case
from e2e.stage import Ended, Labs, Stage, blueprint

from orchestrator.core.topology import ZoneState as Z

pytestmark = pytest.mark.soak

AWS, AZURE = "aws/us-east-1a", "azure/eastus-1"
ZONES = [AWS, AZURE, "aws/us-east-1b", "azure/eastus-2"]
# Steps long enough that they are measured where a region is slow to send its users to instances that are new to it.
POLICY = {"upgrade_timeout_s": 15.0, "verify_timeout_s": 10.0, "ramp_step_s": 3.0, "on_failure": "rollback-zone"}

# title, faults set before the deploy starts
PASSING: dict[str, list[dict[str, Any]]] = {
    "throttling without Retry-After": [
        {"cloud": "aws", "kind": "throttle", "call": r"(Describe|Modify|Attach|Detach|Start|Suspend)", "count": 25},
        {"cloud": "azure", "kind": "throttle", "count": 25},
    ],
    "throttling with Retry-After 1 s": [
        {"cloud": "aws", "kind": "throttle", "call": r"\.(Modify|Start|Attach|Detach)", "count": 6, "retry_after_s": 1},
        {
            "cloud": "azure",
            "kind": "throttle",
            "method": "PATCH",
            "call": "virtualMachineScaleSets",
            "count": 4,
            "retry_after_s": 1,
        },
    ],
    "server errors": [
        {"cloud": "aws", "kind": "error", "count": 25},
        {"cloud": "azure", "kind": "error", "count": 25},
    ],
    "calls that time out and happen all the same": [
        {"cloud": "aws", "kind": None, "call": r"\.(StartInstanceRefresh|ModifyListener)", "count": 3, "delay_s": 2.5},
        {
            "cloud": "azure",
            "kind": None,
            "method": "PATCH",
            "call": "virtualMachineScaleSets",
            "count": 2,
            "delay_s": 2.5,
        },
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
    "Azure credentials expire in the middle": (
        AZURE,
        {"cloud": "azure", "kind": "deny", "status": 401, "code": "ExpiredAuthenticationToken", "count": 10000},
        "ExpiredAuthenticationToken",
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


def calls(made: Stage, since: float, until: float = float("inf")) -> Counter[str]:
    """The calls that the clouds' APIs got, by the name that each cloud has for them."""
    return Counter(e["call"].rpartition(".")[2] for e in made.timeline("api", since) if e["t"] <= until)


def test_an_instance_refresh_that_hangs_is_cancelled_and_its_zone_comes_back_as_it_was(made: Stage, case: Case) -> None:
    version, before = other(made), made.versions()
    made.lab("/cloud-fault", cloud="aws", call="StartInstanceRefresh", kind="hang")
    deploy = made.deploy(version)
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert (10, "failed") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    assert "more than 15 s: 0 of 2 replaced" in ended.evidence("unhealthy")
    asked = calls(made, deploy.started_at)
    assert (1, 1) == (asked["StartInstanceRefresh"], asked["CancelInstanceRefresh"])
    assert before == made.versions()
    case.tell("AWS's instance refresh hangs", users, "cancelled; failed; zone back", ended.evidence("unhealthy"))


def test_an_instance_refresh_that_fails_holds_its_zone_out_and_a_person_has_it_tried_again(
    made: Stage, case: Case
) -> None:
    version = other(made)
    made.lab(
        "/cloud-fault", cloud="aws", call="StartInstanceRefresh", kind="fail", message="An internal error occurred."
    )
    deploy = made.deploy(version, "--on-failure", "hold")
    held = deploy.wait()
    ended = mended(made, held, AWS, "instance refresh Failed: An internal error occurred.", "aws")
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert 0 == ended.code, ended.err[-3000:]
    assert {zone: {version: 2} for zone in ZONES} == made.ending()["processes"]
    assert 3 == calls(made, deploy.started_at)["StartInstanceRefresh"], "one more than there are zones"
    assert held.state is not None
    case.tell(
        "AWS's instance refresh fails", users, "held (held-out), resumed by a person, succeeded", held.state.reason
    )


def test_an_upgrade_of_azure_is_carried_on_by_its_token_after_kill_9_in_its_middle(made: Stage, case: Case) -> None:
    """The zone's machines are dead for that time, so that the operation is still at work when the next process comes."""
    version = other(made)
    deploy = made.deploy(version)
    made.until_zone(AZURE, Z.UPGRADING)
    until(lambda: [e for e in made.timeline("refresh", deploy.started_at) if e["zone"] == AZURE], "the upgrade began")
    made.lab("/fail", zone=AZURE, mode="kill")
    begun = time.time()
    until(lambda: calls(made, begun)["Operations_Get"], "the first process asks after the operation")
    deploy.kill()
    killed = time.time()
    carrying = made.resume()
    until(lambda: calls(made, killed)["Operations_Get"], "the next process asks after the same operation")
    asked = calls(made, killed)
    made.lab("/heal", zone=AZURE)
    ended = carrying.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert 0 == ended.code, ended.err[-3000:]
    assert {zone: {version: 2} for zone in ZONES} == made.ending()["processes"]
    writes = [call for call in asked if call.startswith("VirtualMachineScaleSets_") and "Get" not in call]
    assert [] == writes, "what was begun is looked at, not begun again"
    once = {"VirtualMachineScaleSets_Update": 2, "VirtualMachineScaleSets_UpdateInstances": 2}
    assert once.items() <= calls(made, deploy.started_at).items(), "one model and one upgrade a zone, in all"
    case.tell("kill -9 in the middle of Azure's upgrade operation", users, "resumed, succeeded",
              f"asked after by its token {asked['Operations_Get']} times after the kill; begun once")  # fmt: skip


def until(so: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not so():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)


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
