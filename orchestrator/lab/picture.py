"""The demo's report as pages: the same report as any run's, but counted by users, who see what no instance does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place
from orchestrator.lab.traffic import record
from orchestrator.operations.page import write_report
from orchestrator.operations.report import Point, Series, collect, step_for

USERS: Final = "by the users themselves: the raw log of every request"


def users_series(rows: Iterable[record.Row], began_s: float, seconds: float) -> Series:
    """Fold the raw log into the steps of a curve. A request belongs to the moment it was due. `began_s`: unix."""
    step_s = step_for(seconds)
    piles: dict[int, list[record.Row]] = {}
    for row in rows:
        if began_s <= row.t < began_s + seconds:
            piles.setdefault(int((row.t - began_s) // step_s), []).append(row)
    points = []
    for i, pile in sorted(piles.items()):
        lasts_s = min(step_s, seconds - i * step_s)
        latencies = sorted(row.latency_ms for row in pile if row.outcome == record.OK)
        points.append(
            Point(
                i * step_s,
                {zone: n / lasts_s for zone, n in _by_zone(pile).items()},
                len(pile),
                sum(row.outcome != record.OK for row in pile),
                record.percentile(latencies, 0.5),
                record.percentile(latencies, 0.99),
            )
        )
    return Series(USERS, step_s, points)


def _by_zone(pile: Sequence[record.Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in pile:
        if row.zone:
            counts[row.zone] = counts.get(row.zone, 0) + 1
    return dict(sorted(counts.items()))


def draw(state: Path, run_id: str, log: Path, folder: Path) -> Path:
    """Write report.md and report.html of the demo's deploy beside its records."""
    with glance_at(Place.of(state)) as glance:
        run = glance.load(run_id)
        ended = run.finished_at or datetime.now(UTC)
        seconds = (ended - run.created_at).total_seconds()
        users = users_series(record.read(log), run.created_at.timestamp(), seconds)
        return write_report(collect(glance, run_id, ended, users), folder)
