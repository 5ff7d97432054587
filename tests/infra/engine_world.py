"""Pulumi's own engine on a lab: stacks on a file backend, the lab's provider plugins, real programs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi.automation as auto

from infra.lab.engine import INFRA
from orchestrator.lab.blueprint import Blueprint
from orchestrator.lab.daemon import Daemon
from orchestrator.lab.programs import programs_plan

ORGANISATION = "organization"  # what a file backend calls it
STACK = "lab"
Json = dict[str, Any]


def stack_name(program: str) -> str:
    return f"{ORGANISATION}/failout-{program}/{STACK}"


def lab_environment(folder: Path, aws_url: str, azure_url: str) -> dict[str, str]:
    """What `pulumi` needs to work on a lab: a file backend in `folder`, and the lab's plugins before any other.

    Plugins run by this interpreter; nothing is looked for on the network.
    """
    backend, bin_ = folder / "backend", folder / "bin"
    backend.mkdir(parents=True)
    bin_.mkdir()
    for plugin in (INFRA / "lab" / "plugins").glob("pulumi-resource-*"):
        _script(bin_ / plugin.name, f'"{plugin}" "$@"')
    return {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_HOME": str(folder / "home"),
        "PULUMI_BACKEND_URL": f"file://{backend}",
        "PULUMI_CONFIG_PASSPHRASE": "lab",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "FAILOUT_LAB_AWS": aws_url,
        "FAILOUT_LAB_AZURE": azure_url,
    }


def _script(path: Path, arguments: str) -> None:
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n')
    path.chmod(0o755)


class Engine:
    """`pulumi up`, `preview`, `refresh`, `destroy` of the three programs; everything it keeps is in `folder`."""

    def __init__(self, folder: Path, aws_url: str, azure_url: str, configs: dict[str, Json]) -> None:
        self.configs = configs
        self.environment = lab_environment(folder, aws_url, azure_url)
        bin_ = folder / "bin"
        # Beside a language host, or with one on PATH, the engine would run policies by it: here this interpreter runs all.
        shutil.copy(str(shutil.which("pulumi")), bin_)
        _script(bin_ / "pulumi-analyzer-policy-python", '-u -m pulumi.policy "$1" "$2"')
        path = [d for d in os.environ["PATH"].split(os.pathsep) if not (Path(d) / "pulumi-language-python").exists()]
        self.environment["PATH"] = os.pathsep.join([str(bin_), *path])
        self._folder = folder

    def stack(self, program: str) -> auto.Stack:
        """The stack with its configuration as `configs` has it now."""
        work = self._folder / program
        work.mkdir(exist_ok=True)

        def body() -> None:
            runpy.run_path(str(INFRA / program / "__main__.py"), run_name="__main__")

        project = f"failout-{program}"
        options = auto.LocalWorkspaceOptions(
            work_dir=str(work),
            env_vars=self.environment,
            project_settings=auto.ProjectSettings(name=project, runtime="python"),
        )
        made = auto.create_or_select_stack(STACK, project_name=project, program=body, opts=options)
        config = {
            f"{project}:{key}": auto.ConfigValue(item if isinstance(item, str) else json.dumps(item))
            for key, item in self.configs[program].items()
        }
        made.set_all_config(config)
        return made

    def up(self, program: str, *, refresh: bool = True) -> auto.UpResult:
        return self.stack(program).up(refresh=refresh, color="never", suppress_progress=True)

    def refusals(self, program: str) -> list[str]:
        """The rules of the policy pack that a preview of the program breaks."""
        try:
            self.stack(program).preview(policy_packs=[str(INFRA / "policy")], color="never", suppress_progress=True)
        except auto.CommandError as error:
            broken = re.findall(r"\[mandatory\]\s+(\S+)", str(error))
            if not broken:
                raise
            return broken
        return []

    def changes(self, program: str, *, refresh: bool) -> dict[str, int]:
        """What a preview would change, by kind of change; empty: nothing."""
        summary = self.stack(program).preview(refresh=refresh, color="never", suppress_progress=True).change_summary
        return {str(kind): count for kind, count in summary.items() if kind not in ("same", "read") and count}


def up_apart(engine: Engine, program: str) -> dict[str, int]:
    """`up --refresh` for a process of its own: a lab in this one serves users, and a program would take its turns.

    Returns the count of resources by kind of change.
    """
    changed = engine.up(program).summary.resource_changes
    return {str(kind): count for kind, count in (changed or {}).items()}


class EngineDaemon(Daemon):
    """A lab that Pulumi's engine provisions, and whose topology comes by `failout topology import --stack`."""

    engine: Engine

    def _provision(self, azure_url: str) -> Json:
        plan = programs_plan(self._plan, self._octets, self._aws.endpoint, azure_url)
        programs: dict[str, Json] = plan["programs"]
        for member in programs["global"]["regions"]:
            member["stack"] = stack_name(member["id"].split("/")[0])
        self.engine = Engine(self._folder / "pulumi", self._aws.endpoint, azure_url, programs)
        for program in programs:
            self.engine.up(program, refresh=False)
        out = self._folder / "topology.json"
        stacks = [arg for program in programs for arg in ("--stack", stack_name(program))]
        failout(["topology", "import", *stacks, "--out", str(out)], self._folder, self.engine.environment)
        imported: Json = json.loads(out.read_text("utf-8"))
        return imported


def failout(arguments: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run `failout` in `folder` as a person would; returns what it prints."""
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    environ = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def has_engine() -> bool:
    return shutil.which("pulumi") is not None


def raise_engine_lab(folder: Path, blueprint: Blueprint) -> EngineDaemon:
    folder.mkdir(parents=True, exist_ok=True)
    blueprint.write(folder)
    daemon = EngineDaemon(folder, blueprint)
    try:
        daemon.up(lambda *_args, **_fields: None)
    except BaseException:
        daemon.close()
        raise
    return daemon
