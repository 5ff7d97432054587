"""The main job and what may interrupt it: under live traffic, in strict mode, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.cases import Case
from e2e.stage import Stage, at, blueprint, stage

from orchestrator.core.topology import ZoneState as Z
from orchestrator.lab.blueprint import RegionBlueprint

ZONES = ["aws/us-east-1a", "azure/eastus-1", "aws/us-east-1b", "azure/eastus-2"]
LEFT: dict[str, Any] = {
    "run": ("succeeded", True, None, None, None),
    "zones": [(zone, "done", "v2", False, {}) for zone in ZONES],
    "leases": [],
    "traffic": dict.fromkeys(ZONES, ("steady", 1.0)),
    "weights": {"aws/us-east-1": 100, "azure/eastus": 100},
    "clouds": {
        "weights": {"aws/us-east-1": 100, "azure/eastus": 100},
        **{zone: ("steady", 2, 2, {"v2": 2}, "v2", True) for zone in ZONES},
    },
    "processes": {zone: {"v2": 2} for zone in sorted(ZONES)},
}


def no_harm(made: Stage, since: float) -> None:
    assert [] == [(r.t - since, r.zone, r.version, r.outcome) for r in made.failures(since)]


@pytest.mark.soak
def test_a_good_deploy_fails_no_request_and_leaves_everything_as_it_should_be(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint()) as made:
        deploy = made.deploy("v2", "--json")
        ended = deploy.wait()
        users = made.seen(deploy.started_at)
        no_harm(made, deploy.started_at)
        assert (0, "succeeded") == (ended.code, json.loads(ended.out)["status"])
        assert LEFT == made.ending()
        assert ["admitted", "prepared", "drained", "upgraded", "verified", "step-passed", "step-passed", "joined",
                "baked", "settled"] == ended.kinds("azure/eastus-1")  # fmt: skip
        assert {"v1", "v2"} == set(users.by_version)
        balancing = made.lab("/status")["balancing"]
        assert (0, 0) == (balancing["retries"], balancing["redispatches"])
    case.tell("A good deploy of four zones in two clouds", users, "succeeded", f"{ended.seconds:.0f} s, no retry")


def test_kill_9_in_the_middle_harms_nobody_and_resume_ends_as_if_nothing_had_been(tmp_path: Path, case: Case) -> None:
    """I11, I16: killed while the cloud replaces instances, and again while a zone is on the ramp."""
    with stage(tmp_path, blueprint()) as made:
        deploy = made.deploy("v2")
        moving: list[float] = []
        made.until_zone(ZONES[1], Z.UPGRADING)
        deploy.kill()
        for zone, state in ((ZONES[2], Z.RAMPING), ("", "")):
            again = made.resume()
            if zone:
                made.until_zone(zone, state)
                again.kill()
            else:
                ended = again.wait()
            run = made.newest_run()
            assert run is not None
            with made.glance() as glance:
                moving.append(min(at(e) for e in glance.events(run.id) if at(e) > again.started_at) - again.started_at)
        users = made.seen(deploy.started_at)
        no_harm(made, deploy.started_at)
        assert 0 == ended.code, ended.err[-2000:]
        assert LEFT == made.ending()
        assert max(moving) < 5.0
    told = ", ".join(f"{s:.1f} s" for s in moving)
    case.tell(
        "kill -9 of the orchestrator during an upgrade, and again on a ramp", users, "resumed, succeeded",
        f"first committed event {told} after each `deploy --resume`; same end state as uninterrupted",
    )  # fmt: skip


def test_a_region_of_one_zone_is_emptied_through_the_dns_first_and_two_regions_of_one_cloud_deploy(
    tmp_path: Path, case: Case
) -> None:
    """The TTL is waited before the zone is drained and again before the next one leaves."""
    one, two = RegionBlueprint("aws", "us-east-1", 1), RegionBlueprint("aws", "us-west-2", 2)
    with stage(tmp_path, blueprint((one, two), ttl_s=2)) as made:
        deploy = made.deploy("v2")
        ended = deploy.wait()
        users = made.seen(deploy.started_at)
        no_harm(made, deploy.started_at)
        assert 0 == ended.code, ended.err[-2000:]
        ending = made.ending()
        assert {"aws/us-east-1": 100, "aws/us-west-2": 100} == ending["weights"] == ending["clouds"]["weights"]
        assert {"aws/us-east-1a": {"v2": 2}, "aws/us-west-2a": {"v2": 2}, "aws/us-west-2b": {"v2": 2}} == ending[
            "processes"
        ]
        emptied, returned = [e for e in made.timeline("dns") if e["t"] > deploy.started_at]
        assert 0 == emptied["weights"]["aws/us-east-1"] < emptied["weights"]["aws/us-west-2"]
        assert 100 == returned["weights"]["aws/us-east-1"]
        drained = next(e for e in ended.events if e.event.kind == "prepared" and e.event.zone == "aws/us-east-1a")
        assert 2.0 <= at(drained) - emptied["t"]
        settled = next(e for e in ended.events if e.event.kind == "settled" and e.event.zone == "aws/us-east-1a")
        assert 2.0 <= at(settled) - returned["t"]
    case.tell(
        "Two regions of one cloud, one of them with a single zone", users, "succeeded",
        "the DNS weight of the single zone's region was 0 and its TTL had passed before the zone was drained",
    )  # fmt: skip
