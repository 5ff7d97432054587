"""`failout lab up | down | status | traffic | fail | heal`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.common import HOME, Number, emit, options, table

name_option = click.option("--name", default="default", show_default=True, help="Which lab; several can be up.")


@click.group("lab")
def command() -> None:
    """Labs: emulated AWS and Azure over real processes, real load balancers and real traffic, on loopback addresses."""


@command.command()
@name_option
@click.option(
    "--aws", multiple=True, default=("us-east-1:3",), show_default=True, help="REGION[:ZONES]; repeat; '' for none."
)
@click.option(
    "--azure", multiple=True, default=("eastus:3",), show_default=True, help="REGION[:ZONES]; repeat; '' for none."
)
@click.option("--instances", type=click.IntRange(1, 9), default=3, show_default=True, help="Instances in each zone.")
@click.option("--version", default="v1", show_default=True, help="Version that runs at first.")
@click.option("--retries/--strict", default=False, help="Let load balancers retry. Strict shows users every mistake.")
@click.option(
    "--ttl", "ttl_s", type=click.IntRange(1, 60), default=5, show_default=True, help="TTL of the DNS, seconds."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--autoscale",
    type=Number(0.1, 1.0),
    metavar="TARGET",
    help="Autoscalers keep the load per instance at this share of rps_per_instance (default: nothing scales by itself).",
)
@click.option(
    "--from-pulumi",
    "programs",
    type=click.Path(path_type=Path, file_okay=False),
    is_flag=False,
    flag_value="infra",
    help="Provision with the Pulumi programs in this folder (default: infra), as in production.",
)
@options
def up(
    name: str,
    aws: tuple[str, ...],
    azure: tuple[str, ...],
    instances: int,
    version: str,
    ttl_s: int,
    seed: int,
    autoscale: float | None,
    programs: Path | None,
    *,
    retries: bool,
    as_json: bool,
) -> None:
    """Raise a lab; it stays up until `failout lab down`."""
    from orchestrator.lab.blueprint import Blueprint, parse_regions  # noqa: PLC0415
    from orchestrator.lab.client import control, folder_of, raise_lab  # noqa: PLC0415

    folder = folder_of(HOME, name).resolve()
    blueprint = Blueprint(
        name=name,
        regions=parse_regions([r for r in aws if r], [r for r in azure if r]),
        instances=instances,
        version=version,
        strict=not retries,
        seed=seed,
        ttl_s=ttl_s,
        programs=str(Path(programs).resolve()) if programs else "",
        autoscale={"target": autoscale} if autoscale else {},
    )
    if programs:
        from orchestrator.lab.programs import find_python  # noqa: PLC0415

        find_python(Path(blueprint.programs))
    began = time.monotonic()
    raise_lab(folder, blueprint, lambda text: click.echo(f"lab {name}: {text}", err=True), with_parent=False)
    status_ = control(folder, "/status")
    took = time.monotonic() - began
    emit(status_, as_json=as_json, human=lambda: _up(folder, status_, took))


def _up(folder: Path, status_: dict[str, Any], took_s: float) -> str:
    count = len(status_["instances"])
    return (
        f"lab {status_['name']} is up after {took_s:.1f} s: {count} instances, DNS {status_['dns']}\n"
        f"next: failout lab traffic --name {status_['name']} --seconds 60 &   then   failout deploy --to v2\n"
        f"its files: {folder}"
    )


@command.command()
@name_option
@options
def down(name: str, *, as_json: bool) -> None:
    """Take a lab down with every process of it; its records stay."""
    from orchestrator.lab.client import folder_of, take_down  # noqa: PLC0415

    folder = folder_of(HOME, name).resolve()
    take_down(folder)
    emit(
        {"schema": 1, "name": name, "down": True},
        as_json=as_json,
        human=lambda: f"lab {name} is down; records: {folder}",
    )


@command.command()
@name_option
@options
def status(name: str, *, as_json: bool) -> None:
    """Show the lab's instances, faults and load-balancer counts."""
    from orchestrator.lab.client import control, folder_of  # noqa: PLC0415

    data = control(folder_of(HOME, name).resolve(), "/status")
    emit(data, as_json=as_json, human=lambda: _status(data))


