"""`failout drill run | list | show | report`, and `failout drill schedule ...`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, glance, options, table
from orchestrator.cli.drill_schedule import command as schedule
from orchestrator.cli.drill_schedule import human_schedules, listed
from orchestrator.cli.status import human_run
from orchestrator.core.errors import Refused, Rejected

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.core.drill import Wish
    from orchestrator.core.topology import Topology
    from orchestrator.engine.ports import Run, Store

FAILED: Final = 10
INTERRUPTED: Final = 13
CODES: Final = {"succeeded": 0, "refused": Refused.exit_code, "failed": FAILED, "interrupted": INTERRUPTED}
log_option = click.option(
    "--log", type=click.Choice(["human", "json", "none"]), default="human", show_default=True, help="On stderr."
)


@click.group("drill")
def command() -> None:
    """Drills: take a zone or a region out on purpose, under the eyes of outside signals, and bring it back."""


command.add_command(schedule)


@command.command()
@click.option("--zone", help="The zone to take out.")
@click.option("--region", help="The region to take out, through the global tier.")
@click.option("--duration", help="How long it is out, such as 30m [default: drills.duration_s of failout.yaml].")
@click.option(
    "--mode",
    type=click.Choice(["drain", "evacuate"]),
    default="drain",
    show_default=True,
    help="Drain waits for requests in flight; evacuate waits for nobody.",
)
@click.option(
    "--actions", type=click.Choice(["all", "none"]), default="all", help="none: a rehearsal. It changes nothing."
)
@click.option(
    "--signal",
    "signals",
    multiple=True,
    help="Outcome signal, instead of drills.outcome_signals; several may be named.",
)
@click.option(
    "--reason", type=REASON, default="a drill by hand", show_default=True, help="Why; it goes into the records."
)
@log_option
@config_option
@options
def run(
    zone: str | None,
    region: str | None,
    duration: str | None,
    mode: str,
    actions: str,
    signals: tuple[str, ...],
    reason: str,
    log: str,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Take a zone or a region out, watch the signals while it is out, bring it back, and leave proof.

    Nothing is touched unless every check speaks for it: an outcome signal that is good (I15), capacity without the place
    (I3), nothing else out (I1), no freeze (I14), nothing that `doctor` finds wrong. A signal that turns bad sends the
    place back at once. Ends with 0 when it succeeded, 3 when it was refused, 10 when it failed, 13 when it was interrupted.
    """
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415

    settings = read_settings(find_config(config))
    wish = _wish(settings, zone, region, duration, mode, signals, reason)
    if actions == "none":
        topology = read_topology(settings.topology, settings.service)
        sys.exit(_rehearse(settings, topology, wish, as_json=as_json))
    _end(_carried(settings, wish, log), as_json=as_json)


def _rehearse(settings: Settings, topology: Topology, wish: Wish, *, as_json: bool) -> int:
    """Every check of the drill, and nothing written, not even a record."""
    from orchestrator.bootstrap import drill_checks, signal_names  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.operations.drills import require_wish  # noqa: PLC0415

    async def never() -> bool:
        return False

    require_wish(topology, wish, signal_names(settings))
    found = asyncio.run(drill_checks(settings, logger("none")).findings(wish, None, never))
    ok = all(f.verdict != "failed" for f in found)
    data = {
        "schema": 1,
        "service": settings.service,
        "place": wish.place,
        "ok": ok,
        "findings": [{"what": f.what, "verdict": f.verdict, "evidence": f.evidence} for f in found],
    }
    told = f"rehearsal: nothing was changed; a drill of {wish.place} would {'begin' if ok else 'be refused'}"
    rows = [(f.verdict, f.what, f.evidence) for f in found]
    emit(data, as_json=as_json, human=lambda: "\n".join([table(rows, ("verdict", "check", "evidence")), "", told]))
    return 0 if ok else Refused.exit_code


