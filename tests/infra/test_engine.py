"""With Pulumi's own engine: what `up`, `preview`, `refresh` and `destroy` do beside a Failout that deploys.

The provider plugins are the lab's; engine, programs, orchestrator, load balancers and users are real. One story, in order.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stacks
from deploying import deploying
from engine_world import Engine, EngineDaemon, failout, has_engine, raise_engine_lab, up_apart

from orchestrator.lab.blueprint import Blueprint, RegionBlueprint

if not has_engine():
    pytest.skip("no `pulumi` on PATH: see infra/README.md for how to get it", allow_module_level=True)

BLUEPRINT = Blueprint(
    name="engine",
    regions=(RegionBlueprint("aws", "us-east-1", 2), RegionBlueprint("azure", "eastus", 2)),
    instances=2,
    instances_max=6,
    policy={"ramp_step_s": 2.0, "bake_s": 2.0},
)
RATE = 60
NOWHERE = "http://127.0.0.1:1"  # nothing of a cloud is asked in a preview
REGIONAL = ("aws", "azure")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineDaemon]:
    daemon = raise_engine_lab(tmp_path_factory.mktemp("engine"), BLUEPRINT)
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def folder(lab: EngineDaemon) -> Path:
    return lab._folder


def sizes(lab: EngineDaemon) -> dict[str, Any]:
    client = _autoscaling(lab)
    groups = client.describe_auto_scaling_groups()["AutoScalingGroups"]
    return {
        g["AutoScalingGroupName"]: (g["DesiredCapacity"], g["MaxSize"], g["LaunchTemplate"]["Version"]) for g in groups
    }


def _autoscaling(lab: EngineDaemon) -> Any:
    from orchestrator.lab.aws.provision import client  # noqa: PLC0415

    return client("autoscaling", lab._aws.endpoint, "us-east-1")


def versions(lab: EngineDaemon) -> set[str]:
    return {i.version for i in lab.data.status().instances}


@pytest.mark.parametrize(("program", "config"), [("aws", stacks.aws), ("azure", stacks.azure)])
def test_the_policy_pack_refuses_a_first_preview_of_two_zones_for_that_and_nothing_else(
    tmp_path: Path, program: str, config: Callable[[int, int], dict[str, Any]]
) -> None:
    engine = Engine(tmp_path, NOWHERE, NOWHERE, {program: config(1, 2)})
    assert ["three-zones"] == engine.refusals(program)


def test_what_pulumi_made_is_what_the_clouds_say(lab: EngineDaemon, folder: Path) -> None:
    """`pulumi up` three times, `failout topology import` of the three stacks, and `topology check` finds no drift."""
    told = json.loads(failout(["topology", "check", "--json", "-C", "failout.yaml"], folder))
    assert [] == told["drift"]
    assert 4 * 2 == len(lab.data.status().instances)


@pytest.mark.parametrize("program", [*REGIONAL, "global"])
def test_a_second_up_has_nothing_to_do(lab: EngineDaemon, program: str) -> None:
    assert {} == lab.engine.changes(program, refresh=False)


def test_a_tag_changed_while_a_zone_is_out_moves_no_traffic(lab: EngineDaemon, folder: Path) -> None:
    """The deploy is paused in its middle, `pulumi up --refresh` changes a tag of every fleet, and the deploy goes on."""
    with deploying(folder, BLUEPRINT, f"{lab.dns_address}:5353", RATE) as deploy:
        zone = deploy.await_first_out()
        run_id = json.loads(failout(["deployments", "list", "--json", "-C", "failout.yaml"], folder))["runs"][0]["run"]
        order = ["--reason", "pulumi up in the middle", "-C", "failout.yaml"]
        failout(["deployments", "pause", run_id, *order], folder)
        _await_paused(folder, run_id)
        before = sizes(lab)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            for program in REGIONAL:
                lab.engine.configs[program]["tags"] = {"team": "gates"}
                changed = apart.submit(up_apart, lab.engine, program).result(200)
                assert changed["update"] >= 2, f"{program}: the tag did not reach the fleets"
        assert before == sizes(lab), f"{zone} was out, and pulumi changed what Failout owns"
        failout(["deployments", "resume", run_id, *order], folder)
    deploy.require_unharmed()
    assert {"v2"} == versions(lab)


def _await_paused(folder: Path, run_id: str) -> None:
    deadline = time.monotonic() + 60
    shown = ["deployments", "show", run_id, "--json", "-C", "failout.yaml"]
    while json.loads(failout(shown, folder))["status"] != "paused":
        assert time.monotonic() < deadline, "the deploy did not pause"
        time.sleep(0.1)


@pytest.mark.parametrize("program", [*REGIONAL, "global"])
def test_after_a_deploy_by_failout_pulumi_has_nothing_to_change(lab: EngineDaemon, program: str) -> None:
    assert {} == lab.engine.changes(program, refresh=False)
    assert {} == lab.engine.changes(program, refresh=True)


def test_a_change_of_capacity_changes_that_and_nothing_that_failout_owns(lab: EngineDaemon, folder: Path) -> None:
    before = sizes(lab)
    lab.engine.configs["aws"]["regions"][0]["capacity"]["instances_max"] = 8
    result = lab.engine.up("aws", refresh=True)
    assert {name: (desired, 8, version) for name, (desired, _, version) in before.items()} == sizes(lab)
    topology = result.outputs["topology"].value
    assert {8} == {zone["instances_max"] for zone in topology["regions"][0]["zones"]}
    assert {"v2"} == versions(lab)


def test_without_refresh_a_stale_state_is_written_back(lab: EngineDaemon) -> None:
    """Why the README says `--refresh`: ignored fields come from the last state, and a write carries them along."""
    scaled = "gates-us-east-1a"
    _autoscaling(lab).update_auto_scaling_group(AutoScalingGroupName=scaled, MinSize=3, DesiredCapacity=3)
    lab.engine.configs["aws"]["tags"] = {"team": "doors"}
    lab.engine.up("aws", refresh=True)
    assert 3 == sizes(lab)[scaled][0]
    _autoscaling(lab).update_auto_scaling_group(AutoScalingGroupName=scaled, MinSize=4, DesiredCapacity=4)
    lab.engine.configs["aws"]["tags"] = {"team": "windows"}
    lab.engine.up("aws", refresh=False)
    assert 3 == sizes(lab)[scaled][0]


def test_destroy_leaves_nothing(lab: EngineDaemon) -> None:
    for program in ("global", *REGIONAL):
        lab.engine.stack(program).destroy(color="never", suppress_progress=True)
    assert {} == sizes(lab)
    deadline = time.monotonic() + 30
    while lab.data.status().instances and time.monotonic() < deadline:
        time.sleep(0.1)
    assert () == tuple(lab.data.status().instances)
