from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cli.shell import MANIFEST, TOPOLOGY, Ended, Say, Shell

from orchestrator.cli import run

# A fleet of one at 24 requests/s in all: a zone that is out leaves the other at 0.6 of what it can.
# What is looked at is what is printed: a machine that stands still for a moment shall not make the version slow.
GATE = {"samples_min": 8, "slow_share_max": 1.0, "p50_added_max_ms": 1000.0}
QUICK = {"ramp_shares": [1.0], "ramp_step_s": 2.0, "bake_s": 1.0, "bake_first_factor": 1.0, "gate": GATE}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """`failout` in an empty folder."""
    return Shell(tmp_path)


@pytest.fixture
def service(shell: Shell) -> Shell:
    """Settings of a service whose clouds nobody can reach, and a state that was never used."""
    (shell.folder / "failout.yaml").write_text("service: gates\nstate: state\n")
    (shell.folder / "topology.json").write_text(json.dumps(TOPOLOGY))
    (shell.folder / "releases").mkdir()
    for version in ("v1", "v2"):
        (shell.folder / f"releases/{version}.yaml").write_text(MANIFEST.format(version))
    (shell.folder / "agent.token").write_text("t" * 40)
    (shell.folder / "agent.token").chmod(0o600)
    return shell


@pytest.fixture
def say(service: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """`failout` in this process and in the folder of a service."""
    monkeypatch.chdir(service.folder)

    def said(*args: str) -> Ended:
        code = run([*args])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return said


@pytest.fixture(scope="module")  # of a file and no longer: what idles there would slow down what comes after
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A lab of one zone on each cloud, with users."""
    shell = Shell(tmp_path_factory.mktemp("lab"))
    shell.run(
        "lab", "up", "--name", "cli", "--aws", "us-east-1:1", "--azure", "eastus:1", "--instances", "1", "--ttl", "1"
    )
    config = shell.folder / ".failout/labs/cli/failout.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["policy"].update(QUICK)
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "orchestrator.cli", "lab", "traffic", "--name", "cli", "--rate", "24", "--json"]
    with (shell.folder / "traffic.json").open("wb") as out:
        users = subprocess.Popen(
            command, cwd=shell.folder, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield shell
    finally:
        os.killpg(users.pid, signal.SIGTERM)
        users.wait(20)
        shell.run("lab", "down", "--name", "cli")
