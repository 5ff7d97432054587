"""The systemd unit that is shipped is one, and starts a command that exists."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli.shell import Shell

UNIT = Path(__file__).parents[2] / "packaging" / "failout.service"


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
