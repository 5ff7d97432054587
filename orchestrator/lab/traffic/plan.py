"""When each request is due and whose it is: pure, so that a seed names one plan (I/O then happens to it)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

Rate: TypeAlias = Callable[[float], float]  # seconds since the start -> requests per second, always > 0

# A small day, as shares of the peak at each full hour: a quiet night, a morning rise, a dip after lunch, the evening
# peak at 20:00. It begins at midnight and repeats.
DAY_SHARES: tuple[float, ...] = (
    *(0.40, 0.32, 0.27, 0.25, 0.25, 0.28, 0.36, 0.50, 0.64, 0.74, 0.80, 0.84),
    *(0.86, 0.82, 0.80, 0.81, 0.84, 0.88, 0.93, 0.98, 1.00, 0.95, 0.78, 0.56),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """`due_s` counts from the start. `fresh`: a connection of its own, closed after it."""

    due_s: float
    client: int
    fresh: bool
    long: bool


def constant(rate: float) -> Rate:
    return lambda _: rate


class Dial:
    """A rate that may be turned while it runs: until it is, `rate` holds."""

    def __init__(self, rate: Rate) -> None:
        self._rate, self._turned_to = rate, 0.0

    def turn(self, rate: float) -> None:
        self._turned_to = rate

    def __call__(self, second: float) -> float:
        return self._turned_to or self._rate(second)


def stepped(first: Rate, steps: Iterable[tuple[float, float]]) -> Rate:
    """Leave `first` for constant rates. `steps`: (requests per second, from which second on)."""
    ordered = sorted(steps, key=lambda step: step[1])

    def at(second: float) -> float:
        return next((rate for rate, since in reversed(ordered) if second >= since), first(second))

    return at


def day(peak: float, day_s: float) -> Rate:
    """Follow DAY_SHARES between the hours in a straight line; a whole day passes in `day_s` seconds."""

    def at(second: float) -> float:
        hour, part = divmod(second / day_s * len(DAY_SHARES), 1)
        before, after = (DAY_SHARES[(int(hour) + i) % len(DAY_SHARES)] for i in (0, 1))
        return peak * (before + (after - before) * part)

    return at


def plan(rate: Rate, clients: int, *, fresh_share: float, long_share: float, seed: int) -> Iterator[Planned]:
    """Yield requests without end, each `1 / rate` after the last: an open loop that no slow answer slows down."""
    random = Random(seed)
    due_s = 0.0
    while True:
        yield Planned(due_s, random.randrange(clients), random.random() < fresh_share, random.random() < long_share)
        due_s += 1 / rate(due_s)
