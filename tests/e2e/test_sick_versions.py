"""Versions that are sick, deployed under live traffic: caught while the zone is out, rolled back, verified, returned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.cases import Case
from e2e.stage import Ended, Failout, Labs, Stage, blueprint, stage

from orchestrator.core.topology import ZoneState as Z

pytestmark = pytest.mark.soak

FIRST, OTHERS = "aws/us-east-1a", ["azure/eastus-1", "aws/us-east-1b", "azure/eastus-2"]
# Two seconds a step: Azure spreads connections, and half a zone gets few of them in one.
POLICY = {"upgrade_timeout_s": 12.0, "verify_timeout_s": 6.0, "ramp_step_s": 2.0}
ALL_V1 = {zone: {"v1": 2} for zone in [FIRST, *OTHERS]}

# version, the effect that catches it, what its evidence says
SICK = [
    ("v2-noboot", "drained", "the upgrade to v2-noboot took more than"),
    ("v2-notready", "upgraded", "becoming ready took more than"),
    ("v2-early", "upgraded", "synthetic requests answered"),
    ("v2-errors-1", "upgraded", "synthetic requests answered"),
    ("v2-errors-20", "upgraded", "synthetic requests answered"),
    ("v2-errors-100", "upgraded", "synthetic requests answered"),
    ("v2-slow", "upgraded", "more than"),
]


def at_v1(made: Stage) -> bool:
    return ALL_V1 == {zone: dict(versions) for zone, versions in made.versions().items()}


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    kept = Labs(tmp_path_factory.mktemp("sick"), blueprint(policy=POLICY), at_v1)
    yield kept
    kept.close()


@pytest.fixture
def made(labs: Labs) -> Stage:
    lab = labs.get()
    lab.write_policy(on_failure="rollback-zone")
    return lab


def nobody_was_harmed(made: Stage, deploy: Failout, version: str) -> Any:
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert version not in users.by_version
    return users


def back_at_v1(made: Stage, ended: Ended) -> None:
    ending = made.ending()
    assert ALL_V1 == ending["processes"]
    assert dict.fromkeys(ALL_V1, ("steady", 1.0)) == ending["traffic"]
    assert {zone: ("steady", 2, 2, {"v1": 2}, "v1", True) for zone in ALL_V1}.items() <= ending["clouds"].items()
    assert [] == ending["leases"]
    for zone in OTHERS:
        assert [] == ended.kinds(zone)


@pytest.mark.parametrize(("version", "after", "evidence"), SICK, ids=[s[0] for s in SICK])
def test_a_sick_version_is_caught_before_any_user_sees_it_and_rolled_back(
    made: Stage, case: Case, version: str, after: str, evidence: str
) -> None:
    deploy = made.deploy(version)
    ended = deploy.wait()
    users = nobody_was_harmed(made, deploy, version)
    assert (10, "failed") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
    kinds = ended.kinds(FIRST)
    assert after == kinds[kinds.index("unhealthy") - 1], kinds
    assert "verified" in kinds[kinds.index("unhealthy") :], "the old version is verified before it returns"
    assert evidence in ended.evidence("unhealthy")
    back_at_v1(made, ended)
    case.tell(
        f"{version}, on failure: roll the zone back", users, "failed; zone back at v1", ended.evidence("unhealthy")
    )


@pytest.mark.parametrize("version", ["v2-notready", "v2-errors-1", "v2-slow"])
def test_a_sick_version_is_held_out_for_a_person_and_an_abort_brings_the_zone_back(
    made: Stage, case: Case, version: str
) -> None:
    made.write_policy(on_failure="hold")
    deploy = made.deploy(version)
    held = deploy.wait()
    assert (11, "held-out") == (held.code, held.zones()[FIRST])
    assert held.run is not None
    assert f"resume {held.run.id}" in held.out
    assert 0 == made.order("abort").code
    ended = made.resume().wait()
    users = nobody_was_harmed(made, deploy, version)
    assert (10, "aborted") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
    back_at_v1(made, ended)
    case.tell(
        f"{version}, on failure: hold; a person aborts", users, "held out, then aborted; zone back at v1",
        held.evidence("unhealthy"),
    )  # fmt: skip


def test_a_version_sick_on_one_cloud_only_is_rolled_back_everywhere_newest_first(made: Stage, case: Case) -> None:
    """I12: the zone that was fine with it goes back too, after the sick one."""
    version = "v2-errors-20-on-azure"
    made.release(version)
    made.write_policy(on_failure="rollback-all")
    deploy = made.deploy(version)
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert (10, "rolled-back") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
    settled = [e.event.zone for e in ended.events if e.event.kind == "settled"]
    assert [FIRST, "azure/eastus-1", FIRST] == settled
    assert ALL_V1 == made.ending()["processes"]
    case.tell(
        "Version sick on Azure only (20 % errors), on failure: roll all back", users, "rolled back, newest first",
        f"first zone done, then azure/eastus-1: {ended.evidence('unhealthy')}",
    )  # fmt: skip


def test_a_fix_is_rolled_forward_over_the_broken_zone(made: Stage, case: Case) -> None:
    """I13: a new target restarts the gates of the zone that is held out; nobody is rolled back in between."""
    made.write_policy(on_failure="hold")
    deploy = made.deploy("v2-notready")
    held = deploy.wait()
    assert "retarget" in held.out
    refused = made.deploy("v3").wait()
    assert (3, True) == (refused.code, "retarget" in refused.err), refused.err
    assert 0 == made.order("retarget", "--to", "v3").code
    ended = made.resume().wait()
    users = nobody_was_harmed(made, deploy, "v2-notready")
    assert 0 == ended.code, ended.err[-2000:]
    assert {zone: {"v3": 2} for zone in ALL_V1} == made.ending()["processes"]
    assert 1 == ended.kinds(FIRST).count("settled")
    case.tell(
        "v2-notready is held out; v3 is rolled forward over it", users, "succeeded at v3",
        "the broken zone went from v2-notready to v3 without traffic in between",
    )  # fmt: skip
    assert 0 == made.deploy("v1").wait().code


def test_a_rollback_goes_newest_first_and_is_no_slower_than_the_way_forward_less_its_bake(
    made: Stage, case: Case
) -> None:
    """I12: ordered while the third zone is out."""
    deploy = made.deploy("v2")
    made.until_zone("aws/us-east-1b", Z.UPGRADING)
    assert 0 == made.order("rollback").code
    ended = deploy.wait()
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert (10, "rolled-back") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
    settled = [e.event.zone for e in ended.events if e.event.kind == "settled"]
    assert ["aws/us-east-1a", "azure/eastus-1", "aws/us-east-1b", "azure/eastus-1", "aws/us-east-1a"] == settled
    assert ALL_V1 == made.ending()["processes"]
    took: dict[str, list[float]] = {}
    for zone in ("aws/us-east-1a", "azure/eastus-1"):
        seconds, ways = 0.0, took.setdefault(zone, [])
        for e in ended.events:
            if e.event.zone == zone:
                seconds += 0.0 if e.event.kind == "baked" else e.duration_s
                if e.event.kind == "settled":
                    ways.append(seconds)
                    seconds = 0.0
    forward, back = (sum(ways[i] for ways in took.values()) for i in (0, 1))
    assert back <= forward * 1.15, took  # two runs of the same steps on a busy machine
    case.tell(
        "Rollback ordered while the third of four zones is out", users, "rolled back, newest first",
        f"two zones took {forward:.1f} s forward without bake, {back:.1f} s back",
    )  # fmt: skip


def test_a_version_that_leaks_until_it_dies_is_seen_in_a_bake_that_is_long_enough(tmp_path: Path, case: Case) -> None:
    """It dies a minute after its boot: nothing but users' requests over more than a minute can tell."""
    policy = {**POLICY, "bake_s": 35.0, "bake_first_factor": 2.0}
    with stage(tmp_path, blueprint(policy=policy)) as made:
        deploy = made.deploy("v2-leaks")
        ended = deploy.wait(200)
        users = made.seen(deploy.started_at)
        assert (10, "failed") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
        back_at_v1(made, ended)
        kinds = ended.kinds(FIRST)
        # By what users saw, or by the count of instances where the balancer had taken the dead out of service already.
        found = next(kind for kind in kinds if kind in {"unhealthy", "incomplete"})
        assert kinds.index("joined") < kinds.index(found)
    case.tell(
        "v2-leaks: dies a minute after boot, bake of 70 s", users, "failed; zone back at v1",
        f"requests on their way when the processes died: {users.failures or 'none'}; {ended.evidence(found)}",
    )  # fmt: skip
