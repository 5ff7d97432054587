"""An SDK's own words stand beside ours only where they were asked for."""

from __future__ import annotations

import logging

import click
from click.testing import CliRunner

from orchestrator.cli.common import options


@click.command()
@options
def speaking(*, as_json: bool) -> None:
    click.echo(logging.getLogger("azure.identity").isEnabledFor(logging.ERROR))


def test_azures_sdk_is_silent_without_debug() -> None:
    before = logging.getLogger("azure").level
    logging.getLogger("azure").setLevel(logging.NOTSET)
    try:
        assert "True\n" == CliRunner().invoke(speaking, ["--debug"]).output
        assert "False\n" == CliRunner().invoke(speaking, []).output
    finally:
        logging.getLogger("azure").setLevel(before)
