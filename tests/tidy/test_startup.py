"""`--help` answers at once: no command imports a cloud's SDK, a database library or a server to tell what it does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator.cli.root import COMMANDS

HEAVY = (
    "boto3",
    "botocore",
    "azure",
    "dbos",
    "sqlalchemy",
    "moto",
    "flask",
    "uvicorn",
    "starlette",
    "rich",
    "structlog",
)
PROBE = """
import contextlib, io, json, sys
from orchestrator.cli import run
with contextlib.redirect_stdout(io.StringIO()) as said:
    codes = [run([*noun, "--help"]) for noun in json.loads(sys.argv[1])]
print(json.dumps({"codes": codes, "said": said.getvalue(), "modules": sorted({m.split(".")[0] for m in sys.modules})}))
"""


def told(*nouns: list[str]) -> dict[str, object]:
    command = [sys.executable, "-c", PROBE, json.dumps(nouns)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("noun", ["", *sorted(set(COMMANDS) - {"agent"})])
def test_help_imports_nothing_heavy(noun: str) -> None:
    """`failout agent` hands its help to the agent itself, which is a server."""
    seen = told([noun] if noun else [])
    assert [0] == seen["codes"]
    assert "Usage: failout" in str(seen["said"])
    assert [] == [name for name in HEAVY if name in seen["modules"]]  # type: ignore[operator]


def test_help_lists_every_command_with_one_line() -> None:
    said = str(told([])["said"])
    assert [] == [noun for noun, (_, line) in COMMANDS.items() if f"  {noun} " not in said or line[:40] not in said]
