"""`failout sim`: the shipped machine and workflows through seeded histories under virtual time."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from orchestrator.cli.common import emit, options, table

VIOLATED = 10


@click.command("sim")
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="How many histories.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=click.IntRange(1), help="Processes; default: one for each processor.")
@click.option("--replay", type=click.IntRange(0), metavar="SEED", help="Tell the whole history of one seed instead.")
@options
def command(seeds: int, start: int, jobs: int | None, replay: int | None, *, as_json: bool) -> None:
    """Carry deploys through histories with crashes, late and lost answers, sick versions and orders; check the invariants.

    Ends with 0 when no history broke a rule, else with 10. A seed gives the same history on every machine.
    """
    from orchestrator.sim import run  # noqa: PLC0415

    if replay is not None:
        told = run.replay(replay)
        emit({"schema": 1, "seed": replay, "history": told.splitlines()}, as_json=as_json, human=lambda: told)
        sys.exit(VIOLATED if " VIOLATION " in told else 0)
    click.echo(f"seeds {start} to {start + seeds - 1}", err=True)
    summary = {"schema": 1, **run.sim_main(seeds, start, jobs or os.cpu_count() or 1)}
    emit(summary, as_json=as_json, human=lambda: _human(summary))
    sys.exit(VIOLATED if summary["violations"] else 0)


def _human(summary: dict[str, Any]) -> str:
    lines = [f"{summary['histories']} histories in {summary['seconds']:.1f} s, {summary['histories_per_s']:g} a second"]
    for name in ("invariants", "statuses", "faults"):
        rows = [(key, str(count)) for key, count in summary[name].items()]
        lines.append(table(rows, (name, "checks" if name == "invariants" else "times")))
    taken = summary["transitions"]
    lines.append(f"{taken['covered']} of {taken['all']} transitions of the machine were taken")
    lines += ["\n  ".join([f"seed {broken['seed']}:", *broken["violations"]]) for broken in summary["violating"]]
    lines.append(f"{summary['violations']} violations")
    if summary["violating"]:
        lines.append(f"next: failout sim --replay {summary['violating'][0]['seed']}")
    return "\n\n".join(lines)
