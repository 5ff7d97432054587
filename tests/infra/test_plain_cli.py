"""The project folders as they are committed, under `pulumi` as a person runs it, beside a Failout that deploys.

The lab has the clouds, the provider plugins and the users; what runs in the folders is the CLI and its Python language
host. One story, in order; FAILOUT_TRANSCRIPT names a file that keeps what was typed and what was answered.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from deploying import deploying
from engine_world import STACK, Json, failout, lab_environment, stack_name

from infra.lab.engine import INFRA
from orchestrator.lab.blueprint import Blueprint, RegionBlueprint
from orchestrator.lab.daemon import Daemon
from orchestrator.lab.programs import programs_plan
from orchestrator.lab.traffic.record import read

if not (shutil.which("pulumi") and shutil.which("pulumi-language-python")):
    pytest.skip("no `pulumi` with a Python language host on PATH: see infra/README.md", allow_module_level=True)

BLUEPRINT = Blueprint(
    name="plain",
    regions=(RegionBlueprint("aws", "us-east-1", 2), RegionBlueprint("azure", "eastus", 2)),
    instances=2,
    instances_max=6,
    policy={"ramp_step_s": 2.0, "bake_s": 4.0},
)
RATE = 60
PROGRAMS = ("aws", "azure", "global")
TRANSCRIPT = os.environ.get("FAILOUT_TRANSCRIPT", os.devnull)


class PlainDaemon(Daemon):
    """A lab that `pulumi up` in copies of the three folders provisions."""

    environment: dict[str, str]

    def pulumi(self, program: str, *arguments: str) -> str:
        """Run `pulumi` in the program's folder; returns what it says."""
        done = subprocess.run(
            ["pulumi", *arguments, "--color", "never", "--non-interactive"],
            cwd=self._folder / "service" / "infra" / program,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        with Path(TRANSCRIPT).open("a") as kept:
            kept.write(f"$ (cd {program} && pulumi {' '.join(arguments)})\n{done.stdout}\n")
        assert done.returncode == 0, f"pulumi {' '.join(arguments)} in {program}: {done.stdout[-3000:]}"
        return done.stdout

    def _provision(self, azure_url: str) -> Json:
        service = self._folder / "service"
        shutil.copytree(INFRA, service / "infra", ignore=shutil.ignore_patterns("__pycache__", "Pulumi.*.yaml"))
        (service / ".venv-infra").symlink_to(sys.prefix)  # where the project files look for it
        self.environment = lab_environment(self._folder / "pulumi", self._aws.endpoint, azure_url)
        backend = self.environment.pop("PULUMI_BACKEND_URL")
        self.pulumi("aws", "login", backend)
        programs = programs_plan(self._plan, self._octets, self._aws.endpoint, azure_url)["programs"]
        for member in programs["global"]["regions"]:
            member["stack"] = stack_name(member["id"].split("/")[0])
        for program in PROGRAMS:
            config = {f"failout-{program}:{key}": value for key, value in programs[program].items()}
            file = service / "infra" / program / f"Pulumi.{STACK}.yaml"
            file.write_text(yaml.safe_dump({"config": config}), "utf-8")
            self.pulumi(program, "stack", "init", STACK)
            self.pulumi(program, "up", "--refresh", "--yes", "--suppress-progress")
        stacks = [argument for program in PROGRAMS for argument in ("--stack", stack_name(program))]
        out = self._folder / "topology.json"
        failout(["topology", "import", *stacks, "--out", str(out)], self._folder, self.environment)
        imported: Json = json.loads(out.read_text("utf-8"))
        return imported


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[PlainDaemon]:
    BLUEPRINT.write(folder)
    daemon = PlainDaemon(folder, BLUEPRINT)
    try:
        daemon.up(lambda *_args, **_fields: None)
        yield daemon
    finally:
        daemon.close()


def test_the_projects_as_committed_make_what_the_clouds_then_say(lab: PlainDaemon, folder: Path) -> None:
    assert [] == json.loads(failout(["topology", "check", "--json", "-C", "failout.yaml"], folder))["drift"]
    assert 4 * 2 == len(lab.data.status().instances)


def test_a_tag_changed_by_an_up_in_the_middle_of_a_deploy_moves_no_traffic(lab: PlainDaemon, folder: Path) -> None:
    """Nothing is paused: users send, Failout deploys v2, and `pulumi up --refresh` writes a tag to every fleet meanwhile."""
    with deploying(folder, BLUEPRINT, f"{lab.dns_address}:5353", RATE) as deploy:
        deploy.await_first_out()
        with ThreadPoolExecutor() as both:
            said_by = list(both.map(lambda program: _up_with_a_new_tag(lab, program), ("aws", "azure")))
        assert deploy.process.poll() is None, "the deploy ended before pulumi did"
        for said in said_by:
            changed = [int(count) for count in re.findall(r"~ (\d+) updated", said)]
            assert max(changed, default=0) > 2, f"the tag did not reach the fleets: {said[-2000:]}"
    deploy.require_unharmed()
    assert {"v2"} == {i.version for i in lab.data.status().instances}
    timeline = [json.loads(line) for line in (folder / "timeline.jsonl").read_text("utf-8").splitlines()]
    assert {100} == {weight for e in timeline if e["kind"] == "dns" for weight in e["weights"].values()}
    out = {e["zone"]: (_last_idle(timeline, e), e["t"]) for e in timeline if e.get("state") == "finished"}
    assert 4 == len(out)
    assert [] == [
        row for row in read(deploy.traffic.log) if row.zone in out and out[row.zone][0] < row.t < out[row.zone][1]
    ]


def _up_with_a_new_tag(lab: PlainDaemon, program: str) -> str:
    lab.pulumi(program, "config", "set", "--path", f"failout-{program}:tags.team", "gates")
    return lab.pulumi(program, "up", "--refresh", "--yes", "--suppress-progress")


def _last_idle(timeline: list[Json], refresh: Json) -> float:
    """When the zone's last user had gone, before its instances were replaced."""
    zone, until = refresh["zone"], refresh["t"]
    return max(float(e["t"]) for e in timeline if (e["kind"], e.get("zone")) == ("idle", zone) and e["t"] < until)


@pytest.mark.parametrize("program", PROGRAMS)
def test_after_the_deploy_a_preview_has_nothing_to_change(lab: PlainDaemon, program: str) -> None:
    said = lab.pulumi(program, "preview", "--refresh", "--expect-no-changes", "--suppress-progress")
    assert re.search(r"\d+ unchanged", said), said[-2000:]
