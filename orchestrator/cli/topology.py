"""`failout topology show`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli.common import config_option, emit, find_config, options, table
from orchestrator.core.topology import Topology


@click.group("topology")
def command() -> None:
    """The clouds, regions and zones of the service."""


@command.command()
@config_option
@options
def show(config: Path | None, *, as_json: bool) -> None:
    """Show the topology document that Failout works on."""
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415

    settings = read_settings(find_config(config))
    topology = read_topology(settings.topology, settings.service)
    emit({"schema": 1, **asdict(topology)}, as_json=as_json, human=lambda: _human(topology))


def _human(topology: Topology) -> str:
    rows = [
        (z.id, r.id, str(z.instances), str(z.instances_max), f"{z.rps_per_instance:g}/s", str(r.weight))
        for r in topology.regions
        for z in r.zones
    ]
    head = f"service {topology.service}, global tier {topology.global_tier.kind} {topology.global_tier.record} "
    head += f"(TTL {topology.global_tier.ttl_s:g} s)\n\n"
    return head + table(rows, ("zone", "region", "instances", "max", "per instance", "region weight"))
