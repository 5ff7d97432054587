"""`failout freeze`; `failout unfreeze` and `failout kill-switch` turn their switches through here too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, options

if TYPE_CHECKING:
    from orchestrator.engine.ports import Store, Switch, SwitchName
    from orchestrator.operations.halted import Halt

reason_option = click.option("--reason", type=REASON, required=True, help="Why; it goes into the audit log.")
every_option = click.option("--every-service", is_flag=True, help="Of this state, not only that of failout.yaml.")
_MEANS = {
    ("freeze", True): "nothing new starts; what is out comes back, evacuations go on.",
    ("freeze", False): "deploys and drills may start again.",
    ("kill", True): "every automatic act stops; people may still act.",
    ("kill", False): "automatic acts go on.",
}


@click.command("freeze")
@reason_option
@every_option
@config_option
@options
def command(reason: str, config: Path | None, *, every_service: bool, as_json: bool) -> None:
    """Start nothing new from now on: no deploy, no further zone of one, no drill, no drain (I14).

    A zone that is out is brought back; evacuations and restores are never held up.
    """
    turn(config, "freeze", on=True, reason=reason, every_service=every_service, as_json=as_json)


def turn(config: Path | None, name: SwitchName, *, on: bool, reason: str, every_service: bool, as_json: bool) -> None:
    from orchestrator.cli.carrying import with_store  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.engine.ports import EVERY_SERVICE  # noqa: PLC0415
    from orchestrator.operations import switches  # noqa: PLC0415
    from orchestrator.operations.halted import halted  # noqa: PLC0415

    settings = read_settings(find_config(config))
    service = EVERY_SERVICE if every_service else settings.service
    now = datetime.now(UTC)

    async def act(store: Store) -> tuple[list[Switch], list[tuple[str, Halt]]]:
        await switches.turn(store, service, name, on=on, author=author(), reason=reason, now=now)
        if not on:
            return await switches.still_on(store, service, name), []
        if name != "kill":
            return [], []
        runs = await store.unfinished(None if every_service else service)
        set_now = [s for s in await store.switches() if s.service == service]
        return [], [(run.id, halt) for run in runs if (halt := halted(run, set_now)) is not None]

    left, stands = asyncio.run(with_store(settings, act))
    data: dict[str, Any] = {
        "schema": 1,
        "switch": name,
        "on": on,
        "service": service,
        "author": author(),
        "reason": reason,
    }
    data["still_on"] = [{"service": s.service, "author": s.author, "reason": s.reason} for s in left]
    data["stands"] = [{"run": run, "evidence": h.evidence, "next_command": h.next_command} for run, h in stands]
    still = "".join(f"\n  run {run}: {halt.evidence}\n  next: {halt.next_command}" for run, halt in stands)
    emit(data, as_json=as_json, human=lambda: _told(name, service, settings.service, left, on=on) + still)


def _told(name: SwitchName, service: str, ours: str, left: list[Switch], *, on: bool) -> str:
    """What was turned, what that means, and what to run next; what is still on is never told as ended (I14)."""
    from orchestrator.engine.ports import EVERY_SERVICE  # noqa: PLC0415
    from orchestrator.operations.switches import ends, whose  # noqa: PLC0415

    told = f"{name} is {'on' if on else 'off'} for {whose(service)}"
    if not left:
        return f"{told}: {_MEANS[name, on]}\nnext: {ends(name, service) if on else 'failout status'}"
    still = "; ".join(f"still on for {whose(s.service)}, set by {s.author}: {s.reason}" for s in left)
    first = min(left, key=lambda s: s.service not in {ours, EVERY_SERVICE})
    elsewhere = "" if first.service in {ours, EVERY_SERVICE} else f" --config FILE   (failout.yaml of {first.service})"
    return f"{told}, but {still} (I14).\nnext: {ends(name, first.service)}{elsewhere}"
