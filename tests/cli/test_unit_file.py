"""The systemd unit that is shipped is one, and starts a command that exists."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli.shell import Shell

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "failout.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "failout.service"
    copy.write_text(UNIT.read_text().replace("/usr/bin/failout", str(Path(sys.executable).with_name("failout"))))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    ours = [line for line in told.stderr.splitlines() if "failout" in line]
    assert [] == ours
    copy.write_text(copy.read_text().replace("Restart=always", "Restart=sometimes"))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert "restart specifier" in told.stderr, "it would have told"


def test_the_unit_gives_serve_options_that_it_has(shell: Shell) -> None:
    command = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")).split()
    assert "serve" == command[1]
    known = shell.run("serve", "--help").out
    assert all(word in known for word in command if word.startswith("--"))


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("useradd") is None, reason="adds a user, below a folder")
def test_the_steps_of_the_installation_work_one_after_the_other(tmp_path: Path) -> None:
    """As docs/operations.md has them, below a root of its own; what needs systemd or a cloud is left out."""
    for name in ("passwd", "group", "systemd/system/none"):
        (tmp_path / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc" / name).touch()
    failout = f"{sys.executable} -m orchestrator.cli"
    steps = (ROOT / "docs/operations.md").read_text().split("## Install under systemd")[1].split("```")[1]
    skipped = ("systemctl ", "failout doctor ")
    for step in (line.split("  #")[0] for line in steps.strip().splitlines() if not line.startswith(skipped)):
        own = step.replace("/etc/", f"{tmp_path}/etc/").replace("&& failout ", f"&& {failout} ")
        own = own.replace("useradd ", f"useradd --prefix {tmp_path} ").replace("-o failout ", "")
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(own, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert (0, step) == (done.returncode, step), done.stderr
    assert "failout:" in (tmp_path / "etc/passwd").read_text()
    assert {"failout.yaml", "agent.token", "environment"} == {f.name for f in (tmp_path / "etc/failout").iterdir()}
