"""What the service did, second by second, as its instances counted it: what proofs and reports are made of.

A zone that nobody heard is missing from a sample, never zero (I2). What did not reach an instance is not in here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from orchestrator.core.health import Window, quantile_ms
from orchestrator.core.machine import Json

SPAN_S: Final = 10.0  # Rates are told over at least so long: a single second is mostly chance.


@dataclass(frozen=True, slots=True)
class ZoneSample:
    """`instances` answered; `window` is what they served."""

    instances: int
    window: Window


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of every zone that was heard. `at` is when it ended; its middle says what phase it belongs to."""

    at: datetime
    zones: Mapping[str, ZoneSample]

    @property
    def seconds(self) -> float:
        return max((z.window.seconds for z in self.zones.values()), default=0.0)

    @property
    def middle(self) -> datetime:
        return self.at - timedelta(seconds=self.seconds / 2)


def between(samples: Iterable[Sample], since: datetime, until: datetime) -> list[Sample]:
    return [s for s in samples if since <= s.middle < until]


def covered(samples: Iterable[Sample], since: datetime, until: datetime) -> float:
    """Return the share of the time between that the samples (disjoint ones) cover, 0..1."""
    lasted = (until - since).total_seconds()
    inside = [
        (min(s.at, until) - max(s.at - timedelta(seconds=s.seconds), since)).total_seconds()
        for s in samples
        if s.at > since
    ]
    return min(1.0, sum(max(0.0, part) for part in inside) / lasted) if lasted > 0 else 0.0


def disjoint(samples: Iterable[Sample]) -> list[Sample]:
    """Leave out a sample that mostly covers seconds which the one before it covers: two processes measured at once."""
    kept: list[Sample] = []
    for sample in samples:
        if not kept or kept[-1].at <= sample.middle:
            kept.append(sample)
    return kept


def together(samples: Iterable[Sample], zones: Collection[str] | None = None) -> Window:
    """Put windows that follow each other, of some zones or all, together. `seconds` is how long was watched."""
    seconds, requests, errors, latency = 0.0, 0, 0, [0] * 17
    for sample in samples:
        mine = [z.window for name, z in sample.zones.items() if zones is None or name in zones]
        seconds += max((w.seconds for w in mine), default=0.0)
        requests += sum(w.requests for w in mine)
        errors += sum(w.errors for w in mine)
        for w in mine:
            latency = [total + count for total, count in zip(latency, w.latency, strict=True)]
    return Window(seconds, requests, errors, quantile_ms(latency, 0.5), quantile_ms(latency, 0.99), tuple(latency))


def spans(samples: Sequence[Sample], span_s: float = SPAN_S) -> Iterator[Sequence[Sample]]:
    """Every run of samples in a row that is just `span_s` long; all of them as one when they are shorter in all."""
    if not samples:
        return
    first, seconds, whole = 0, 0.0, False
    for last, sample in enumerate(samples):
        seconds += sample.seconds
        while seconds - samples[first].seconds >= span_s:
            seconds -= samples[first].seconds
            first += 1
        if seconds >= span_s:
            whole = True
            yield samples[first : last + 1]
    if not whole:
        yield samples


def peak_rps(samples: Sequence[Sample]) -> float | None:
    """The most requests a second that the whole service served over a span; None when nothing was watched for one."""
    rates = [w.rps for span in spans(samples) if (w := together(span)).seconds >= SPAN_S]
    return max(rates, default=None)


def utilisation(samples: Sequence[Sample], zone: str, rps_per_instance: float) -> float | None:
    """The highest share of its capacity that the zone used over a span; None when it was not heard for half the time."""
    heard = [s for s in samples if s.zones.get(zone) and s.zones[zone].instances]
    if not heard or 2 * sum(s.seconds for s in heard) < sum(s.seconds for s in samples):
        return None
    used = []
    for span in spans(heard):
        parts = [s.zones[zone] for s in span]
        capacity = sum(p.instances * p.window.seconds for p in parts) * rps_per_instance
        if capacity > 0:
            used.append(sum(p.window.requests for p in parts) / capacity)
    return max(used, default=None)


def dump(sample: Sample) -> Json:
    """Zone -> [seconds, instances, requests, errors, latency counts]: the instant stands in its own column."""
    return {
        name: [round(z.window.seconds, 3), z.instances, z.window.requests, z.window.errors, list(z.window.latency)]
        for name, z in sample.zones.items()
    }


def parse(at: datetime, data: Json) -> Sample:
    zones = {}
    for name, (seconds, instances, requests, errors, latency) in cast("dict[str, list[Any]]", data).items():
        window = Window(
            seconds, requests, errors, quantile_ms(latency, 0.5), quantile_ms(latency, 0.99), tuple(latency)
        )
        zones[name] = ZoneSample(instances, window)
    return Sample(at, zones)
