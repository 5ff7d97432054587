"""`failout state backup | restore | prune`."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, options
from orchestrator.core.errors import Rejected

if TYPE_CHECKING:
    from orchestrator.engine.place import Place

_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
OLDEST: Final = timedelta(days=36500)


@click.group("state")
def command() -> None:
    """Runs, leases, traffic and history: back them up, restore them, forget what is old."""


def _place(config: Path | None) -> Place:
    from orchestrator.bootstrap import place_of  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415

    return place_of(read_settings(find_config(config)))


@command.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@options
def backup_(file: Path, config: Path | None, *, as_json: bool) -> None:
    """Copy the state to FILE, consistent at one moment, also while a run is being carried."""
    from orchestrator.engine.backup import backup  # noqa: PLC0415

    backup(_place(config), file)
    data = {"schema": 1, "file": str(file), "bytes": file.stat().st_size}
    emit(data, as_json=as_json, human=lambda: f"state copied to {file} ({file.stat().st_size} bytes)")


@command.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--reason", type=REASON, required=True, help="Why; it goes into the records.")
@config_option
@options
def restore_(file: Path, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Put the copy FILE in the place of the state. Runs that it finds unfinished are paused: the world has moved on.

    Refused while a process carries the state. What was there is kept beside it.
    """
    from orchestrator.engine.backup import restore  # noqa: PLC0415

    paused: list[str] = []
    kept = restore(_place(config), file, lambda copy: paused.extend(asyncio.run(_pause_all(copy, reason))))
    data = {"schema": 1, "file": str(file), "kept": str(kept) if kept else None, "paused": paused}
    lines = [f"state restored from {file}", *([f"what was there is kept as {kept}"] if kept else [])]
    lines += [
        f"{run} was unfinished: it pauses before it does anything\nnext: failout report show {run}   (then: resume, or abort)"
        for run in paused
    ]
    emit(data, as_json=as_json, human=lambda: "\n".join(lines))


async def _pause_all(place: Place, reason: str) -> list[str]:
    """A copy is older than the world: whatever it says is under way needs a person's eye first."""
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415

    store, now, who = SqlStore(place), datetime.now(UTC), author()
    try:
        runs = [run.id for run in await store.unfinished()]
        for run in runs:
            await store.post_order(run, "pause", author=who, reason=f"restored from a backup: {reason}", now=now)
        await store.append_audit(who, "state restore", reason, f"{len(runs)} unfinished runs paused", now)
    finally:
        store.close()
    return runs


@command.command("prune")
@click.option("--older-than", required=True, metavar="AGE", help="90d, 12w or 48h: runs that ended before that.")
@click.option("--reason", type=REASON, default="retention", show_default=True, help="Why; it goes into the records.")
@config_option
@options
def prune_(older_than: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Forget runs that ended long ago, with their history. Proofs and the audit log stay."""
    from orchestrator.engine.glance import glance_at  # noqa: PLC0415

    age, place = _age(older_than), _place(config)
    with glance_at(place):  # NotFound where nothing was deployed yet: to forget it makes no state.
        pass
    number = asyncio.run(_prune(place, age, older_than, reason))
    emit({"schema": 1, "runs": number}, as_json=as_json, human=lambda: f"{number} runs forgotten")


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text)
    if not match:
        raise Rejected(f"--older-than is a number and h, d or w, such as 90d, not {text!r}")
    age = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if age > OLDEST:
        raise Rejected(f"--older-than is at most {OLDEST.days}d, a hundred years, not {text!r}")
    return age


async def _prune(place: Place, age: timedelta, told: str, reason: str) -> int:
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415

    store, now = SqlStore(place), datetime.now(UTC)
    try:
        number: int = await store.prune(now - age)
        await store.append_audit(author(), "state prune", reason, f"{number} runs older than {told} forgotten", now)
    finally:
        store.close()
    return number
