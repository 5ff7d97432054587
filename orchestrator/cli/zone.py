"""`failout zone drain | evacuate | restore | release | extend | pause | resume`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, options
from orchestrator.cli.status import human_run
from orchestrator.core.errors import Refused, Rejected

if TYPE_CHECKING:
    from orchestrator.cli.carrying import Begin, Check, Enough
    from orchestrator.config import Settings
    from orchestrator.core.topology import Topology
    from orchestrator.engine.ports import Run, Store

NOT_DONE: Final = 10
HELD: Final = 11
F = Callable[..., Any]

log_option = click.option(
    "--log", type=click.Choice(["human", "json", "none"]), default="human", show_default=True, help="On stderr."
)
reason_option = click.option(
    "--reason", type=REASON, required=True, help="Why; it goes into the records and the audit log."
)
expires_option = click.option(
    "--expires", default="1h", show_default=True, help="How long it may be out, such as 30m or 2h (I8)."
)


def _leaving_options(command: F) -> F:
    for option in (
        options,
        config_option,
        log_option,
        click.option("--wait", is_flag=True, help="Stay, and carry it until it is back."),
        click.option(
            "--override", multiple=True, help="Skip this rule (I1, I2, I3, I14), with your name in the audit log."
        ),
        click.option(
            "--on-expiry",
            type=click.Choice(["hold", "restore"]),
            default="hold",
            show_default=True,
            help="When its time is over: stay out and alarm, or come back by itself.",
        ),
        expires_option,
        reason_option,
        click.argument("zone"),
    ):
        command = option(command)
    return command


@click.group("zone")
def command() -> None:
    """Zones: take one out of traffic by hand, and bring it back."""


@command.command()
@_leaving_options
def drain(**given: Any) -> None:  # noqa: ANN401
    """Stop new traffic to ZONE, wait until nothing is in flight, and leave it out until it is restored.

    Every guard is asked first: one zone at a time (I1), sound survivors (I2) that can carry the load (I3). Ends with 0
    when it is out, 3 when a rule refuses it, 10 when it could not be emptied and serves again, 11 when a person must
    choose.
    """
    _leave("drain", **given)


@command.command()
@_leaving_options
def evacuate(**given: Any) -> None:  # noqa: ANN401
    """Empty ZONE at once because it is failing: no guard, no preparation, no waiting for requests in flight.

    It works through the instances' own admission flags, so that the cloud's API may be down (I10), and under a freeze
    (I14). A deploy that has another zone out is suspended and brings that one back first, unless ZONE is seen dead by
    its load balancer and its region's agent (I1).
    """
    _leave("evacuate", **given)


def _leave(
    mode: str,
    *,
    zone: str,
    reason: str,
    expires: str,
    on_expiry: str,
    override: tuple[str, ...],
    wait: bool,
    log: str,
    config: Path | None,
    as_json: bool,
) -> None:
    from orchestrator.cli.carrying import run_name  # noqa: PLC0415
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.core.outing import Ask, Asker, Mode  # noqa: PLC0415
    from orchestrator.core.policy import OnExpiry  # noqa: PLC0415
    from orchestrator.operations.outings import OVERRIDABLE, require_overridable, start_outing  # noqa: PLC0415

    settings = read_settings(find_config(config))
    lasts = _lasting(expires)

    async def begin(store: Store, topology: Topology) -> Run:
        now = datetime.now(UTC)
        ask = Ask(
            zone,
            Mode(mode),
            Asker.PERSON,
            author(),
            reason,
            now + lasts,
            OnExpiry(on_expiry),
            overrides=tuple(sorted(set(override))),
        )
        return await start_outing(store, topology, settings.policy, ask, run_name("outing"), now)

    def enough(run: Run, waits: bool) -> bool:
        return not wait and run.status in {"out", "held", "paused"} and not waits

    def check(topology: Topology) -> None:
        topology.zone(zone)
        require_overridable(override, OVERRIDABLE)

    run = _carried(settings, begin, enough, log, check)
    _end(run, run.status == ("restored" if wait else "out"), as_json=as_json)


@command.command()
@click.argument("zone")
@click.option(
    "--override", multiple=True, help="Skip this rule (I2, I3) on its way back, with your name in the audit log."
)
@reason_option
@log_option
@config_option
@options
def restore(zone: str, override: tuple[str, ...], reason: str, log: str, config: Path | None, *, as_json: bool) -> None:
    """Bring ZONE back: verified, then at once if it left healthy and unchanged, else in measured steps (I9).

    Before it has left, this calls its drain off. Ends with 0 when it serves, 11 when a person must choose.
    """
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.outings import Person, order_outing  # noqa: PLC0415

    settings = read_settings(find_config(config))

    async def begin(store: Store, topology: Topology) -> Run:
        who = Person(author(), reason, datetime.now(UTC))
        return await order_outing(store, topology, zone, "restore", who, {"overrides": [*override]} if override else {})

    def enough(run: Run, waits: bool) -> bool:
        return run.status in {"held", "paused"} and not waits

    run = _carried(settings, begin, enough, log, lambda topology: topology.zone(zone))
    _end(run, run.status in {"restored", "withdrawn"}, as_json=as_json)


@command.command()
@click.argument("zone")
@expires_option
@reason_option
@config_option
@options
def extend(zone: str, expires: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Let ZONE be out for longer, counted from now (I8)."""
    until = datetime.now(UTC) + _lasting(expires)
    _order(config, zone, "extend", reason, {"expires_at": until.isoformat()}, as_json=as_json)


