"""`failout unfreeze`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import config_option, options
from orchestrator.cli.freeze import every_option, reason_option, turn


@click.command("unfreeze")
@reason_option
@every_option
@config_option
@options
def command(reason: str, config: Path | None, *, every_service: bool, as_json: bool) -> None:
    """End a freeze; a deploy that it held up goes on."""
    turn(config, "freeze", on=False, reason=reason, every_service=every_service, as_json=as_json)
