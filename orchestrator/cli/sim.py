"""`failout sim`: the shipped machine and workflows through seeded or written histories under virtual time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.common import Number, emit, options, table
from orchestrator.core.errors import Rejected

VIOLATED = 10
_DEFAULT = click.core.ParameterSource.DEFAULT


@click.group("sim", invoke_without_command=True)
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="How many histories.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=click.IntRange(1), help="Processes; default: one for each processor.")
@click.option("--minutes", type=Number(0.01), help="Go on for so long instead of --seeds.")
@click.option("--seed", "--replay", "seed", type=click.IntRange(0), help="Tell the whole history of one seed instead.")
@options
@click.pass_context
def command(
    context: click.Context,
    seeds: int,
    start: int,
    jobs: int | None,
    minutes: float | None,
    seed: int | None,
    *,
    as_json: bool,
) -> None:
    """Carry deploys through histories with crashes, late and lost answers, sick versions and orders; check the invariants.

    Ends with 0 when no history broke a rule, else with 10. A seed gives the same history on every machine; --seed tells
    it, and for one that breaks a rule also the shortest scenario that still does.
    """
    if context.invoked_subcommand is not None:
        return
    given = [p for p in ("seeds", "start", "jobs", "minutes") if context.get_parameter_source(p) is not _DEFAULT]
    if seed is not None and given:
        raise Rejected(f"--seed tells one history: it does not go with --{given[0]}")
    if {"seeds", "minutes"} <= {*given}:
        raise Rejected("say how many histories with --seeds, or for how long with --minutes, not both")
    from orchestrator.sim import run  # noqa: PLC0415

    if seed is not None:
        _tell_seed(seed, as_json=as_json)
    click.echo(f"seeds from {start}", err=True)
    jobs = jobs or os.cpu_count() or 1
    summary = {"schema": 1, **(run.soak(minutes * 60, start, jobs) if minutes else run.sim_main(seeds, start, jobs))}
    emit(summary, as_json=as_json, human=lambda: _human(summary))
    sys.exit(VIOLATED if summary["violations"] else 0)


def _tell_seed(seed: int, *, as_json: bool) -> None:
    from orchestrator.sim import run  # noqa: PLC0415

    told, shortest = run.explain(seed)
    shown = (
        f"{told}\n\n# The shortest that was found; run it with `failout sim run FILE`.\n{shortest}"
        if shortest
        else told
    )
    data = {"schema": 1, "seed": seed, "history": told.splitlines(), "shortest": shortest}
    emit(data, as_json=as_json, human=lambda: shown)
    sys.exit(VIOLATED if shortest else 0)


@command.command("run")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--trace", is_flag=True, help="Tell all that happened, also when it ends as expected.")
@options
def run_file(file: Path, *, trace: bool, as_json: bool) -> None:
    """Run one written scenario, and compare how it ends with what it expects.

    Ends with 0 when all came as expected, with 10 when not, with 2 when the file is wrong.
    """
    from orchestrator.sim import run  # noqa: PLC0415
    from orchestrator.sim.written import read_scenario  # noqa: PLC0415

    written = read_scenario(file)
    result = run.simulate(written.seed, written.scenario)
    unmet = written.expect.unmet(result)
    history = run.tell(result, written.scenario)
    data = {
        "schema": 1,
        "file": str(file),
        "seed": result.seed,
        "status": result.status,
        "ended_s": round(result.ended_s, 3),
        "harmed_requests": {cause: round(count, 3) for cause, count in sorted(result.harmed.items())},
        "violations": [str(violation) for violation in result.violations],
        "unmet": unmet,
        "history": history.splitlines(),
    }

    def human() -> str:
        verdict = "\n".join(f"not as expected: {line}" for line in unmet) or "as expected"
        broken = [f"VIOLATION {line}" for line in data["violations"]]  # type: ignore[attr-defined]
        ended = f"{file}: ended {result.status} after {result.ended_s:.0f} s"
        return "\n".join([*([history, ""] if trace or unmet else []), ended, *broken, verdict])

    emit(data, as_json=as_json, human=human)
    sys.exit(VIOLATED if unmet else 0)


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
        lines.append(f"next: failout sim --seed {summary['violating'][0]['seed']}")
    return "\n\n".join(lines)
