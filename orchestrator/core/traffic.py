"""Who should get what: one desired-traffic document per service, versioned and fenced, for both tiers.

Region tier: each zone is OUT, on the RAMP with a share of its fair part, or STEADY. Global tier: a weight per region.
The document says where traffic should be; a reconciler makes the clouds match it and reads back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from fractions import Fraction
from math import ceil, floor
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from orchestrator.core.machine import Json


class Placement(StrEnum):
    OUT = "out"
    RAMP = "ramp"
    STEADY = "steady"


class ZoneTraffic(msgspec.Struct, frozen=True):
    """`share` is 0..1 of the zone's fair part of its region: 1 means as much per instance as a survivor gets.

    `least`: where a share means whole instances, so many take traffic whatever it says (a zone that becomes smaller).
    """

    placement: Placement
    share: float = 1.0
    least: int = 0

    def whole_instances(self, of: int) -> int:
        """How many of a zone's instances take traffic, where a share means whole ones."""
        if self.placement is Placement.OUT:
            return 0
        return max(ceil(self.share * of - 1e-9), min(self.least, of))


STEADY = ZoneTraffic(Placement.STEADY, 1.0)
OUT = ZoneTraffic(Placement.OUT, 0.0)


def ramp(share: float) -> ZoneTraffic:
    return ZoneTraffic(Placement.RAMP, share)


def without_surplus(instances: int, now: int) -> ZoneTraffic:
    """Leave out what is more than `instances` of `now`; when those have gone, nobody is left out."""
    return ZoneTraffic(Placement.RAMP, floor(instances * 1000 / now) / 1000, instances)


class DesiredTraffic(msgspec.Struct, frozen=True):
    """`version` grows with every change; `fence` is the lease's fencing number of the run that wrote it (0: nobody).

    What it does not name nobody has asked for, or nobody knows any more (a restored backup): it is left as it is.
    """

    version: int
    fence: int
    zones: Mapping[str, ZoneTraffic]
    region_weights: Mapping[str, int] = msgspec.field(default_factory=dict)

    def with_zone(self, zone: str, traffic: ZoneTraffic, fence: int) -> DesiredTraffic:
        if self.zones.get(zone) == traffic and self.fence == fence:
            return self
        return replace(self, version=self.version + 1, fence=fence, zones={**self.zones, zone: traffic})

    def with_weights(self, weights: Mapping[str, int], fence: int) -> DesiredTraffic:
        if dict(self.region_weights) == dict(weights) and self.fence == fence:
            return self
        return replace(self, version=self.version + 1, fence=fence, region_weights=dict(weights))


class ZoneSeen(msgspec.Struct, frozen=True):
    """What a cloud says of one zone's traffic, read back.

    `taking`: instances that new traffic can reach. `draining`: instances whose old connections are still allowed.
    `healthy`: instances that the load balancer calls healthy. `share`: 0..1 as in ZoneTraffic; None when mixed.
    """

    placement: Placement | None
    share: float | None
    taking: int
    draining: int
    healthy: int
    total: int


def as_it_is(seen: ZoneSeen, *, whole_instances: bool) -> ZoneTraffic | None:
    """Say under which wish a zone would get what it gets now; None where its cloud is still changing it.

    I2: on a ramp that gives it nothing it is out. Where shares are whole instances, none of those that serve may be lost.
    """
    match seen.placement:
        case Placement.OUT:
            return OUT
        case Placement.RAMP if seen.taking == 0:
            return OUT
        case Placement.RAMP if whole_instances and seen.share is not None:
            return ZoneTraffic(Placement.RAMP, seen.share, round(seen.share * seen.total))
        case Placement.RAMP:
            return ramp(1.0 if seen.share is None else seen.share)
        case Placement.STEADY:
            return STEADY
        case None:  # Where there are weights, it is on its way from the ramp to steady, and has its whole part.
            return None if whole_instances else STEADY


def matches(seen: ZoneSeen, desired: ZoneTraffic, grain: Fraction) -> bool:
    """Say whether the cloud does what the document asks, to within the cloud's own grain (one instance on Azure).

    Empty data never matches a wish for traffic (I2). Draining does not matter here: it is the drain's business.
    A whole grain away is a different step, so a ramp of 1/3 is not matched by 2/3.
    """
    if desired.placement is Placement.OUT:
        return seen.placement is Placement.OUT and seen.taking == 0
    if seen.total == 0:
        return False
    if desired.placement is Placement.STEADY:
        return seen.placement is Placement.STEADY and seen.healthy == seen.total == seen.taking
    # Where a share means whole instances, a ramp that admits all of them cannot be told from steady.
    if seen.placement is Placement.OUT or seen.share is None or seen.taking == 0:
        return False
    if desired.least and seen.taking == desired.whole_instances(seen.total):
        return True
    return seen.placement is not None and abs(seen.share - desired.share) <= max(float(grain) - 1e-9, 0.0)


class RampStep(msgspec.Struct, frozen=True):
    """One step of a return. `merged` lists the configured steps that were too small to be measured (I9)."""

    share: float
    seconds: float
    expected_requests: int
    merged: tuple[float, ...] = ()


def ramp_steps(
    shares: Iterable[float], step_s: float, zone_rps: float, instances: int, *, samples_min: int, whole_instances: bool
) -> tuple[RampStep, ...]:
    """Plan the steps of a return (I9). Steps that cannot gather `samples_min` requests in `step_s` merge into the next.

    `zone_rps` is the zone's fair part of the load. With `whole_instances` (Azure) a share is rounded up to 1/N.
    The last step, 100 %, always stays: the gate there says `unmeasured` if nothing can be seen.
    """
    steps: list[RampStep] = []
    merged: list[float] = []
    wanted = sorted({*shares, 1.0})
    for configured in wanted:
        share = ceil(configured * instances - 1e-9) / instances if whole_instances and instances else configured
        expected = int(zone_rps * share * step_s)
        repeated = any(step.share >= share for step in steps)
        if (expected < samples_min and configured < 1.0) or repeated:
            merged.append(configured)
            continue
        steps.append(RampStep(share, step_s, expected, tuple(merged)))
        merged = []
    return tuple(steps)


def dump_steps(steps: Iterable[RampStep]) -> list[Json]:
    """Write steps into an event or a row."""
    return [
        {"share": s.share, "seconds": s.seconds, "expected_requests": s.expected_requests, "merged": list(s.merged)}
        for s in steps
    ]


def parse_steps(data: Json) -> tuple[RampStep, ...]:
    """Read steps back from an event or a row."""
    rows = cast("list[dict[str, Any]]", data)
    return tuple([RampStep(s["share"], s["seconds"], s["expected_requests"], tuple(s["merged"])) for s in rows])
