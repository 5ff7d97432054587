"""docs/operations.md names every metric that there is, commands that there are, and files that are there."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.cli.root import COMMANDS

ROOT = Path(__file__).parents[2]
TOLD = (ROOT / "docs/operations.md").read_text()


def metrics(text: str) -> set[str]:
    return set(re.findall(r"\bfailout_[a-z0-9_]+", text))


def test_it_names_each_metric_and_no_other() -> None:
    sources = [ROOT / "orchestrator/operations" / name for name in ("telemetry.py", "proof.py")]
    assert set().union(*(metrics(path.read_text()) for path in sources)) == metrics(TOLD)


def test_each_command_and_file_that_it_names_is_there() -> None:
    commands = set(re.findall(r"(?:`|^)failout ([a-z-]+)", TOLD, re.MULTILINE))
    assert {"serve", "state", "doctor"} <= commands
    assert set() == commands - set(COMMANDS)
    paths = set(re.findall(r"`((?:tests|orchestrator|packaging)/[\w/.]+)`", TOLD))
    assert {"tests/contract/test_database_away.py", "packaging/failout.service"} <= paths
    assert [] == [path for path in sorted(paths) if not (ROOT / path).is_file()]
