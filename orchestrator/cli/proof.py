"""`failout proof`: how fresh and how strong the proof of each zone and region is."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from orchestrator.cli.common import config_option, emit, find_config, options, table

if TYPE_CHECKING:
    from orchestrator.operations.proof import Ledger

NOT_MET: Final = 12


@click.command("proof")
@config_option
@click.option("--prometheus", is_flag=True, help="Print Prometheus' text format, for a textfile collector.")
@options
def command(config: Path | None, *, prometheus: bool, as_json: bool) -> None:
    """Show for each zone and region how old and how strong its last good proof is, against the objective.

    Every fail-out leaves a proof: a deploy, a drill, a person's drain. Ends with 0 when every zone meets the objective
    of failout.yaml (default: a good proof within 7 days at half of the peak load or more), and with 12 when one does not.
    """
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415
    from orchestrator.core.errors import NotFound  # noqa: PLC0415
    from orchestrator.engine.glance import glance_at  # noqa: PLC0415
    from orchestrator.engine.place import Place  # noqa: PLC0415
    from orchestrator.operations import proof  # noqa: PLC0415

    settings = read_settings(find_config(config))
    topology = read_topology(settings.topology, settings.service)
    now = datetime.now(UTC)
    try:
        with glance_at(Place.of(settings.database or settings.state)) as glance:
            ledger = proof.read_ledger(glance, topology, settings.objective, now)
    except NotFound:
        ledger = proof.read_ledger(None, topology, settings.objective, now)
    if prometheus and not as_json:
        click.echo(proof.prometheus(ledger), nl=False)
    else:
        emit(proof.document(ledger), as_json=as_json, human=lambda: _human(ledger))
    sys.exit(0 if ledger.met else NOT_MET)


def _human(ledger: Ledger) -> str:
    objective = ledger.objective
    zones = [(z.place, str(z.state), _age(z.age_s), _share(z.strength), _by(z), z.why) for z in ledger.zones]
    regions = [
        (r.place, str(r.state), _age(r.age_s), _share(r.strength), _age(r.emptied_age_s), r.why) for r in ledger.regions
    ]
    peak = "no peak on record yet" if ledger.peak_rps is None else f"recorded peak {ledger.peak_rps:.0f}/s"
    wanted = f"every zone proven within {objective.age_days_max:g} days at {objective.load_share_min:.0%} of the peak"
    lines = [
        f"service {ledger.service}: the objective is {'met' if ledger.met else 'NOT met'}",
        f"{wanted} or more; {peak}",
        "",
        table(zones, ("zone", "proof", "age", "of peak", "by", "evidence")),
        "",
        table(regions, ("region", "proof", "age", "of peak", "emptied", "why")),
    ]
    lines += ["", *ledger.trends] if ledger.trends else []
    todo = list(dict.fromkeys(z.next_command for z in ledger.zones if z.next_command))
    lines += ["", *(f"next: {command}" for command in todo)] if todo else []
    return "\n".join(lines)


def _by(standing: object) -> str:
    proof = getattr(standing, "proof", None)
    return f"{proof.kind} {proof.run}" if proof else "—"


def _share(share: float | None) -> str:
    return "—" if share is None else f"{share:.0%}"


def _age(age_s: float | None) -> str:
    """Two units at most: 3 d 4 h, 12 m."""
    if age_s is None:
        return "never"
    minutes = round(age_s / 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"  # noqa: PLR2004
