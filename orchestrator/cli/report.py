"""`failout report show RUN`: what a run did, what users got meanwhile, and what it proved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from orchestrator.cli.common import config_option, emit, find_config, options


@click.group("report")
def command() -> None:
    """Reports of deploys and drills, fit to paste into a review."""


@command.command()
@click.argument("run")
@click.option("--html", is_flag=True, help="Write the self-contained HTML file anew and print where it lies.")
@config_option
@options
def show(run: str, config: Path | None, *, html: bool, as_json: bool) -> None:
    """Print a run's report as Markdown. Also of a run that is still under way; it is made from the records each time."""
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.engine.glance import glance_at  # noqa: PLC0415
    from orchestrator.engine.place import Place  # noqa: PLC0415
    from orchestrator.operations.page import write_report  # noqa: PLC0415
    from orchestrator.operations.report import collect, document, markdown, report_folder  # noqa: PLC0415

    settings = read_settings(find_config(config))
    with glance_at(Place.of(settings.database or settings.state)) as glance:
        report = collect(glance, run, datetime.now(UTC))
    path = write_report(report, report_folder(settings.state, run)) if html else None
    data = document(report, str(path) if path else None)
    emit(data, as_json=as_json, human=lambda: str(path) if path else markdown(report).rstrip())
