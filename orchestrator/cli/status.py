"""`failout status`."""

from __future__ import annotations

import functools
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from orchestrator.cli.common import config_option, emit, find_config, glance, options, seconds, table

RULE: Final = re.compile(r"\bI\d+\b")


@click.command("status")
@config_option
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C.")
@options
def command(config: Path | None, *, watch: bool, as_json: bool) -> None:
    """Show the deploy that is going on, or the last one, zone by zone. Reads our own rows only: no cloud is asked."""
    from orchestrator.operations.status import nothing_yet, status  # noqa: PLC0415

    while True:
        data = glance(config, lambda rows, service: status(rows, service, datetime.now(UTC)), nothing_yet)
        data["carried"] = _carried(config)
        if watch and not as_json:
            click.clear()
        emit(data, as_json=as_json, human=functools.partial(human_status, data))
        if not watch:
            return
        time.sleep(1.0)


def human_status(data: dict[str, Any]) -> str:
    from orchestrator.operations.switches import whose  # noqa: PLC0415

    parts = [f"service {data['service']}"]
    parts += [f"{s['name']} is on for {whose(s['service'])}: {s['reason']} ({s['author']})" for s in data["switches"]]
    if not data["runs"] and not data["last"]:
        parts.append("nothing was deployed yet; start with `failout plan --to VERSION`")
    for run in data["runs"]:
        parts.append(human_run(run) if data["carried"] is not False else _orphaned(run))
    if not data["runs"] and data["last"]:
        parts.append(human_run(data["last"]))
    return "\n\n".join(parts)


def _carried(config: Path | None) -> bool | None:
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.engine.place import Place  # noqa: PLC0415

    settings = read_settings(find_config(config))
    return Place.of(settings.database or settings.state).carried()


def _orphaned(run: dict[str, Any]) -> str:
    """A run of an embedded state that no process holds: killed while it worked, or left to wait."""
    from orchestrator.operations.kinds import carrying_command  # noqa: PLC0415

    command = carrying_command(run["run"], run["kind"])
    evidence = "  no process carries it: nobody holds the state's lock"
    if run["status"] != "active":
        return f"{human_run(run)}\n{evidence}; `{command}` does"
    doing, stands = run["doing"], ""
    if doing:
        stands = (
            f"; it stands at {doing['effect']} {doing['zone'] or ''}".rstrip() + f" since {seconds(doing['seconds'])}"
        )
    return human_run({**run, "doing": None, "next_command": None}) + f"\n{evidence}{stands}\nnext: {command}"


def human_run(run: dict[str, Any]) -> str:
    about = "of" if run["kind"] in {"outing", "drill"} else "to"
    lines = [f"{run['kind']} {run['run']} {about} {run['target']}: {run['status']} after {seconds(run['seconds'])}"]
    if run["status"] != "succeeded" and run["reason"]:
        lines.append(f"  why: {run['reason']}{_held_by(run)}")
    if run["trouble"]:
        lines.append(f"  trouble: {run['trouble']}")
    doing = run["doing"]
    if doing:
        late = f", longer than usual (p75 {seconds(doing['p75_s'])})" if doing["late"] else ""
        lines.append(f"  now: {doing['effect']} {doing['zone'] or ''} for {seconds(doing['seconds'])}{late}")
    if run["kind"] == "outing":
        lines.append(f"  {run['course']}, asked by {run['author']}; {_time_left(run)}")
    if run["kind"] == "drill":
        lines.append(f"  {run['course']}: {run['note']}")
    if run["kind"] == "region":
        lines.append(f"  {run['course']}: {run['note']}")
    if run["kind"] == "runbook":
        steps = [(s["name"], s["state"], s["evidence"]) for s in run["steps"]]
        lines.append(table(steps, ("step", "state", "evidence")))
    rows = [(z["zone"], z["state"], _version(z), _progress(z), z["note"]) for z in run["zones"]]
    if rows:
        lines.append(table(rows, ("zone", "state", "version", "step", "evidence")))
    if run["next_command"]:
        lines.append(f"next: {run['next_command']}")
    return "\n".join(lines)


def _version(zone: dict[str, Any]) -> str:
    """One version where nothing is changed, as by an outing; empty while nobody has looked."""
    before, after = zone["from_version"], zone["to_version"]
    return (before or "") if before == after else f"{before or '?'} -> {after or '?'}"


def _held_by(run: dict[str, Any]) -> str:
    """On the line that says why: the rule that holds a deploy, and what to run next."""
    if run["kind"] != "deploy" or run["status"] != "held":
        return ""
    named = RULE.search(run["reason"])
    rule = named.group() if named else "I2: only what is known to be well goes on"
    return f" (rule {rule}; next: failout deployments resume {run['run']} --reason ...)"


def _time_left(run: dict[str, Any]) -> str:
    until = run["expires_at"][:16].replace("T", " ")
    if run["expired"]:
        return f"IT EXPIRED at {until} UTC (I8)"
    return f"expires at {until} UTC, then: {run['on_expiry']}"


def _progress(zone: dict[str, Any]) -> str:
    if zone["state"] != "ramping" or not zone["steps"]:
        return ""
    return f"{zone['steps'][min(zone['step'], len(zone['steps']) - 1)]:.0%}"
