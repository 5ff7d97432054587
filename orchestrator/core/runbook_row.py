"""How a runbook's state is written into its row and read back: versioned JSON that holds the steps themselves."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.errors import Rejected
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.core.runbook import (
    FINISHED,
    RunbookState,
    RunbookStatus,
    StepProgress,
    StepState,
    apply,
    decide,
)
from orchestrator.core.script import Do, Look, OnFailure, Step

SCHEMA: Final = 1


def dump(state: RunbookState) -> Json:
    return {
        "schema": SCHEMA,
        "run": state.run,
        "runbook": state.runbook,
        "title": state.title,
        "digest": state.digest,
        "service": state.service,
        "parameters": dict(state.parameters),
        "steps": [_dump_step(step) for step in state.steps],
        "progress": [
            {
                "state": str(p.state),
                "visits": p.visits,
                "evidence": p.evidence,
                "since": p.since.isoformat() if p.since else None,
            }
            for p in state.progress
        ],
        "at": state.at,
        "status": str(state.status),
        "reason": state.reason,
    }


def _dump_step(step: Step) -> Json:
    row: dict[str, Any] = {f.name: getattr(step, f.name) for f in fields(Step)}
    row |= {"kind": str(step.kind), "on_failure": str(step.on_failure), "args": dict(step.args)}
    row |= {"look": _dump_look(step.look), "when": _dump_look(step.when)}
    row["branches"] = [_dump_step(branch) for branch in step.branches]
    return cast("Json", row)


def _dump_look(look: Look | None) -> Json:
    return {"condition": look.condition, "args": dict(look.args), "negated": look.negated} if look else None


def parse(data: Json) -> RunbookState:
    """Read a row back. A row of a newer schema is Rejected: the run belongs to a newer Failout."""
    row = cast("dict[str, Any]", data)
    if row.get("schema") != SCHEMA:
        raise Rejected(f"this run was written by schema {row.get('schema')}; this Failout reads schema {SCHEMA}")
    progress = tuple(
        StepProgress(
            StepState(p["state"]),
            p["visits"],
            p["evidence"],
            datetime.fromisoformat(p["since"]) if p["since"] else None,
        )
        for p in row["progress"]
    )
    return RunbookState(
        run=row["run"],
        runbook=row["runbook"],
        title=row["title"],
        digest=row["digest"],
        service=row["service"],
        parameters=row["parameters"],
        steps=tuple(_step(s) for s in row["steps"]),
        progress=progress,
        at=row["at"],
        status=RunbookStatus(row["status"]),
        reason=row["reason"],
    )


def _step(row: dict[str, Any]) -> Step:
    known = {f.name: row[f.name] for f in fields(Step) if f.name in row}
    known |= {"kind": Do(row["kind"]), "on_failure": OnFailure(row["on_failure"])}
    known |= {"look": _look(row["look"]), "when": _look(row["when"])}
    known["branches"] = tuple(_step(branch) for branch in row["branches"])
    return Step(**known)


def _look(row: dict[str, Any] | None) -> Look | None:
    return Look(row["condition"], row["args"], row["negated"]) if row else None


class RunbookMachine:
    """A runbook's run as the engine carries it (core.machine.Machine)."""

    kind = "runbook"

    def parse(self, data: Json) -> RunbookState:
        return parse(data)

    def dump(self, state: RunbookState) -> Json:
        return dump(state)

    def decide(self, state: RunbookState, facts: Facts) -> Effect | Event | None:
        return decide(state, facts)

    def apply(self, state: RunbookState, event: Event, now: datetime) -> RunbookState:
        return apply(state, event, now)

    def finished(self, state: RunbookState) -> bool:
        return state.status in FINISHED

    def status(self, state: RunbookState) -> str:
        return str(state.status)

    def leased_zone(self, state: RunbookState) -> str | None:  # noqa: ARG002
        """A runbook takes no zone out itself: the runs that it starts hold the lease (I1)."""
        return None

    def extra_slot(self, state: RunbookState) -> bool:  # noqa: ARG002
        return False
