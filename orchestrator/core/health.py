"""I2 lives here: no data is never healthy. Counters become windows, windows become one of four verdicts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from math import sqrt
from operator import sub

import msgspec

# Upper bounds of the latency buckets that every instance counts in, ms. The last bucket is open.
LATENCY_BOUNDS_MS: tuple[float, ...] = (5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2000)
_BOUNDS_MS = (*LATENCY_BOUNDS_MS, 2 * LATENCY_BOUNDS_MS[-1])  # and what `quantile_ms` says of the last bucket
_NONE = (0,) * (len(LATENCY_BOUNDS_MS) + 1)


class Verdict(StrEnum):
    """Only HEALTHY advances; UNHEALTHY rolls back; INCONCLUSIVE and UNMEASURED hold for a person."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    INCONCLUSIVE = "inconclusive"
    UNMEASURED = "unmeasured"


class Judgement(msgspec.Struct, frozen=True):
    verdict: Verdict
    evidence: str


class Counters(msgspec.Struct, frozen=True):
    """Cumulative counts of one instance since it booted. `latency` has one count per bound of LATENCY_BOUNDS_MS and one more."""

    requests: int
    errors: int
    latency: tuple[int, ...]


class Window(msgspec.Struct, frozen=True):
    """What a zone served between two readings. `p99_ms` is None when nothing was served."""

    seconds: float
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    latency: tuple[int, ...] = ()

    @property
    def rps(self) -> float:
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_share(self) -> float | None:
        return self.errors / self.requests if self.requests else None


def quantile_ms(latency: Sequence[int], q: float) -> float | None:
    """Return the upper bound of the bucket that holds quantile `q`; None when empty, 2x the last bound when beyond it."""
    total = sum(latency)
    if total == 0:
        return None
    rank, seen = q * total, 0
    for i, count in enumerate(latency):
        seen += count
        if seen >= rank and count:
            return LATENCY_BOUNDS_MS[i] if i < len(LATENCY_BOUNDS_MS) else 2 * LATENCY_BOUNDS_MS[-1]
    return 2 * LATENCY_BOUNDS_MS[-1]


def served(before: Mapping[str, Counters], after: Mapping[str, Counters]) -> tuple[int, int]:
    """Requests and errors between two readings of one zone, counted as `window` counts them."""
    requests = errors = 0
    for instance, now in after.items():
        then = before.get(instance)
        if then is None or then.requests > now.requests:
            requests, errors = requests + now.requests, errors + now.errors
        else:
            requests, errors = requests + now.requests - then.requests, errors + now.errors - then.errors
    return requests, errors


def window(before: Mapping[str, Counters], after: Mapping[str, Counters], seconds: float) -> Window:
    """Subtract two readings of one zone. An instance that is new, or that restarted, counts from zero; one that is gone does not count."""
    requests, errors = served(before, after)
    gained, had = [_NONE], [_NONE]
    for instance, now in after.items():
        gained.append(now.latency)
        then = before.get(instance)
        if then is not None and then.requests <= now.requests:
            had.append(then.latency)
    latency = tuple(map(sub, map(sum, zip(*gained, strict=True)), map(sum, zip(*had, strict=True))))
    p50, p99 = quantile_ms(latency, 0.50), quantile_ms(latency, 0.99)
    return Window(seconds, requests, errors, p50, p99, latency)


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """When a returning zone counts as no worse than the survivors. Shares are 0..1, latencies ms."""

    samples_min: int = 30
    error_share_max: float = 0.005
    errors_min: int = 2
    p50_added_max_ms: float = 50.0
    slow_share_max: float = 0.05
    slow_min: int = 5


def _slower(zone: Window, survivors: Window, policy: GatePolicy) -> bool:
    """The median moved, or more requests than chance explains are slower than the survivors' p99.

    A p99 of a few dozen requests is their maximum, so two p99s are not compared: the shares beyond the survivors' are,
    and their difference must exceed two standard errors of both samples (Agresti and Caffo 2000: a success and a failure
    are added to each, so that none of twenty is not taken for never).
    """
    assert zone.p50_ms is not None
    assert survivors.p50_ms is not None
    assert survivors.p99_ms is not None
    if zone.p50_ms > survivors.p50_ms + policy.p50_added_max_ms:
        return True
    slow, theirs = _beyond(zone, survivors.p99_ms), _beyond(survivors, survivors.p99_ms)
    share, tried = (slow + 1) / (zone.requests + 2), zone.requests + 2
    usual, usually = (theirs + 1) / (survivors.requests + 2), survivors.requests + 2
    error = sqrt(share * (1 - share) / tried + usual * (1 - usual) / usually)
    return slow >= policy.slow_min and share - usual > policy.slow_share_max + 2 * error


