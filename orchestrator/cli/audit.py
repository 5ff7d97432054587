"""`failout audit show | verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from orchestrator.cli.common import config_option, emit, glance, options, table

BROKEN: Final = 10


@click.group("audit")
def command() -> None:
    """Who did what, why, and what came of it; each line is sealed with the one before it."""


@command.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest so many.")
@config_option
@options
def show(limit: int, config: Path | None, *, as_json: bool) -> None:
    """Show the newest acts, oldest first."""
    from orchestrator.operations.audit import described  # noqa: PLC0415

    entries: list[dict[str, Any]] = glance(
        config, lambda rows, _: [described(entry) for entry in rows.audit()[-limit:]], lambda _: []
    )
    cells = [
        (str(e["id"]), e["at"][:19].replace("T", " "), e["author"], e["act"], e["reason"], e["result"]) for e in entries
    ]
    emit(
        {"schema": 1, "entries": entries},
        as_json=as_json,
        human=lambda: (
            table(cells, ("#", "at (UTC)", "by", "act", "why", "result")) if cells else "nobody did anything yet"
        ),
    )


@command.command()
@config_option
@options
def verify(config: Path | None, *, as_json: bool) -> None:
    """Check every seal. Ends with 10, naming the first line that is broken.

    Lines cut off the end leave no trace in what is left: note the last hash somewhere else, and compare.
    """
    from orchestrator.engine.ledger import GENESIS  # noqa: PLC0415
    from orchestrator.operations.audit import verified  # noqa: PLC0415

    data = glance(
        config,
        lambda rows, _: verified(rows),
        lambda _: {"schema": 1, "entries": 0, "broken": None, "last_hash": GENESIS},
    )
    told = f"{data['entries']} entries, every one follows from the one before it; last hash {data['last_hash']}"
    emit(data, as_json=as_json, human=lambda: data["broken"] or told)
    sys.exit(BROKEN if data["broken"] else 0)
