"""How well proven the service is: for people, for continuous integration, for Prometheus. Reads our own rows only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core.proof import Proof, dump
from orchestrator.core.standing import Objective, RegionStanding, Standing, standings, trends
from orchestrator.core.topology import Topology
from orchestrator.engine.glance import Glance
from orchestrator.operations.recording import PEAK_DAYS

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Ledger:
    """`proofs`: newest first. `peak_rps`: the recorded peak, None before anything was recorded."""

    service: str
    objective: Objective
    now: datetime
    peak_rps: float | None
    zones: tuple[Standing, ...]
    regions: tuple[RegionStanding, ...]
    trends: tuple[str, ...]
    proofs: tuple[Proof, ...]

    @property
    def met(self) -> bool:
        """An objective that nothing is known of is not met (I2)."""
        return bool(self.zones) and all(z.met for z in self.zones)


def read_ledger(glance: Glance | None, topology: Topology, objective: Objective, now: datetime) -> Ledger:
    """`glance` is None before the first run: nothing is proven then."""
    service = topology.service
    proofs = glance.proofs(service) if glance else ()
    peak = glance.peak_rps(service, now - timedelta(days=PEAK_DAYS)) if glance else None
    zones, regions = standings(topology, proofs, peak, objective, now)
    return Ledger(service, objective, now, peak, tuple(zones), tuple(regions), tuple(trends(proofs)), tuple(proofs))


def document(ledger: Ledger) -> dict[str, Any]:
    """As `failout proof --json` prints it (schemas/proof.json). Ages are seconds, shares 0..1, null: unmeasured."""
    objective = ledger.objective
    return {
        "schema": SCHEMA,
        "service": ledger.service,
        "met": ledger.met,
        "objective": {
            "age_days_max": objective.age_days_max,
            "load_share_min": objective.load_share_min,
            "failed_share_max": objective.failed_share_max,
            "peak_rps": objective.peak_rps,
        },
        "peak_rps": _round(ledger.peak_rps, 1),
        "zones": [
            {
                "zone": z.place,
                "state": str(z.state),
                "met": z.met,
                "age_s": _round(z.age_s, 1),
                "strength": _round(z.strength, 3),
                "why": z.why,
                "next_command": z.next_command,
                "proof": dump(z.proof) if z.proof else None,
            }
            for z in ledger.zones
        ],
        "regions": [
            {
                "region": r.place,
                "state": str(r.state),
                "met": r.met,
                "zones": list(r.zones),
                "age_s": _round(r.age_s, 1),
                "strength": _round(r.strength, 3),
                "why": r.why,
                "emptied_age_s": _round(r.emptied_age_s, 1),
                "emptied_strength": _round(r.emptied_strength, 3),
            }
            for r in ledger.regions
        ],
        "trends": list(ledger.trends),
    }


def prometheus(ledger: Ledger) -> str:
    """Text exposition format 0.0.4, for whoever serves /metrics. What is unknown has no sample (I2)."""
    names = {
        "failout_proof_objective_met": "1 when the zone's or region's proof meets the objective, else 0.",
        "failout_proof_age_seconds": "Time since the proof that counts.",
        "failout_proof_load_share": "Load during the proof that counts, as a share of the recorded peak.",
        "failout_proof_drain_seconds": "Drain time of the proof that counts.",
        "failout_proof_headroom_share": "Least capacity left in any survivor during the proof that counts.",
        "failout_proofs": "Proofs on record by zone and verdict.",
    }
    lines: dict[str, list[str]] = {name: [] for name in names}

    def put(name: str, value: float | None, **labels: str) -> None:
        if value is not None:
            told = ",".join(f'{k}="{_label(v)}"' for k, v in {"service": ledger.service, **labels}.items())
            lines[name].append(f"{name}{{{told}}} {value:.10g}")

    for zone in ledger.zones:
        put("failout_proof_objective_met", float(zone.met), zone=zone.place)
        put("failout_proof_age_seconds", zone.age_s, zone=zone.place)
        put("failout_proof_load_share", zone.strength, zone=zone.place)
        if zone.proof is not None:
            left = [share for share in zone.proof.headroom.values() if share is not None]
            put("failout_proof_drain_seconds", zone.proof.drain_s, zone=zone.place)
            put("failout_proof_headroom_share", min(left, default=None), zone=zone.place)
    for region in ledger.regions:
        put("failout_proof_objective_met", float(region.met), region=region.place)
        put("failout_proof_age_seconds", region.age_s, region=region.place)
        put("failout_proof_load_share", region.strength, region=region.place)
    for (zone_id, worth), count in sorted(Counter((p.zone, str(p.worth)) for p in ledger.proofs).items()):
        put("failout_proofs", count, zone=zone_id, verdict=worth)
    told = (
        f"# HELP {n} {help_}\n# TYPE {n} gauge\n" + "".join(f"{x}\n" for x in lines[n]) for n, help_ in names.items()
    )
    return "".join(told)


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
