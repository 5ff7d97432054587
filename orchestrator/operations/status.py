"""What is going on, from our own rows only: no cloud, no engine, in milliseconds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.core.deploy import DeployState
from orchestrator.core.deploy_row import parse
from orchestrator.engine.glance import Glance
from orchestrator.engine.ports import Record, Run, Switch, Usual
from orchestrator.operations.described import describe_drill, describe_outing, describe_region, describe_runbook
from orchestrator.operations.halted import halted

SCHEMA = 1
_TOO_FEW: Final = re.compile(r"fewer than \d+ requests|the zone served 0 requests")


def status(glance: Glance, service: str, now: datetime) -> dict[str, Any]:
    """The service now: its unfinished run zone by zone, leases, switches, and the run before. schemas/status.json"""
    open_runs = glance.unfinished(service)[::-1]
    ended = [r for r in glance.runs(service, limit=len(open_runs) + 1) if r.finished]
    usual, switches = glance.usual(service), [s for s in glance.switches() if s.on]
    return {
        "schema": SCHEMA,
        "service": service,
        "runs": [describe_run(r, usual, now, switches) for r in open_runs],
        "last": describe_run(ended[0], usual, now) if ended else None,
        "leases": [
            {"zone": x.zone, "run": x.run, "fence": x.fence, "since": x.since.isoformat()}
            for x in glance.leases(service)
        ],
        "switches": [{"name": s.name, "service": s.service, "author": s.author, "reason": s.reason} for s in switches],
    }


def nothing_yet(service: str) -> dict[str, Any]:
    """The service before its first deploy."""
    return {"schema": SCHEMA, "service": service, "runs": [], "last": None, "leases": [], "switches": []}


def describe_run(
    run: Run, usual: Mapping[str, Usual], now: datetime, switches: Sequence[Switch] = ()
) -> dict[str, Any]:
    """One run as it is shown everywhere. `switches`: of them one may keep it still, which is then what to know of it (I14)."""
    described, halt = _describe(run, usual, now), halted(run, switches)
    if halt is not None:
        before = f"; {described['reason']}" if described["reason"] else ""
        described |= {"reason": f"{halt.evidence}{before}", "next_command": halt.next_command}
    return described


def _describe(run: Run, usual: Mapping[str, Usual], now: datetime) -> dict[str, Any]:
    """What only its kind has comes from where that kind is described."""
    ended = run.finished_at or now
    common: dict[str, Any] = {
        "run": run.id,
        "kind": run.kind,
        "status": run.status,
        "author": run.author,
        "started": run.created_at.isoformat(),
        "ended": run.finished_at.isoformat() if run.finished_at else None,
        "seconds": round((ended - run.created_at).total_seconds(), 1),
        "trouble": run.trouble,
        "doing": _doing(run, usual, now),
        "zones": [],
    }
    if run.kind == "outing":
        return common | describe_outing(run, now)
    if run.kind == "runbook":
        return common | describe_runbook(run)
    if run.kind == "drill":
        return common | describe_drill(run)
    return common | (describe_region(run) if run.kind == "region" else _describe_deploy(run, now))


def _describe_deploy(run: Run, now: datetime) -> dict[str, Any]:
    state = parse(run.state)
    return {
        "target": state.target,
        "course": str(state.course),
        "reason": state.reason or run.reason,
        "zones": [_zone(state, z.zone, now) for z in state.zones],
        "next_command": next_command(run, state),
    }


def _zone(state: DeployState, zone_id: str, now: datetime) -> dict[str, Any]:
    zone = state.zone(zone_id)
    return {
        "zone": zone.zone,
        "state": str(zone.state),
        "from_version": zone.previous,
        "to_version": zone.goal,
        "step": zone.step,
        "steps": [s.share for s in zone.steps],
        "merged_steps": [m for s in zone.steps for m in s.merged],
        "seconds_in_state": round((now - zone.since).total_seconds(), 1),
        "note": zone.note,
    }


def _doing(run: Run, usual: Mapping[str, Usual], now: datetime) -> dict[str, Any] | None:
    """The effect that is being performed, and whether it takes longer than three of four did before."""
    if run.effect is None or run.finished:
        return None
    seconds = (now - run.updated_at).total_seconds()
    known = usual.get(run.effect.kind)
    late = known is not None and seconds > known.p75_s
    return {
        "effect": run.effect.kind,
        "zone": run.effect.zone,
        "seconds": round(seconds, 1),
        "p75_s": round(known.p75_s, 1) if known else None,
        "late": late,
    }


def next_command(run: Run, state: DeployState) -> str | None:
    """What a person may run next; None when there is nothing to do."""
    if run.finished:
        return None
    match run.status:
        case "held":
            rule = rule_to_accept(state.reason)
            accept = f"; {rule[1]}: --override {rule[0]}" if rule else ""
            return f"failout deployments resume {run.id} --reason ...   (or: abort, rollback, retarget{accept})"
        case "paused":
            return f"failout deployments resume {run.id} --reason ..."
        case _:
            active = state.active_zone()
            return (
                f"failout deployments pause {run.id} --reason ..."
                if active
                else f"failout deploy --resume   # {run.id}"
            )


def rule_to_accept(reason: str) -> tuple[str, str] | None:
    """The rule that holds a deploy, where a person may know better, and what they would have to know."""
    if "refused by I3" in reason:
        return "I3", "if survivors may carry that much"
    return ("I2", "if so few users are enough") if _TOO_FEW.search(reason) else None


def zone_phases(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Seconds per zone and effect, summed over repeats."""
    phases: dict[str, dict[str, float]] = {}
    for record in records:
        if record.effect is not None and record.effect.zone is not None:
            of_zone = phases.setdefault(record.effect.zone, {})
            of_zone[record.effect.kind] = round(of_zone.get(record.effect.kind, 0.0) + record.duration_s, 3)
    return phases
