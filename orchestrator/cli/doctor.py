"""`failout doctor`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import config_option, emit, find_config, options

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.ports import Finding

UNFIT: Final = 10


@click.command("doctor")
@config_option
@options
def command(config: Path | None, *, as_json: bool) -> None:
    """Look whether a deploy could work from here: credentials, every permission that is used, agents, the topology
    against what is there, quotas, clock, releases, state. Reads and dry runs only.

    Ends with 0 when nothing is wrong (what nobody could check is listed as unchecked), else with 10.
    """
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.doctor import as_json as findings_json  # noqa: PLC0415

    settings = read_settings(find_config(config))
    data = findings_json(settings.service, asyncio.run(findings(settings)))
    emit(data, as_json=as_json, human=lambda: human_findings(data))
    sys.exit(0 if data["ok"] else UNFIT)


async def findings(settings: Settings) -> list[Finding]:
    """What is wrong with the settings themselves ends it: without them there is nothing to look at."""
    from orchestrator.bootstrap import inspectors, place_of, reading_world  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.config import ReleaseFolder  # noqa: PLC0415
    from orchestrator.operations.doctor import examine, state  # noqa: PLC0415

    world = reading_world(settings, logger("none"))
    versions = ReleaseFolder(settings.releases).versions()
    found = state(place_of(settings), settings.service)
    return found + await examine(world, inspectors(world.topology), versions)


def human_findings(data: dict[str, Any]) -> str:
    """What is wrong first, then what nobody could check, then the rest; what has one reason is told once."""
    together: dict[tuple[str, str], list[str]] = {}
    for f in sorted(data["findings"], key=lambda f: ("failed", "unchecked", "ok").index(f["verdict"])):
        together.setdefault((f["verdict"], f["evidence"]), []).append(f["what"])
    lines = []
    for (verdict, evidence), subjects in together.items():
        if len(subjects) == 1:
            lines.append(f"{verdict:<9}  {subjects[0]}: {evidence}")
        else:
            lines.append(f"{verdict:<9}  {evidence}: {len(subjects)} checks")
            lines += [f"{'':<11}{subject}" for subject in subjects if verdict != "ok"]
    counts = data["counts"]
    told = f"{counts['ok']} ok, {counts['failed']} failed, {counts['unchecked']} unchecked"
    return "\n".join([*lines, "", f"service {data['service']}: {told}"])
