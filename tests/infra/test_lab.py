"""A lab that the Pulumi programs provision, without Pulumi's engine: `failout deploy` runs on it, and users notice nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploying import deploying
from engine_world import failout
from jsonschema import validate

from infra.lab.engine import INFRA
from orchestrator.lab.blueprint import Blueprint, RegionBlueprint
from orchestrator.lab.client import control, raise_lab, take_down

BLUEPRINT = Blueprint(
    name="programs",
    regions=(RegionBlueprint("aws", "us-east-1", 2), RegionBlueprint("azure", "eastus", 2)),
    instances=2,
    # A zone returns on Azure by new connections only: a step of two seconds sees a few dozen requests.
    policy={"ramp_step_s": 2.0, "bake_s": 2.0, "ramp_shares": [0.5, 1.0], "gate": {"samples_min": 15, "slow_min": 10}},
    programs=str(INFRA),
)
SCHEMA = json.loads((INFRA.parent / "schemas" / "topology.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    where = tmp_path_factory.mktemp("home") / "programs"
    daemon = raise_lab(where, BLUEPRINT, lambda _: None, with_parent=True)
    try:
        yield where
    finally:
        take_down(where)
        daemon.wait(20)


def test_the_programs_make_the_topology_that_the_schema_says(folder: Path) -> None:
    document = json.loads((folder / "topology.json").read_text("utf-8"))
    validate(document, SCHEMA)
    assert ["aws/us-east-1", "azure/eastus"] == [r["id"] for r in document["regions"]]
    assert [] == json.loads(failout(["topology", "check", "--json", "-C", "failout.yaml"], folder))["drift"]


def test_a_deploy_on_it_fails_no_request(folder: Path) -> None:
    with deploying(folder, BLUEPRINT, control(folder, "/status")["dns"], 120) as deploy:
        pass  # Nothing but the deploy.
    deploy.require_unharmed()
    assert {"v2"} == {i["version"] for i in control(folder, "/status")["instances"]}


def test_only_the_lab_is_within_reach_of_the_lab_s_plugins() -> None:
    """Started without the URL of an emulated cloud, or with another, a plugin ends before it listens."""
    for package, variable in (("aws", "FAILOUT_LAB_AWS"), ("azure-native", "FAILOUT_LAB_AZURE")):
        for url in ("", "https://ec2.us-east-1.amazonaws.com"):
            plugin = INFRA / "lab" / "plugins" / f"pulumi-resource-{package}"
            done = subprocess.run(
                [sys.executable, str(plugin), "127.0.0.1:1"],
                env={variable: url},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (1, "") == (done.returncode, done.stdout)
            assert variable in done.stderr
