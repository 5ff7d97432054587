"""`failout plan`."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import config_option, emit, find_config, options, seconds, table
from orchestrator.core.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.operations.planning import Plan


@click.command("plan")
@click.option("--to", "version", required=True, help="The version, as its release manifest names it.")
@config_option
@options
def command(version: str, config: Path | None, *, as_json: bool) -> None:
    """Say what a deploy of a version would do, zone by zone. Reads and computes; changes nothing."""
    from orchestrator.config import read_settings  # noqa: PLC0415

    settings = read_settings(find_config(config))
    plan = asyncio.run(plan_of(settings, version))
    emit(plan_json(plan), as_json=as_json, human=lambda: human_plan(plan))


async def plan_of(settings: Settings, version: str) -> Plan:
    from orchestrator.bootstrap import place_of, reading_world  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.engine.glance import glance_at  # noqa: PLC0415
    from orchestrator.operations.planning import make_plan  # noqa: PLC0415
    from orchestrator.workflows.polling import Patience  # noqa: PLC0415

    world = reading_world(settings, logger("none"))
    try:
        with glance_at(place_of(settings)) as glance:
            usual = glance.usual(settings.service)
    except NotFound:
        usual = {}
    patience = Patience.begin(world.clock, random.random, lambda why: click.echo(why, err=True))
    return await patience.ask("a cloud", lambda: make_plan(world, settings.policy, version, usual))


def plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "schema": 1,
        "service": plan.service,
        "version": plan.version,
        "estimate_s": round(plan.estimate_s, 1),
        "refusals": list(plan.refusals),
        "zones": [z.row() for z in plan.zones],
    }


def human_plan(plan: Plan) -> str:
    rows = []
    for zone in plan.zones:
        steps = "nothing to do" if zone.nothing_to_do else " ".join(f"{s.share:.0%}" for s in zone.steps)
        rows.append(
            (
                zone.zone,
                f"{zone.from_version or '?'} -> {zone.to_version}",
                str(zone.instances),
                f"{zone.rps:g}/s",
                steps,
                zone.capacity or "refused",
                seconds(zone.estimate_s),
            )
        )
    told = [f"deploy of {plan.version} to {plan.service}: {len(plan.zones)} zones, one at a time"]
    told += [table(rows, ("zone", "version", "instances", "load", "ramp", "capacity while it is out (I3)", "estimate"))]
    merged = {m for z in plan.zones for s in z.steps for m in s.merged}
    if merged:
        shares = ", ".join(f"{m:.0%}" for m in sorted(merged))
        told.append(f"I9: steps too small to be measured within their time are merged into the next: {shares}")
    told += [f"refused: {r}" for r in plan.refusals]
    verdict = "it would be refused as things stand" if plan.refusals else "nothing speaks against it"
    told.append(f"in all about {seconds(plan.estimate_s)}; {verdict}")
    if not plan.refusals:
        told.append(f"next: failout deploy --to {plan.version}")
    return "\n\n".join(told)