def _beyond(window: Window, bound_ms: float) -> int:
    return sum(window.latency[bisect_right(_BOUNDS_MS, bound_ms) :])


def judge(zone: Window, survivors: Window, policy: GatePolicy) -> Judgement:
    """Compare a zone on its way back with the survivors over the same seconds (I2)."""
    if zone.requests == 0:
        return Judgement(Verdict.UNMEASURED, f"the zone served 0 requests in {zone.seconds:.1f} s")
    told = (
        f"{zone.errors} errors of {zone.requests} requests, p99 {zone.p99_ms} ms "
        f"(survivors {survivors.errors} of {survivors.requests}, p99 {survivors.p99_ms} ms)"
    )
    zone_share = zone.errors / zone.requests
    base_share = survivors.errors / survivors.requests if survivors.requests else 0.0
    if zone.errors >= policy.errors_min and zone_share > base_share + policy.error_share_max:
        return Judgement(Verdict.UNHEALTHY, told)
    if zone.requests < policy.samples_min:
        return Judgement(Verdict.INCONCLUSIVE, f"{told}; fewer than {policy.samples_min} requests")
    if survivors.requests < policy.samples_min or zone.p99_ms is None or survivors.p99_ms is None:
        return Judgement(Verdict.INCONCLUSIVE, f"{told}; the survivors served too little to compare with")
    if _slower(zone, survivors, policy):
        return Judgement(Verdict.UNHEALTHY, told)
    if zone.errors and zone_share > base_share + policy.error_share_max:
        return Judgement(Verdict.INCONCLUSIVE, f"{told}; too few errors to tell")
    return Judgement(Verdict.HEALTHY, told)


class InstanceProbe(msgspec.Struct, frozen=True):
    """What the region agent saw of one instance. `version` is None when it did not answer."""

    id: str
    reachable: bool
    ready: bool
    admitted: bool
    version: str | None
    in_flight: int
    connections: int


def judge_fleet(probes: Iterable[InstanceProbe], expected: int, version: str) -> Judgement:
    """All of `expected` instances are there, ready and at `version`. Zero instances are not all ready (I2)."""
    seen = list(probes)
    if expected <= 0 or not seen:
        return Judgement(Verdict.UNMEASURED, f"{len(seen)} instances seen of {expected} expected")
    good = [p for p in seen if p.reachable and p.ready and p.version == version]
    if len(good) >= expected and len(good) == len(seen):
        return Judgement(Verdict.HEALTHY, f"{len(good)} of {expected} instances ready at {version}")
    dark = sum(not p.reachable for p in seen)
    unready = sum(p.reachable and not p.ready for p in seen)
    wrong = sorted({str(p.version) for p in seen if p.reachable and p.version != version})
    told = f"{len(good)} of {expected} instances ready at {version}: {dark} unreachable, {unready} not ready"
    return Judgement(Verdict.UNHEALTHY, told + (f", at other versions {', '.join(wrong)}" if wrong else ""))


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The result of requests that the region agent sent to a zone while no user's request went there."""

    sent: int
    ok: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


def together(parts: Sequence[Synthetic]) -> Synthetic:
    """What was sent in portions. The median is the one that half of what was answered was no slower than, portion by portion."""
    sent, ok, failed = (sum(numbers) for numbers in zip(*((p.sent, p.ok, p.failed) for p in parts), strict=True))
    medians = sorted((part.p50_ms, part.ok) for part in parts if part.p50_ms is not None)
    answered = list(accumulate(number for _, number in medians))
    p50_ms = medians[bisect_left(answered, ok / 2)][0] if medians else None
    return Synthetic(sent, ok, failed, p50_ms, max((p.p99_ms for p in parts if p.p99_ms is not None), default=None))


def judge_synthetic(result: Synthetic, wanted: int, *, failed_share_max: float, p50_max_ms: float) -> Judgement:
    """I2: unsent requests are not successes. `failed_share_max` 0..1."""
    told = f"{result.ok} of {result.sent} synthetic requests answered, median {result.p50_ms} ms"
    if result.sent == 0:
        return Judgement(Verdict.UNMEASURED, told)
    if result.failed > result.sent * failed_share_max:
        return Judgement(Verdict.UNHEALTHY, told)
    if result.sent < wanted:
        return Judgement(Verdict.INCONCLUSIVE, f"{told}; {wanted} wanted")
    if result.p50_ms is None or result.p50_ms > p50_max_ms:
        return Judgement(Verdict.UNHEALTHY, f"{told}, more than {p50_max_ms:.0f} ms")
    return Judgement(Verdict.HEALTHY, told)
