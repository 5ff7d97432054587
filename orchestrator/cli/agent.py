"""`failout agent`: hands its arguments to the agent's own command line."""

from __future__ import annotations

import sys

import click


@click.command("agent", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the region agent."""
    from orchestrator.agent.main import main  # noqa: PLC0415

    sys.exit(main(arguments))
