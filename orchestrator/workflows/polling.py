"""Look again until it is so: the one loop in which every effect waits, gives up, or lets a person in.

A Transient error is a look that saw nothing: it costs time, never the effect. The deadline is the budget of retries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from orchestrator.core.errors import StoreAway, Transient
from orchestrator.ports import Clock

T = TypeVar("T")
Interrupted = Callable[[], Awaitable[bool]]
BLIND_TIMES: Final = 8
BLIND_S: Final = 1.0
PATIENCE_S: Final = 30.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 4.0


class Found(msgspec.Struct, Generic[T], frozen=True):
    value: T


@dataclass(frozen=True, slots=True)
class TimedOut:
    """`last`: what the last look saw or why it could not look; `blind`: it could not."""

    seconds: float
    last: str
    blind: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """A person's order or the kill switch waits."""


class NotYet(msgspec.Struct, frozen=True):
    """What a look saw instead of what it looks for."""

    why: str


async def look_until(
    look: Callable[[], Awaitable[T | NotYet]],
    clock: Clock,
    interrupted: Interrupted,
    *,
    every_s: float,
    timeout_s: float,
    tell: Callable[[str], None] = lambda _: None,
) -> Found[T] | TimedOut | Stopped:
    """Call `look` every `every_s` until it returns something else than NotYet, at least once.

    One look is several reads of a cloud: where some of them are throttled again and again, looking as often would keep
    the limit used up, and never get all of them. So blind looks become rarer, up to BLIND_TIMES and down to one a second.
    `tell` hears what each look saw instead: whoever waits beside it would see nothing otherwise.
    Raises StoreAway when its time is over and the state was away at the last look.
    """
    deadline = clock.monotonic() + timeout_s
    last, blind, blind_s = "nothing was seen", True, every_s
    away: StoreAway | None = None
    while True:
        if await interrupted():
            return Stopped()
        wait_s = every_s
        try:
            seen = await look()
        except Transient as error:
            last, blind, wait_s = str(error), True, max(blind_s, error.retry_after_s or 0.0)
            away = error if isinstance(error, StoreAway) else None
            blind_s = max(every_s, min(2 * blind_s, BLIND_TIMES * every_s, BLIND_S))
        else:
            blind_s = every_s
            if not isinstance(seen, NotYet):
                return Found(seen)
            last, blind, away = seen.why, False, None
        tell(last)
        remaining_s = deadline - clock.monotonic()
        if remaining_s <= 0 and away is not None:
            raise away  # Nothing came too late: whoever carries the run waits for its state.
        if remaining_s <= 0:
            return TimedOut(timeout_s, last, blind)
        await clock.sleep(min(wait_s, remaining_s))


@dataclass(frozen=True, slots=True)
class Patience:
    """What one command spends on clouds that do not answer before its run exists: `seconds` in all.

    `jitter` says how much of a wait is waited (0..1); `tell` is given one line before each wait.
    """

    clock: Clock
    jitter: Callable[[], float]
    tell: Callable[[str], None]
    until: float

    @classmethod
    def begin(
        cls, clock: Clock, jitter: Callable[[], float], tell: Callable[[str], None], seconds: float = PATIENCE_S
    ) -> Patience:
        return cls(clock, jitter, tell, clock.monotonic() + seconds)

    async def ask(self, what: str, look: Callable[[], Awaitable[T]]) -> T:
        """Return what `look` says; on Transient wait (doubling, half of it jittered, Retry-After obeyed) and ask again.

        Raises Transient that names `what` when nothing was said in time.
        """
        wait_s, tries = FIRST_WAIT_S, 0
        while True:
            try:
                return await look()
            except Transient as error:
                tries += 1
                pause_s = max(wait_s * (0.5 + self.jitter() / 2), error.retry_after_s or 0.0)
                if self.clock.monotonic() + pause_s > self.until:
                    raise Transient(f"{what} did not answer, asked {tries} times: {error}") from error
                self.tell(f"{what} does not answer, asking again in {pause_s:.1f} s: {error}")
                await self.clock.sleep(pause_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
