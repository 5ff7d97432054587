"""The programs are typed."""

from __future__ import annotations

import subprocess
import sys

from infra.lab.engine import INFRA


def test_the_programs_are_typed_as_strictly_as_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--package", "infra"],
        cwd=INFRA.parent,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
