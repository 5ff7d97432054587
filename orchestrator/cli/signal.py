"""`failout signal`: what each outside opinion on the service says now."""

from __future__ import annotations

import asyncio
import difflib
import sys
from pathlib import Path

import click

from orchestrator.cli.common import config_option, emit, find_config, options, table

SAYS_BAD = 10


@click.group("signal")
def command() -> None:
    """Signals of failout.yaml: they decide whether a drill may begin and go on."""


@command.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@config_option
@options
def check(names: tuple[str, ...], config: Path | None, *, as_json: bool) -> None:
    """Ask each signal once, or those that are named. Changes nothing.

    Ends with 0 when all are good, and with 10 when one is bad or nobody could tell.
    """
    from orchestrator.bootstrap import signals_of  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.core.errors import NotFound  # noqa: PLC0415
    from orchestrator.ports import Reading, Signal  # noqa: PLC0415

    settings = read_settings(find_config(config))
    signals = signals_of(settings)
    for name in names:
        if name not in signals:
            near = difflib.get_close_matches(name, signals, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(signals) or 'none'}"
            raise NotFound(f"there is no signal {name!r} in {settings.path}; {hint}")
    if not signals:
        raise NotFound(f"{settings.path} names no signals; `failout init` shows how they are written")
    asked: dict[str, Signal] = {name: signals[name] for name in names or signals}

    async def ask() -> list[Reading]:
        return list(await asyncio.gather(*(signal.read() for signal in asked.values())))

    readings = dict(zip(asked, asyncio.run(ask()), strict=True))
    found = [{"name": n, "state": r.state, "evidence": r.evidence} for n, r in readings.items()]
    rows = [(n, r.state, r.evidence) for n, r in readings.items()]
    good = all(r.state == "good" for r in readings.values())
    data = {"schema": 1, "service": settings.service, "good": good, "signals": found}
    emit(data, as_json=as_json, human=lambda: table(rows, ("signal", "says", "evidence")))
    sys.exit(0 if good else SAYS_BAD)
