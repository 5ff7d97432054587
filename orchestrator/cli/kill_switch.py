"""`failout kill-switch on | off`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import config_option, options
from orchestrator.cli.freeze import every_option, reason_option, turn


@click.command("kill-switch")
@click.argument("state", type=click.Choice(["on", "off"]))
@reason_option
@every_option
@config_option
@options
def command(state: str, reason: str, config: Path | None, *, every_service: bool, as_json: bool) -> None:
    """Stop every automatic act, between two steps: deploys, drills, returns at expiry (I14). Traffic stays where it is.

    What people do by hand goes on: `zone evacuate`, `zone restore`, orders to a run. A move of a region stands where it is
    until the switch is off; this command, `status` and a notice name every run that stands, and how it goes on or ends.
    """
    turn(config, "kill", on=state == "on", reason=reason, every_service=every_service, as_json=as_json)
