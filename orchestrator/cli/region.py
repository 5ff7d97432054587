"""`failout region evacuate | return`."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, options
from orchestrator.cli.status import human_run

if TYPE_CHECKING:
    from orchestrator.core.topology import Topology
    from orchestrator.engine.ports import Run, Store

HELD: Final = 11
NOT_DONE: Final = 10
log_option = click.option(
    "--log", type=click.Choice(["human", "json", "none"]), default="human", show_default=True, help="On stderr."
)
cloud_option = click.option("--cloud", help="All regions of this cloud, instead of one REGION.")


@click.group("region")
def command() -> None:
    """Regions: move all users of one elsewhere through the global tier, and bring them back in steps."""


@command.command()
@click.argument("region", required=False)
@cloud_option
@click.option("--reason", type=REASON, required=True, help="Why; it goes into the records.")
@click.option(
    "--override", multiple=True, help="Skip this rule: I1, I2 or I3. Your name stands beside it in the audit log."
)
@log_option
@config_option
@options
def evacuate(
    region: str | None,
    cloud: str | None,
    reason: str,
    override: tuple[str, ...],
    log: str,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Move every user of REGION to the other regions, and end when nobody is left in it.

    The other regions must be able to carry them (I3); they are scaled first where policy allows. Ends with 0 when the
    region is empty, 11 when a person must choose. It stays out, and keeps the lease (I1), until `failout region return`.
    """
    from orchestrator.cli.carrying import carry_until, run_name  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.regions import regions_of, start_evacuation  # noqa: PLC0415

    settings = read_settings(find_config(config))

    async def begin(store: Store, topology: Topology) -> Run:
        return await start_evacuation(
            store,
            topology,
            settings.policy,
            regions_of(topology, region, cloud),
            run=run_name("region"),
            author=author(),
            reason=reason,
            now=datetime.now(UTC),
            overrides=override,
        )

    def check(topology: Topology) -> None:
        regions_of(topology, region, cloud)

    def enough(run: Run, waits: bool) -> bool:
        return run.status in {"out", "held", "paused"} and not waits

    run = asyncio.run(carry_until(settings, logger(log), begin, enough, quiet=log != "human", check=check))
    _end(run, run.status == "out", as_json=as_json)


@command.command("return")
@click.argument("region", required=False)
@cloud_option
@click.option("--reason", type=REASON, required=True, help="Why; it goes into the records.")
@log_option
@config_option
@options
def return_(
    region: str | None, cloud: str | None, reason: str, log: str, config: Path | None, *, as_json: bool
) -> None:
    """Bring an evacuated REGION back: verified first, then in steps that are compared with the others.

    Ends with 0 when it has its usual share, 10 when it proved sick and went out again, 11 when a person must choose.
    """
    from orchestrator.cli.carrying import carry_until  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.regions import order_return, regions_of  # noqa: PLC0415

    settings = read_settings(find_config(config))

    async def begin(store: Store, topology: Topology) -> Run:
        regions = regions_of(topology, region, cloud)
        return await order_return(store, topology, regions, author=author(), reason=reason, now=datetime.now(UTC))

    def check(topology: Topology) -> None:
        regions_of(topology, region, cloud)

    def enough(run: Run, waits: bool) -> bool:
        return run.status in {"out", "held", "paused"} and not waits

    run = asyncio.run(carry_until(settings, logger(log), begin, enough, quiet=log != "human", check=check))
    _end(run, run.finished, as_json=as_json)


def _end(run: Run, good: bool, *, as_json: bool) -> None:
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    data: dict[str, Any] = {"schema": 1, "service": run.service, **describe_run(run, {}, datetime.now(UTC))}
    emit(data, as_json=as_json, human=lambda: human_run(data))
    sys.exit(0 if good else HELD if run.status in {"held", "paused"} else NOT_DONE)
