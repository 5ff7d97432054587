"""What `failout serve` tells Prometheus, in its text format: from our own rows, and what this process has counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.engine.glance import Glance

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str  # gauge or counter
    help: str
    samples: Sequence[Sample]

    def lines(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"{self.name}{{{inner}}} {value:.17g}" if inner else f"{self.name} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def metrics(rows: Glance, service: str, counts: Counter[str], now: datetime) -> list[Metric]:
    """Every metric of one service. Names keep their meaning between versions; docs/operations.md lists them."""
    of = {"service": service}
    unfinished = rows.unfinished(service)
    leases = rows.leases(service)
    switched = {s.name for s in rows.switches() if s.on and s.service in {service, "*"}}
    return [
        Metric("failout_up", "gauge", "1 while this process carries the service's runs.", [(of, 1.0)]),
        Metric(
            "failout_run_seconds",
            "gauge",
            "How long an unfinished run has been going on, by its status.",
            [
                ({**of, "run": r.id, "kind": r.kind, "status": r.status}, (now - r.created_at).total_seconds())
                for r in unfinished
            ],
        ),
        Metric(
            "failout_run_trouble",
            "gauge",
            "1 for a run whose last carrier gave up.",
            [({**of, "run": r.id}, 1.0) for r in unfinished if r.trouble],
        ),
        Metric(
            "failout_runs_finished_total",
            "counter",
            "Runs that have ended, by how.",
            [({**of, "kind": kind, "status": status}, n) for kind, status, n in rows.finished_counts(service)],
        ),
        Metric(
            "failout_zone_out_seconds",
            "gauge",
            "How long a zone's lease has been held: the zone is out, or on its way out or back (I1).",
            [({**of, "zone": x.zone, "run": x.run}, (now - x.since).total_seconds()) for x in leases],
        ),
        Metric(
            "failout_zone_out_expires_seconds",
            "gauge",
            "Seconds until a zone has been out for too long; negative after that (I8).",
            [
                ({**of, "zone": x.zone, "run": x.run}, (x.expires_at - now).total_seconds())
                for x in leases
                if x.expires_at
            ],
        ),
        Metric(
            "failout_switch",
            "gauge",
            "1 while a freeze or the kill switch is on (I14).",
            [({**of, "name": name}, float(name in switched)) for name in ("freeze", "kill")],
        ),
        Metric(
            "failout_effect_p75_seconds",
            "gauge",
            "What three of four of the last 200 effects of a kind took at most.",
            [({**of, "effect": kind}, usual.p75_s) for kind, usual in sorted(rows.usual(service).items())],
        ),
        Metric(
            "failout_process_events_total",
            "counter",
            "Since this process began: runs taken over, carriers that gave up, traffic put back, watchers that failed.",
            [
                ({**of, "event": name}, float(counts[name]))
                for name in ("takeovers", "carriers_gave_up", "traffic_put_back", "keepers_failed")
            ],
        ),
    ]


def exposition(found: Iterable[Metric]) -> str:
    return "\n".join(line for metric in found for line in metric.lines()) + "\n"
