"""docs/cases.md: what users saw in each hard case, written by the run that saw it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lab.traffic.record import Recount

WHERE = "FAILOUT_CASES"  # names the file; unset: nothing is written

HEAD = """# The hard cases, and what users saw

Written by `make soak-cases`, which runs each case in the lab in strict mode (load balancers never retry) under live
traffic; a row's numbers are those of that one run. A request has failed when no correct answer came within 1 s of its
scheduled time. Where a failure is counted, the last column says why it could not be avoided.

| Case | Users: failed of sent | End | What happened |
|---|---|---|---|
"""


@dataclass
class Case:
    """One row; filled in by the test that is the case."""

    id: str
    title: str = ""
    users: Recount | None = None
    end: str = ""
    evidence: str = ""
    passed: bool = False
    why: str = ""

    def tell(self, title: str, users: Recount, end: str, evidence: str) -> None:
        self.title, self.users, self.end, self.evidence = title, users, end, evidence


def in_words(failure: str) -> str:
    """What was not so, and the last that the log in the failure's message says; short enough for a cell."""
    lines = failure.splitlines() or [""]
    broken = next((line for line in lines if line.startswith("assert ")), lines[0]).removeprefix("assert ")
    expected, equals, was = broken.partition(" == ")
    told = f"expected {expected}, it was {was}" if equals else broken
    evidence = [said for line in lines if (said := _evidence(line))]
    return "; ".join([told[:200], *evidence[-1:]])[:400]


def _evidence(line: str) -> str:
    try:
        logged = json.loads(line)
    except ValueError:
        return ""
    return f"{logged.get('event')}: {logged['evidence']}" if isinstance(logged, dict) and logged.get("evidence") else ""


def write(case: Case) -> None:
    """Add the case's row, so that a run that is ended in the middle leaves the rows of what it has seen."""
    where, row = os.environ.get(WHERE), _row(case)
    if not where or not row:
        return
    table = Path(where)
    with table.open("a", encoding="utf-8") as out:
        fcntl.flock(out, fcntl.LOCK_EX)  # two labs may run side by side
        out.write(row if table.stat().st_size else HEAD + row)


def _row(case: Case) -> str:
    title = case.title or f"`{case.id}`"
    if not case.passed:
        return f"| {_cell(title)} | - | **the test failed** | {_cell(case.why)} |\n"
    if case.users is None:
        return ""
    failed = f"{case.users.failed} of {case.users.sent}"
    return f"| {_cell(title)} | {failed} | {_cell(case.end)} | {_cell(case.evidence)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
