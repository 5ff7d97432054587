"""`failout drill schedule add | list | remove | pause | resume`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, glance, options, table
from orchestrator.core.errors import Rejected

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.core.schedule import DrillSchedule

F = Callable[..., Any]
reason_option = click.option(
    "--reason", type=REASON, required=True, help="Why; it goes into the records and the audit log."
)


@click.group("schedule")
def command() -> None:
    """Schedules of drills; `failout serve` fires them."""


def _when_options(add: F) -> F:
    for option in (
        click.option("--cron", required=True, help="Minute hour day month weekday, such as '0 10 * * tue,thu'."),
        click.option(
            "--time-zone", default="UTC", show_default=True, help="Such as Europe/Berlin; hours too are in it."
        ),
        click.option(
            "--jitter", default="0s", show_default=True, help="Begin up to so much later, the same for a date."
        ),
        click.option("--allow", "allowed", multiple=True, help="Only in these hours, such as 'mon-fri 09:00-17:00'."),
        click.option("--block", "blocked", multiple=True, help="Not in these hours."),
        click.option("--block-dates", "blocked_dates", multiple=True, help="2026-12-24 or 2026-12-20..2027-01-02."),
        click.option(
            "--skip-if-proven", "fresh", help="Skip it when the place was proven within this time, such as 5d."
        ),
    ):
        add = option(add)
    return add


def _what_options(add: F) -> F:
    for option in (
        click.option("--zone", help="This zone [default: the one that `--choose` names]."),
        click.option("--region", help="This region."),
        click.option("--regions", is_flag=True, help="Whole regions: the one that `--choose` names."),
        click.option("--choose", type=click.Choice(["weakest", "oldest"]), default="weakest", show_default=True),
        click.option("--duration", help="How long it is out [default: drills.duration_s of failout.yaml]."),
        click.option("--mode", type=click.Choice(["drain", "evacuate"]), default="drain", show_default=True),
        click.option("--signal", "signals", multiple=True, help="Outcome signal, instead of drills.outcome_signals."),
    ):
        add = option(add)
    return add


@command.command()
@click.argument("name")
@_when_options
@_what_options
@reason_option
@config_option
@options
def add(name: str, reason: str, config: Path | None, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Add the schedule NAME. Of many firings that were missed the latest is made up for, once."""
    from orchestrator.bootstrap import signal_names  # noqa: PLC0415
    from orchestrator.cli.carrying import with_store  # noqa: PLC0415
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415
    from orchestrator.operations.schedules import add_schedule  # noqa: PLC0415

    settings = read_settings(find_config(config))
    topology = read_topology(settings.topology, settings.service)
    schedule, names, now = _schedule(settings, name, reason, **given), signal_names(settings), datetime.now(UTC)
    asyncio.run(with_store(settings, lambda store: add_schedule(store, topology, schedule, names, now)))
    _told(name, "add", as_json=as_json)


def _schedule(settings: Settings, name: str, reason: str, **given: Any) -> DrillSchedule:  # noqa: ANN401
    from orchestrator.core.drill import Choice  # noqa: PLC0415
    from orchestrator.core.outing import Mode  # noqa: PLC0415
    from orchestrator.core.schedule import DrillSchedule  # noqa: PLC0415

    if sum(map(bool, (given["zone"], given["region"], given["regions"]))) > 1:
        raise Rejected("name one of --zone, --region and --regions")
    policy = settings.drills
    if given["signals"]:
        policy = replace(policy, outcome_signals=given["signals"])
    if given["duration"]:
        policy = replace(policy, duration_s=_seconds("--duration", given["duration"]))
    return DrillSchedule(
        id=name,
        cron=given["cron"],
        time_zone=given["time_zone"],
        mode=Mode(given["mode"]),
        policy=policy,
        author=author(),
        reason=reason,
        tier="region" if given["region"] or given["regions"] else "zone",
        place=given["zone"] or given["region"],
        choice=Choice(given["choose"]),
        fresh_s=_seconds("--skip-if-proven", given["fresh"]) if given["fresh"] else None,
        jitter_s=_seconds("--jitter", given["jitter"]),
        allowed=given["allowed"],
        blocked=given["blocked"],
        blocked_dates=given["blocked_dates"],
    )


def _seconds(option: str, text: str) -> float:
    from orchestrator.core.script import duration_s  # noqa: PLC0415

    try:
        return duration_s(text)
    except (ValueError, OverflowError) as error:
        raise Rejected(f"{option}: {error}") from None


@command.command("list")
@config_option
@options
def list_(config: Path | None, *, as_json: bool) -> None:
    """List the schedules with when each fires next and what came of the last time."""
    data = listed(config)
    told = {"schema": 1, "service": data["service"], "schedules": data["schedules"]}
    emit(told, as_json=as_json, human=lambda: human_schedules(data["schedules"]))


def listed(config: Path | None) -> dict[str, Any]:
    """Schedules and drills, read without taking a lock."""
    from orchestrator.operations.drilled import list_drills  # noqa: PLC0415

    now = datetime.now(UTC)
    return glance(
        config, lambda rows, service: list_drills(rows, service, now), lambda service: list_drills(None, service, now)
    )


def human_schedules(schedules: list[dict[str, Any]]) -> str:
    if not schedules:
        return "no schedule; add one with `failout drill schedule add NAME --cron ... --reason ...`"
    rows = []
    for s in schedules:
        of = s["place"] or f"the {s['tier']} with the {s['choice']} proof"
        coming = "paused" if s["paused"] else (s["next"] or "never")[:16].replace("T", " ")
        rows.append((s["schedule"], f"{s['cron']} {s['time_zone']}", of, coming, s["last_run"] or "—", s["note"]))
    return table(rows, ("schedule", "when", "of", "next (UTC)", "last drill", "why that one"))


@command.command()
@click.argument("name")
@reason_option
@config_option
@options
def remove(name: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Remove the schedule NAME. A drill that it has begun goes on."""
    _order("remove", name, reason, config, as_json=as_json)


@command.command()
@click.argument("name")
@reason_option
@config_option
@options
def pause(name: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Fire it no more until it is resumed."""
    _order("pause", name, reason, config, as_json=as_json)


@command.command()
@click.argument("name")
@reason_option
@config_option
@options
def resume(name: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Let it fire again; what was missed meanwhile is not made up for."""
    _order("resume", name, reason, config, as_json=as_json)


def _order(kind: str, name: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    from orchestrator.cli.carrying import with_store  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.outings import Person  # noqa: PLC0415
    from orchestrator.operations.schedules import order_schedule  # noqa: PLC0415

    settings = read_settings(find_config(config))
    who = Person(author(), reason, datetime.now(UTC))
    asyncio.run(with_store(settings, lambda store: order_schedule(store, settings.service, name, kind, who)))
    _told(name, kind, as_json=as_json)


def _told(name: str, kind: str, *, as_json: bool) -> None:
    done = {"add": "added", "remove": "removed", "pause": "paused", "resume": "resumed"}[kind]
    human = f"schedule {name} {done}.\nnext: failout drill list   (`failout serve` fires what is due)"
    emit({"schema": 1, "schedule": name, "done": done}, as_json=as_json, human=lambda: human)
