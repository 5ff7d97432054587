"""`failout freeze`; `failout unfreeze` and `failout kill-switch` turn their switches through here too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import author, config_option, emit, find_config, options

if TYPE_CHECKING:
    from orchestrator.engine.ports import SwitchName

reason_option = click.option("--reason", required=True, help="Why; it goes into the audit log.")
every_option = click.option("--every-service", is_flag=True, help="Of this state, not only that of failout.yaml.")
_MEANS = {
    (
        "freeze",
        True,
    ): "nothing new starts; what is out comes back, evacuations go on.\nnext: failout unfreeze --reason ...",
    ("freeze", False): "deploys and drills may start again.\nnext: failout status",
    ("kill", True): "every automatic act stops; people may still act.\nnext: failout kill-switch off --reason ...",
    ("kill", False): "automatic acts go on.\nnext: failout status",
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

    settings = read_settings(find_config(config))
    service = EVERY_SERVICE if every_service else settings.service
    now = datetime.now(UTC)
    asyncio.run(
        with_store(
            settings,
            lambda store: switches.turn(store, service, name, on=on, author=author(), reason=reason, now=now),
        )
    )
    whose = "every service" if every_service else service
    data = {"schema": 1, "switch": name, "on": on, "service": service, "author": author(), "reason": reason}
    told = f"{name} is {'on' if on else 'off'} for {whose}: {_MEANS[name, on]}"
    emit(data, as_json=as_json, human=lambda: told)