@command.command()
@click.argument("zone")
@reason_option
@config_option
@options
def pause(zone: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Stop between two steps; traffic stays where it is. Its time goes on (I8)."""
    _order(config, zone, "pause", reason, None, as_json=as_json)


@command.command()
@click.argument("zone")
@reason_option
@log_option
@config_option
@options
def release(zone: str, reason: str, log: str, config: Path | None, *, as_json: bool) -> None:
    """Let a deploy mend ZONE, which is held out and cannot come back as it is.

    It stays out until that deploy, such as a rollback, has replaced its instances and brought it back. A `zone restore`
    then undoes what was prepared for its absence. Ends with 0 when the deploy may take it.
    """
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.core.outing_row import parse  # noqa: PLC0415
    from orchestrator.core.outing_table import Stage  # noqa: PLC0415
    from orchestrator.operations.outings import Person, order_outing  # noqa: PLC0415

    settings = read_settings(find_config(config))

    async def begin(store: Store, topology: Topology) -> Run:
        return await order_outing(store, topology, zone, "release", Person(author(), reason, datetime.now(UTC)))

    run = _carried(settings, begin, lambda _, waits: not waits, log, lambda topology: topology.zone(zone))
    _end(run, parse(run.state).stage is Stage.LENT, as_json=as_json)


@command.command()
@click.argument("zone")
@reason_option
@config_option
@options
def resume(zone: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Go on after a pause, or try again after a hold."""
    _order(config, zone, "resume", reason, None, as_json=as_json)


def _order(
    config: Path | None, zone: str, kind: str, reason: str, args: dict[str, Any] | None, *, as_json: bool
) -> None:
    from orchestrator.cli.carrying import with_store  # noqa: PLC0415
    from orchestrator.cli.common import glance  # noqa: PLC0415
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415
    from orchestrator.operations.outings import Person, order_outing  # noqa: PLC0415

    glance(config, lambda rows, service: rows.leases(service))  # An order where nothing is out leaves no state file.
    settings = read_settings(find_config(config))
    topology = read_topology(settings.topology, settings.service)
    who = Person(author(), reason, datetime.now(UTC))
    run = asyncio.run(with_store(settings, lambda store: order_outing(store, topology, zone, kind, who, args)))
    data = {"schema": 1, "zone": zone, "run": run.id, "kind": kind}
    told = f"{kind} ordered for {zone}.\nnext: failout status   (if no process carries it: failout serve)"
    emit(data, as_json=as_json, human=lambda: told)


def _lasting(text: str) -> timedelta:
    from orchestrator.core.script import duration_s  # noqa: PLC0415

    try:
        return timedelta(seconds=duration_s(text))
    except (ValueError, OverflowError) as error:
        raise Rejected(f"--expires: {error}") from None


def _carried(settings: Settings, begin: Begin, enough: Enough, log: str, check: Check) -> Run:
    from orchestrator.cli.carrying import carry_until  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415

    return asyncio.run(carry_until(settings, logger(log), begin, enough, quiet=log != "human", check=check))


def _end(run: Run, good: bool, *, as_json: bool) -> None:
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    data: dict[str, Any] = {"schema": 1, "service": run.service, **describe_run(run, {}, datetime.now(UTC))}
    unwatched = (
        "\nNobody watches its time while no failout process runs: `failout serve` does." if run.status == "out" else ""
    )
    emit(data, as_json=as_json, human=lambda: human_run(data) + unwatched)
    codes = {"held": HELD, "paused": HELD, "refused": Refused.exit_code}
    sys.exit(0 if good else codes.get(run.status, NOT_DONE))
