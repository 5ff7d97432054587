"""Histories and measurements written by hand, for the tests of proofs: three zones of AWS, two of Azure, 100 requests/s each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.health import LATENCY_BOUNDS_MS, Window, quantile_ms
from orchestrator.core.proof import History, Proof, Step, Worth
from orchestrator.core.samples import Sample, ZoneSample
from orchestrator.core.topology import GlobalTier, Region, Topology, Zone

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)
ZONES = {"aws/east": ("aws/a", "aws/b", "aws/c"), "azure/west": ("azure/1", "azure/2")}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def topology(rps_per_instance: float = 100.0) -> Topology:
    regions = []
    for region, zones in ZONES.items():
        cloud = region.split("/")[0]
        made = tuple(Zone(z, cloud, region, z.split("/")[1], 3, 9, rps_per_instance) for z in zones)
        regions.append(Region(region, cloud, region.split("/")[1], 100, made, "http://agent"))
    return Topology("gates", tuple(regions), GlobalTier("route53", 5.0, "gates.lab."))


def counted(requests: int, ms: float = 40.0, errors: int = 0, seconds: float = 1.0) -> Window:
    """A window whose requests all took just about `ms`."""
    latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    latency[LATENCY_BOUNDS_MS.index(ms)] = requests
    return Window(seconds, requests, errors, quantile_ms(latency, 0.5), quantile_ms(latency, 0.99), tuple(latency))


def second(i: int, rps: Mapping[str, int], ms: float = 40.0, errors: Mapping[str, int] | None = None) -> Sample:
    """What was served from `i` to `i` + 1. A zone without an entry was not heard."""
    failed = errors or {}
    return Sample(at(i + 1), {z: ZoneSample(3, counted(n, ms, failed.get(z, 0))) for z, n in rps.items()})


def steady(seconds: range) -> list[Sample]:
    return [second(i, {z: 100 for zones in ZONES.values() for z in zones}) for i in seconds]


def without(zone: str, seconds: range, **given: Any) -> list[Sample]:
    """`zone` serves nobody; its neighbours carry what it had."""
    region = next(zones for zones in ZONES.values() if zone in zones)
    each = 100 * len(region) // (len(region) - 1)
    rps = {z: each if z in region else 100 for zones in ZONES.values() for z in zones}
    return [second(i, {**rps, zone: 0}, **given) for i in seconds]


def happened(*steps: tuple[float, str, str], zone: str | None = "aws/a", **args: Any) -> list[Step]:
    """(second, effect, event) of one zone; `args` are those of the first."""
    return [
        Step(at(s), zone, effect or None, event, args if i == 0 else {}) for i, (s, effect, event) in enumerate(steps)
    ]


CALM = (
    (20.0, "admit", "admitted"),
    (21.0, "prepare", "prepared"),
    (25.0, "drain", "drained"),
    (40.0, "upgrade", "upgraded"),
    (41.0, "verify", "verified"),
    (50.0, "ramp", "step-passed"),
    (51.0, "join", "joined"),
    (60.0, "bake", "baked"),
    (61.0, "settle", "settled"),
)


def history(steps: Sequence[Step], ended: float | None = 61.0, **given: Any) -> History:
    return History(
        **{
            "run": "d1",
            "service": "gates",
            "kind": "deploy",
            "author": "ada",
            "reason": "release",
            "began": at(19),
            "steady_since": at(0),
            "ended": None if ended is None else at(ended),
            "steps": steps,
            "versions": {"aws/a": ("v1", "v2")},
            **given,
        }
    )


CALM_SAMPLES = [*steady(range(21)), *without("aws/a", range(21, 41)), *steady(range(41, 61))]


def proof(zone: str = "aws/a", days_ago: float = 1.0, **given: Any) -> Proof:
    """A good proof at 500 requests/s that ended `days_ago` before T0."""
    left = T0 - timedelta(days=days_ago)
    region = next(region for region, zones in ZONES.items() if zone in zones)
    values: dict[str, Any] = {
        "id": f"{given.get('run', 'd1')}:{zone}:1", "service": "gates", "zone": zone, "region": region, "run": "d1",
        "kind": "deploy", "author": "ada", "reason": "release", "version": "v1", "target": "v2",
        "began": left - timedelta(seconds=60), "emptied": left - timedelta(seconds=50), "restored": left,
        "returned": left + timedelta(seconds=10), "drain_s": 10.0, "out_s": 70.0, "load_rps": 500.0, "zone_rps": 100.0,
        "peak_rps": 500.0, "load_share": 1.0, "requests": 30_000, "failed": 0, "before_s": 60.0, "p50_ms": 40.0,
        "p99_ms": 40.0, "added_p50_ms": 0.0, "added_p99_ms": 0.0, "headroom": {"aws/b": 0.5}, "capacity_added": {},
        "worth": Worth.GOOD, "evidence": "nobody noticed",
    }  # fmt: skip
    return Proof(**{**values, **given})
