"""docs/cases.md: what users saw in each hard case, written by the run that saw it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
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
    passed: bool | None = None

    def tell(self, title: str, users: Recount, end: str, evidence: str) -> None:
        self.title, self.users, self.end, self.evidence = title, users, end, evidence


@dataclass
class Table:
    cases: list[Case] = field(default_factory=list)

    def write(self) -> None:
        where = os.environ.get(WHERE)
        if where and self.cases:
            Path(where).write_text(HEAD + "".join(_row(c) for c in self.cases), "utf-8")


def _row(case: Case) -> str:
    title = case.title or f"`{case.id}`"
    if not case.passed:
        return f"| {_cell(title)} | - | **the test failed** | - |\n" if case.passed is False else ""
    if case.users is None:
        return ""
    failed = f"{case.users.failed} of {case.users.sent}"
    return f"| {_cell(title)} | {failed} | {_cell(case.end)} | {_cell(case.evidence)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
