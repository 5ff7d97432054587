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
    told = ", ".join(f"{s:.1f} s" for s in moving)
    case.tell(
        "kill -9 of the orchestrator during an upgrade, and again on a ramp", users, "resumed, succeeded",
        f"first committed event {told} after each `deploy --resume`; same end state as uninterrupted",
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize(
    ("cloud", "one", "two", "zones"),
    [
        ("aws", "us-east-1", "us-west-2", ["aws/us-east-1a", "aws/us-west-2a", "aws/us-west-2b"]),
        pytest.param(
            "azure",
            "eastus",
            "westeurope",
            ["azure/eastus-1", "azure/westeurope-1", "azure/westeurope-2"],
            marks=pytest.mark.soak,
        ),
    ],
)
def test_a_region_of_one_zone_is_emptied_through_the_dns_first_and_two_regions_of_one_cloud_deploy(
    tmp_path: Path, case: Case, cloud: str, one: str, two: str, zones: list[str]
) -> None:
    """The TTL is waited before the zone is drained and again before the next one leaves."""
    regions = RegionBlueprint(cloud, one, 1), RegionBlueprint(cloud, two, 2)
    alone, other, only = f"{cloud}/{one}", f"{cloud}/{two}", zones[0]
    with stage(tmp_path, blueprint(regions, ttl_s=2)) as made:
        deploy = made.deploy("v2")
        ended = deploy.wait()
        users = made.seen(deploy.started_at)
        no_harm(made, deploy.started_at)
        assert 0 == ended.code, ended.err[-2000:]
        ending = made.ending()
        assert {alone: 100, other: 100} == ending["weights"] == ending["clouds"]["weights"]
        assert {zone: {"v2": 2} for zone in zones} == ending["processes"]
        answered = [e for e in made.timeline("dns") if e["t"] > deploy.started_at]
        emptied = next(e for e in answered if e["weights"][alone] == 0)
        returned = [e for e in answered if e["weights"][alone] == 100][-1]
        replaced = next(e for e in made.timeline("refresh") if e["zone"] == only)
        assert replaced["t"] - emptied["t"] >= 2.0
        step = next(e for e in ended.events if e.event.zone == only and "at 100%" in e.event.evidence)
        assert at(step) - returned["t"] >= 2.0
    told = (
        f"its zone was replaced {replaced['t'] - emptied['t']:.1f} s after the region's DNS weight became 0 (TTL 2 s)"
    )
    case.tell(f"Two regions of {cloud}, one of them with a single zone", users, "succeeded", told)