def _status(data: dict[str, Any]) -> str:
    rows = [
        (i["zone"], i["id"], i["address"], i["version"], i["process"], str(i["in_flight"]))
        for i in sorted(data["instances"], key=lambda i: (i["zone"], i["address"]))
    ]
    told = [f"lab {data['name']} ({'strict' if data['strict'] else 'retries on'}), DNS {data['dns']}"]
    told += [f"{zone} is broken: {mode}" for zone, mode in data["faults"].items()]
    return "\n".join(told) + "\n\n" + table(rows, ("zone", "instance", "address", "version", "process", "in flight"))


@command.command()
@click.argument("zone")
@click.option(
    "--mode", type=click.Choice(["kill", "blackhole", "slow", "errors", "partition"]), default="kill", show_default=True
)
@name_option
@options
def fail(zone: str, mode: str, name: str, *, as_json: bool) -> None:
    """Break ZONE until it is healed."""
    from orchestrator.lab.client import control, folder_of  # noqa: PLC0415

    control(folder_of(HOME, name).resolve(), "/fail", {"zone": zone, "mode": mode})
    emit(
        {"schema": 1, "zone": zone, "mode": mode},
        as_json=as_json,
        human=lambda: f"{zone} is broken: {mode}; next: failout lab heal {zone}",
    )


@command.command()
@click.argument("zone")
@name_option
@options
def heal(zone: str, name: str, *, as_json: bool) -> None:
    """End the fault of ZONE; what was killed starts again."""
    from orchestrator.lab.client import control, folder_of  # noqa: PLC0415

    control(folder_of(HOME, name).resolve(), "/heal", {"zone": zone})
    emit({"schema": 1, "zone": zone, "mode": None}, as_json=as_json, human=lambda: f"{zone} is healed")


@command.command("cloud-fault")
@click.argument("cloud", type=click.Choice(["aws", "azure"]))
@click.argument(
    "kind",
    type=click.Choice(
        ["throttle", "conflict", "error", "deny", "reset", "cut", "stale", "fail", "hang", "delay", "clear"]
    ),
)
@click.option("--call", default=".*", show_default=True, help="Regex: elbv2.ModifyListener (AWS), a path (Azure).")
@click.option("--method", default="*", show_default=True, help="HTTP method (Azure).")
@click.option("--count", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many calls.")
@click.option("--code", help="Error code instead of the kind's own, such as ExpiredToken.")
@click.option("--retry-after", "retry_after_s", type=Number(min=0), help="Seconds, sent as Retry-After.")
@click.option("--delay", "delay_s", type=Number(min=0), default=0.0, help="Seconds before the call is looked at.")
@name_option
@options
def cloud_fault(cloud: str, kind: str, name: str, *, as_json: bool, **given: object) -> None:
    """Make the next calls of a cloud's API fail; `clear` ends that. Instances and users' traffic go on."""
    from orchestrator.lab.client import control, folder_of  # noqa: PLC0415

    order: dict[str, Any] = {"cloud": cloud, **{k: v for k, v in given.items() if v is not None}}
    order |= {"clear": True} if kind == "clear" else {"kind": None if kind == "delay" else kind}
    control(folder_of(HOME, name).resolve(), "/cloud-fault", order)
    emit({"schema": 1, **order}, as_json=as_json, human=lambda: f"{cloud}'s API: {kind}, {given['call']}")


@command.command()
@name_option
@click.option("--rate", type=Number(1, 5000), default=300.0, show_default=True, help="Requests a second, open loop.")
@click.option("--seconds", type=Number(1, 86400), help="End after this long; default: at Ctrl-C.")
@click.option("--curve", type=click.Choice(["constant", "day"]), default="constant", show_default=True)
@click.option("--then", multiple=True, metavar="RATE@SECOND", help="From that second on another rate; repeat.")
@click.option("--seed", type=int, default=0, show_default=True)
@options
def traffic(
    name: str, rate: float, seconds: float | None, curve: str, then: tuple[str, ...], seed: int, *, as_json: bool
) -> None:
    """Send users' requests to the lab and log each one; prints a summary at its end."""
    from orchestrator.lab.client import control, folder_of  # noqa: PLC0415
    from orchestrator.lab.demo import traffic_command  # noqa: PLC0415

    folder = folder_of(HOME, name).resolve()
    log = folder / f"requests-{time.strftime('%Y%m%d-%H%M%S')}.csv"
    dns = control(folder, "/status")["dns"]
    args = traffic_command(
        dns, log, rate=rate, seed=seed, seconds=seconds, curve=curve, then=then, progress=not as_json
    )
    click.echo(f"every request is logged in {log}", err=True)
    os.execv(args[0], args)  # noqa: S606 - our own module, in this process's place: a signal reaches it itself
