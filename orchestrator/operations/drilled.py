"""What people are shown of drills and their schedules, from our own rows only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from orchestrator.core.proof import dump as dump_proof
from orchestrator.core.schedule import next_at
from orchestrator.core.schedule import parse as parse_schedule
from orchestrator.engine.glance import Glance
from orchestrator.engine.ports import Schedule
from orchestrator.operations.kinds import require_kind
from orchestrator.operations.status import describe_run

LISTED: Final = 50


def list_drills(rows: Glance | None, service: str, now: datetime) -> dict[str, Any]:
    """Schedules by id and drills newest first, as schemas/drill-list.json says. `rows` None: there is no state yet."""
    runs = [r for r in rows.runs(service, 500) if r.kind == "drill"] if rows else []
    switches = rows.switches() if rows else []
    return {
        "schema": 1,
        "service": service,
        "schedules": [describe_schedule(row, now) for row in rows.schedules(service)] if rows else [],
        "drills": [describe_run(r, {}, now, switches) for r in runs[:LISTED]],
    }


def show_drill(rows: Glance, run: str, now: datetime) -> dict[str, Any]:
    """One drill with its history and proofs, as schemas/drill-show.json says. Raises NotFound, or Rejected for a run of another kind."""
    found = rows.load(run)
    require_kind(found, "drill", "show")
    told = describe_run(found, {}, now, rows.switches())
    return {
        "schema": 1,
        "service": found.service,
        **told,
        "events": [
            {
                "at": r.at.isoformat(),
                "event": r.event.kind,
                "evidence": r.event.evidence,
                "seconds": round(r.duration_s, 3),
            }
            for r in rows.events(run)
        ],
        "proofs": [dump_proof(p) for p in rows.proofs(found.service) if p.run == told["outing"]],
    }


def describe_schedule(row: Schedule, now: datetime) -> dict[str, Any]:
    """As `failout drill list` and `drill schedule list` show it. Times are UTC; `next` None: paused, or never."""
    schedule = parse_schedule(row.document)
    coming = None if row.paused else next_at(schedule, now, row.since)
    return {
        "schedule": row.id,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "tier": schedule.tier,
        "place": schedule.place,
        "choice": str(schedule.choice),
        "mode": str(schedule.mode),
        "duration_s": schedule.policy.duration_s,
        "outcome_signals": list(schedule.policy.outcome_signals),
        "blocking_signals": list(schedule.policy.blocking_signals),
        "jitter_s": schedule.jitter_s,
        "fresh_s": schedule.fresh_s,
        "allowed": list(schedule.allowed),
        "blocked": list(schedule.blocked),
        "blocked_dates": list(schedule.blocked_dates),
        "paused": row.paused,
        "author": schedule.author,
        "reason": schedule.reason,
        "next": coming.isoformat() if coming else None,
        "last_fired": row.last_fired.isoformat() if row.last_fired else None,
        "last_run": row.last_run,
        "note": row.note,
    }
