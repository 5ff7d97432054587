"""`failout deployments list | show | pause | resume | abort | rollback | retarget`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, glance, options, seconds, table
from orchestrator.cli.status import human_run
from orchestrator.core.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.core.machine import Json
    from orchestrator.engine.glance import Glance
    from orchestrator.engine.ports import Run

    Given = Callable[..., None]


@click.group("deployments")
def command() -> None:
    """Deploys: what they did, and telling a running one what to do."""


@command.command("list")
@config_option
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@options
def list_(config: Path | None, limit: int, *, as_json: bool) -> None:
    """List deploys, newest first."""
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    now = datetime.now(UTC)

    def look(rows: Glance, service: str) -> list[dict[str, Any]]:
        switches = rows.switches()
        return [describe_run(r, {}, now, switches) for r in rows.runs(service, limit)]

    runs = glance(config, look, lambda _: [])
    rows = [(r["run"], r["target"], r["status"], r["started"][:19], seconds(r["seconds"]), r["author"]) for r in runs]
    emit(
        {"schema": 1, "runs": runs},
        as_json=as_json,
        human=lambda: table(rows, ("run", "to", "status", "started", "took", "by")) if rows else "no deploys yet",
    )


@command.command()
@click.argument("run")
@config_option
@options
def show(run: str, config: Path | None, *, as_json: bool) -> None:
    """Show one deploy: zones, phases, and everything that happened."""
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.kinds import require_kind  # noqa: PLC0415
    from orchestrator.operations.report import report_folder  # noqa: PLC0415
    from orchestrator.operations.status import describe_run, zone_phases  # noqa: PLC0415

    def look(rows: Glance, service: str) -> dict[str, Any]:
        found = rows.load(run)
        require_kind(found, "deploy", "show")
        records = rows.events(run)
        events = [
            {
                "at": r.at.isoformat(),
                "effect": r.effect.kind if r.effect else None,
                "zone": r.event.zone,
                "event": r.event.kind,
                "seconds": round(r.duration_s, 3),
                "evidence": r.event.evidence,
            }
            for r in records
        ]
        described = describe_run(found, rows.usual(service), datetime.now(UTC), rows.switches())
        return {"schema": 1, "service": service, **described, "phases": zone_phases(records), "events": events}

    data = glance(config, look)
    page = report_folder(read_settings(find_config(config)).state, run) / "report.html"
    data["report"] = str(page) if page.exists() else None
    emit(data, as_json=as_json, human=lambda: _human(data))


def _human(data: dict[str, Any]) -> str:
    rows = [
        (e["at"][11:19], e["zone"] or "", e["event"], seconds(e["seconds"]) if e["seconds"] else "", e["evidence"])
        for e in data["events"]
    ]
    told = human_run(data) + "\n\n" + table(rows, ("at", "zone", "event", "took", "evidence"))
    return told + (f"\n\nreport: {data['report']}" if data["report"] else "")


def _order(kind: str, help_: str, *, may_override: bool = False) -> None:
    told = "From here on skip this rule (I2, I3, I14), with your name in the audit log."
    if may_override:
        override_option: Callable[[Given], Given] = click.option("--override", multiple=True, help=told)
    else:
        override_option = lambda give: give  # noqa: E731

    @command.command(kind, help=help_)
    @click.argument("run", required=False)
    @click.option("--reason", type=REASON, required=True, help="Why; it goes into the records.")
    @override_option
    @config_option
    @options
    def give(
        run: str | None, reason: str, config: Path | None, *, as_json: bool, override: tuple[str, ...] = ()
    ) -> None:
        from orchestrator.operations.deploys import OVERRIDABLE  # noqa: PLC0415
        from orchestrator.operations.outings import require_overridable  # noqa: PLC0415

        require_overridable(override, OVERRIDABLE)
        args: dict[str, Json] = {"overrides": [*sorted(set(override))]} if override else {}
        _give(config, run, kind, reason, args, as_json=as_json)


def _give(
    config: Path | None, run: str | None, kind: str, reason: str, args: Mapping[str, Json], *, as_json: bool
) -> None:
    """Without RUN: to the deploy that has not ended."""
    from orchestrator.operations.kinds import carrying_command, require_kind  # noqa: PLC0415

    def told_to(rows: Glance, service: str) -> Run:
        found = rows.load(run or _unfinished(rows, service))
        # A region's move and a drill have no command of their own for these.
        others = frozenset({"region", "drill"} if kind in {"pause", "resume", "abort"} else ())
        require_kind(found, "deploy", kind, also=others)
        return found

    found = glance(config, told_to)  # An order for a run that is not there must not make a state file.
    run = found.id
    number = asyncio.run(_post(config, run, kind, reason, args))
    data = {"schema": 1, "run": run, "order": number, "kind": kind}
    told = f"{kind} ordered for {run}; it takes effect between two steps.\nnext: failout status"
    told += f"   (if no process carries it: {carrying_command(run, found.kind)})"
    emit(data, as_json=as_json, human=lambda: told)


def _unfinished(rows: Glance, service: str) -> str:
    run = next((r.id for r in rows.unfinished(service) if r.kind == "deploy"), None)
    if run is None:
        raise NotFound(f"no deploy of {service} is unfinished")
    return run


async def _post(config: Path | None, run: str, kind: str, reason: str, args: Mapping[str, Json]) -> int:
    from orchestrator.bootstrap import place_of  # noqa: PLC0415
    from orchestrator.config import ReleaseFolder, read_settings, read_topology  # noqa: PLC0415
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415
    from orchestrator.operations.deploys import order  # noqa: PLC0415
    from orchestrator.operations.planning import require_whole  # noqa: PLC0415

    settings = read_settings(find_config(config))
    if "target" in args:
        require_whole(ReleaseFolder(settings.releases).get(str(args["target"])), read_topology(settings.topology))
    store = SqlStore(place_of(settings))
    try:
        return await order(store, run, kind, author=author(), reason=reason, now=datetime.now(UTC), args=args)
    finally:
        store.close()


_order("pause", "Stop between two steps; traffic stays where it is.")
_order("resume", "Go on after a pause, or try again after a hold.", may_override=True)
_order("abort", "Bring the zone that is out back at the version it had, and end.")
_order("rollback", "Bring every zone back to the version it had, newest first, and end.", may_override=True)


@command.command()
@click.argument("run", required=False)
@click.option("--to", "version", required=True, help="The version that takes the place of the one being deployed.")
@click.option("--reason", type=REASON, required=True, help="Why; it goes into the records.")
@config_option
@options
def retarget(run: str | None, version: str, reason: str, config: Path | None, *, as_json: bool) -> None:
    """Roll another version forward over every zone, the broken one first; all gates start again (I13)."""
    _give(config, run, "retarget", reason, {"target": version}, as_json=as_json)
