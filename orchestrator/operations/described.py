"""What a list or `status` shows of runs that are no deploys. Reads rows only, and imports little: status has half a second."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestrator.core.drill_row import parse as parse_drill
from orchestrator.core.outing import OutingState
from orchestrator.core.outing_row import parse as parse_outing
from orchestrator.core.outing_table import Stage
from orchestrator.core.region import Phase, RegionState, way_back
from orchestrator.core.region_row import parse as parse_region
from orchestrator.core.runbook import RunbookState, RunbookStatus
from orchestrator.core.runbook_row import parse as parse_runbook
from orchestrator.core.script import command_of
from orchestrator.engine.ports import Record, Run


def describe_outing(run: Run, now: datetime) -> dict[str, Any]:
    """What a list or `status` shows of it beyond what every run has."""
    state = parse_outing(run.state)
    left_s = (state.ask.expires_at - now).total_seconds()
    return {
        "target": state.zone,
        "course": str(state.ask.mode),
        "reason": state.reason or run.reason,
        "asked_by": str(state.ask.asker),
        "expires_at": state.ask.expires_at.isoformat(),
        "on_expiry": str(state.ask.on_expiry),
        "overrides": list(state.ask.overrides),
        "expired": left_s <= 0 and not run.finished,
        "zones": [
            {
                "zone": state.zone,
                "state": str(state.stage),
                "from_version": state.goal or None,
                "to_version": state.goal or None,
                "step": state.step,
                "steps": [s.share for s in state.steps],
                "merged_steps": [m for s in state.steps for m in s.merged],
                "seconds_in_state": round((now - state.since).total_seconds(), 1),
                "note": state.note,
            }
        ],
        "next_command": None if run.finished else _back(state),
    }


def _back(state: OutingState) -> str:
    if state.stage in {Stage.RETURNING, Stage.VERIFYING, Stage.RAMPING, Stage.JOINING, Stage.SETTLING}:
        return f"failout zone evacuate {state.zone} --reason ...   (if it is sick)"
    if state.stage is Stage.LENT:
        return f"failout deployments rollback --reason ...   (or resume, retarget; once {state.zone} is back: zone restore)"
    other = "   (or release: a deploy is to mend what runs there)" if state.stage is Stage.HELD_OUT else ""
    return f"failout zone restore {state.zone} --reason ...{other}"


def describe_region(run: Run) -> dict[str, Any]:
    """What a list or `status` shows of it beyond what every run has."""
    state = parse_region(run.state)
    step = state.steps[min(state.step, len(state.steps) - 1)].share if state.steps else None
    return {
        "target": state.place,
        "course": str(state.phase),
        "reason": state.reason or run.reason,
        "note": state.note,
        "regions": list(state.regions),
        "weights": dict(state.weights),
        "share": step if state.phase is Phase.RETURNING else None,
        "next_command": None if run.finished else _next_of_region(run, state),
    }


def _next_of_region(run: Run, state: RegionState) -> str:
    back = way_back(state.regions)
    return f"failout deployments resume {run.id} --reason ...   (or: {back})" if state.paused else back


def describe_drill(run: Run) -> dict[str, Any]:
    """What a list or `status` shows of it beyond what every run has. `outing`: the run that takes the place out."""
    state = parse_drill(run.state)
    wish = state.wish
    command = (
        f"failout deployments resume {run.id} --reason ...   (or: abort)"
        if state.paused
        else f"failout drill show {run.id}"
    )
    return {
        "target": wish.place,
        "course": str(state.phase),
        "reason": state.reason or run.reason,
        "note": state.note,
        "tier": wish.tier,
        "mode": str(wish.mode),
        "duration_s": wish.policy.duration_s,
        "signals": {"outcome": list(wish.policy.outcome_signals), "blocking": list(wish.policy.blocking_signals)},
        "schedule": wish.schedule,
        "outing": state.outing,
        "checks": list(state.checks),
        "next_command": None if run.finished else command,
    }


def describe_runbook(run: Run) -> dict[str, Any]:
    """What a list or `status` shows of it beyond what every run has."""
    state = parse_runbook(run.state)
    return {
        "target": state.runbook,
        "course": state.title,
        "reason": state.reason or run.reason,
        "parameters": dict(state.parameters),
        "digest": state.digest,
        "steps": steps_told(state),
        "next_command": next_command(run, state),
    }


def steps_told(state: RunbookState) -> list[dict[str, Any]]:
    return [
        {
            "name": step.name,
            "kind": str(step.kind),
            "state": "now" if i == state.at and p.state == "pending" else str(p.state),
            "tries": p.visits,
            "command": command_of(step, state.runbook),
            "evidence": p.evidence,
        }
        for i, (step, p) in enumerate(zip(state.steps, state.progress, strict=True))
    ]


def step_of(run: Run, record: Record) -> str | None:
    """The name of the runbook's step that this line of its history is about."""
    index = record.effect.args.get("index") if record.effect else None
    return parse_runbook(run.state).steps[index].name if isinstance(index, int) else None


def next_command(run: Run, state: RunbookState) -> str | None:
    if run.finished:
        return None
    match state.status:
        case RunbookStatus.WAITING:
            return f"failout runbook approve {run.id}   (or: deny)"
        case RunbookStatus.HELD:
            return f"failout runbook resume {run.id} --retry   (or: skip, abort)"
        case _:
            return f"failout runbook resume {run.id}"
