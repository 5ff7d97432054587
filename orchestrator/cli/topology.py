"""`failout topology show | import | check`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import config_option, emit, find_config, options, table
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.topology import Topology

if TYPE_CHECKING:
    from orchestrator.operations.topology import Drift

DRIFTED: Final = 10
UNCHECKED: Final = 11


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


@command.command("import")
@click.option(
    "--stack", "stacks", multiple=True, help="A Pulumi stack, org/project/stack; repeat for each of the service."
)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="`pulumi stack output --json` in a file, or its `topology` alone; repeat; - reads standard input.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write; default: what failout.yaml names."
)
@config_option
@options
def import_(
    stacks: tuple[str, ...], files: tuple[Path, ...], out: Path | None, config: Path | None, *, as_json: bool
) -> None:
    """Write the topology document from the outputs of the Pulumi stacks that provision the service.

    Each stack says what it owns; name all of them: those of the regions and the global one.
    """
    from orchestrator.operations.topology import merge  # noqa: PLC0415

    if not stacks and not files:
        raise Rejected("name the stacks with --stack org/project/stack (or files with --file), each once")
    parts = [(stack, _stack_output(stack)) for stack in stacks] + [(str(file), _read_part(file)) for file in files]
    document = merge(parts)
    where = out or _topology_path(config, document["service"])
    _write(where, json.dumps(document, indent=2) + "\n")
    zones = sum(len(r["zones"]) for r in document["regions"])
    emit(
        document,
        as_json=as_json,
        human=lambda: (
            f"{where}: service {document['service']}, {len(document['regions'])} regions, {zones} zones\n"
            "next: failout topology check"
        ),
    )


def _stack_output(stack: str) -> dict[str, Any]:
    """Ask the Pulumi CLI, in this environment's backend. Raises NotFound without a CLI, Rejected with its words."""
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise NotFound("no `pulumi` on PATH; save `pulumi stack output --json` to a file and give it with --file")
    asked = [pulumi, "stack", "output", "topology", "--json", "--non-interactive", "--stack", stack]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    if done.returncode != 0:
        raise Rejected(f"pulumi cannot tell the topology of stack {stack}: {' '.join(done.stderr.split())[:300]}")
    output: dict[str, Any] = json.loads(done.stdout)
    return output


def _read_part(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        data = json.loads(text)
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}") from None
    except (OSError, ValueError) as error:
        raise Rejected(f"{file} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Rejected(f"{file}: an object is expected")
    part: dict[str, Any] = data.get("topology", data)
    return part


def _topology_path(config: Path | None, service: str) -> Path:
    """Where failout.yaml says it is; without one, topology.json here. Never over another service's."""
    from orchestrator.config import read_settings  # noqa: PLC0415

    if config is None and not Path("failout.yaml").is_file():
        return Path("topology.json")
    settings = read_settings(find_config(config))
    if settings.service != service:
        raise Rejected(f"{settings.path} is for service {settings.service!r}, the stacks are of {service!r}")
    return settings.topology


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a deploy may be reading it."""
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(text, "utf-8")
        draft.replace(path)
    except OSError as error:
        raise Rejected(f"{path} cannot be written: {error.strerror}") from None


@command.command()
@config_option
@options
def check(config: Path | None, *, as_json: bool) -> None:
    """Compare the topology document with what the clouds say, and name what differs. Reads only.

    Ends with 0 when all is as written, 10 when something differs, 11 when something could not be looked at.
    """
    import asyncio  # noqa: PLC0415

    from orchestrator.bootstrap import reading_world  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.topology import drift  # noqa: PLC0415

    settings = read_settings(find_config(config))
    found = asyncio.run(drift(reading_world(settings, logger("none"))))
    emit({"schema": 1, "drift": [asdict(one) for one in found]}, as_json=as_json, human=lambda: _drift(found))
    if any(one.checked for one in found):
        sys.exit(DRIFTED)
    if found:
        sys.exit(UNCHECKED)


def _drift(found: list[Drift]) -> str:
    if not found:
        return "every fleet, front and record is as the topology document says"
    rows = [(d.where, d.what, d.expected, d.found if d.checked else f"not checked: {d.found}") for d in found]
    return table(rows, ("where", "what", "the document says", "the cloud says"))