def _wish(
    settings: Settings,
    zone: str | None,
    region: str | None,
    duration: str | None,
    mode: str,
    signals: tuple[str, ...],
    reason: str,
) -> Wish:
    from orchestrator.core.drill import Wish  # noqa: PLC0415
    from orchestrator.core.outing import Mode  # noqa: PLC0415

    place = zone or region
    if place is None or (zone and region):
        raise Rejected("name either --zone ZONE or --region REGION")
    policy = settings.drills
    if signals:
        policy = replace(policy, outcome_signals=signals)
    if duration is not None:
        policy = replace(policy, duration_s=_seconds(duration))
    return Wish(place, "zone" if zone else "region", Mode(mode), policy, author(), reason)


def _seconds(text: str) -> float:
    from orchestrator.core.script import duration_s  # noqa: PLC0415

    try:
        return duration_s(text)
    except (ValueError, OverflowError) as error:
        raise Rejected(f"--duration: {error}") from None


def _carried(settings: Settings, wish: Wish, log: str) -> Run:
    from orchestrator.bootstrap import signal_names  # noqa: PLC0415
    from orchestrator.cli.carrying import carry_until, run_name  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.operations.drills import require_wish, start_drill  # noqa: PLC0415

    async def begin(store: Store, topology: Topology) -> Run:
        known = signal_names(settings)
        return await start_drill(store, topology, wish, known, run_name("drill"), datetime.now(UTC))

    def check(topology: Topology) -> None:
        with contextlib.suppress(Refused):  # A refusal goes on record, once the state is open.
            require_wish(topology, wish, signal_names(settings))

    return asyncio.run(
        carry_until(settings, logger(log), begin, lambda _, __: False, quiet=log != "human", check=check)
    )


def _end(run: Run, *, as_json: bool) -> None:
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    data: dict[str, Any] = {"schema": 1, "service": run.service, **describe_run(run, {}, datetime.now(UTC))}
    emit(data, as_json=as_json, human=lambda: human_run(data))
    sys.exit(CODES[run.status])


# ---- looking


@command.command("list")
@config_option
@options
def list_(config: Path | None, *, as_json: bool) -> None:
    """List the schedules and the last drills, newest first."""
    data = listed(config)
    emit(
        data, as_json=as_json, human=lambda: f"{human_schedules(data['schedules'])}\n\n{_human_drills(data['drills'])}"
    )


def _human_drills(drills: list[dict[str, Any]]) -> str:
    rows = [(d["run"], d["target"], d["status"], d["started"][:16].replace("T", " "), d["reason"]) for d in drills]
    return table(rows, ("drill", "of", "outcome", "began (UTC)", "why")) if rows else "no drill yet"


@command.command()
@click.argument("drill")
@config_option
@options
def show(drill: str, config: Path | None, *, as_json: bool) -> None:
    """Show one drill: what was checked, what happened, and what it proved."""
    from orchestrator.operations.drilled import show_drill  # noqa: PLC0415

    data = glance(config, lambda rows, _: show_drill(rows, drill, datetime.now(UTC)))
    emit(data, as_json=as_json, human=lambda: _human_drill(data))


def _human_drill(data: dict[str, Any]) -> str:
    proofs = [f"proof: {p['zone']} {p['worth']}: {p['evidence']}" for p in data["proofs"]]
    events = [(e["at"][11:19], e["event"], e["evidence"]) for e in data["events"]]
    lines = [human_run(data), "", *(f"checked: {c}" for c in data["checks"]), *proofs, ""]
    return "\n".join([*lines, table(events, ("at (UTC)", "what", "evidence"))])


@command.command()
@click.argument("drill")
@click.option("--html", is_flag=True, help="Write the self-contained HTML file anew and print where it lies.")
@config_option
@options
@click.pass_context
def report(context: click.Context, drill: str, config: Path | None, *, html: bool, as_json: bool) -> None:
    """Print a drill's report as Markdown: traffic, errors and latency while the place was out (`failout report show`)."""
    from orchestrator.cli.report import show as show_report  # noqa: PLC0415

    context.invoke(show_report, run=drill, config=config, html=html, as_json=as_json, debug=False)
