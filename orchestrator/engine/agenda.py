"""The schedules' rows: a firing moves its schedule and begins its run in one transaction, so that it happens exactly once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from orchestrator.core.errors import NotFound
from orchestrator.core.machine import Json
from orchestrator.engine.codec import instant_text, text_of
from orchestrator.engine.ports import NewRun, Schedule
from orchestrator.engine.schema import runs, schedules


def add(connection: Connection, service: str, schedule: str, document: Json, now: datetime) -> None:
    row = {"service": service, "id": schedule, "document": text_of(document), "paused": False, "note": ""}
    connection.execute(insert(schedules).values(since=instant_text(now), created_at=instant_text(now), **row))


def remove(connection: Connection, service: str, schedule: str) -> None:
    if not connection.execute(delete(schedules).where(_named(service, schedule))).rowcount:
        raise NotFound(f"no schedule {schedule!r}")


def pause(connection: Connection, service: str, schedule: str, now: datetime, *, paused: bool) -> None:
    put = {"paused": paused} | ({} if paused else {"since": instant_text(now)})
    was = schedules.c.paused.is_(not paused)
    connection.execute(update(schedules).where(_named(service, schedule) & was).values(put))
    if connection.execute(select(schedules.c.id).where(_named(service, schedule))).scalar() is None:
        raise NotFound(f"no schedule {schedule!r}")


def fire(
    connection: Connection, schedule: Schedule, nominal: datetime, run: NewRun | None, note: str, now: datetime
) -> bool:
    """The row is the claim: whoever moves `since` first begins the run."""
    at = instant_text(now)
    seen = _named(schedule.service, schedule.id) & (schedules.c.since == instant_text(schedule.since))
    put = {"since": instant_text(nominal), "last_fired": at, "last_run": run.id if run else None, "note": note}
    moved = update(schedules).where(seen & schedules.c.paused.is_(False)).values(put)
    if connection.execute(moved).rowcount != 1:
        return False
    if run is not None:
        row = {"id": run.id, "service": schedule.service, "kind": run.kind, "status": run.status, "seq": 0, "epoch": 0}
        row |= {"state": text_of(run.state), "author": run.author, "reason": run.reason}
        connection.execute(insert(runs).values(created_at=at, updated_at=at, **row))
    return True


def _named(service: str, schedule: str) -> ColumnElement[bool]:
    return (schedules.c.service == service) & (schedules.c.id == schedule)
