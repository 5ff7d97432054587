"""One effect being performed for one zone: what it may know, and how it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec

from orchestrator.core.deploy_table import E
from orchestrator.core.machine import Event, Json
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import RampStep
from orchestrator.ports import Clock, Fence
from orchestrator.workflows.polling import Found, Interrupted, NotYet, TimedOut, look_until
from orchestrator.workflows.world import World

T = TypeVar("T")
STALE_S = 10.0  # What was known of a zone when it began to leave is not acted on later than this (I2, I3).


class Progress(Protocol):
    """What effects read of where a zone stands, whoever took it out: a deploy's ZoneProgress, an OutingState."""

    @property
    def since(self) -> datetime: ...

    @property
    def as_it_left(self) -> bool: ...

    @property
    def sound(self) -> bool: ...

    @property
    def upgrades(self) -> bool: ...

    @property
    def goal(self) -> str: ...

    @property
    def step(self) -> int: ...

    @property
    def steps(self) -> tuple[RampStep, ...]: ...

    @property
    def first(self) -> bool: ...

    @property
    def undo(self) -> Mapping[str, Json]: ...


class Job(msgspec.Struct, frozen=True):
    """`fence` is checked right before every write; `interrupted` says that the machine would do something else by now.

    `overrides`: rules that a person has overridden by name (I4); exactly these are skipped, and the evidence says so.
    `waiting`: zones that a run of many is still to take, in its order. `about`: who waits where that is not the zone.
    """

    world: World
    zone: Zone
    progress: Progress
    policy: DeployPolicy
    fence: Fence
    interrupted: Interrupted
    overrides: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    about: str = ""

    @property
    def region(self) -> Region:
        return self.world.topology.region_of(self.zone.id)

    @property
    def clock(self) -> Clock:
        return self.world.clock

    @property
    def neighbours(self) -> list[Zone]:
        """The other zones of the region: they carry its load while the zone is out."""
        return [z for z in self.region.zones if z.id != self.zone.id]

    def stale(self) -> Event | None:
        """Say so if the zone has stood still too long (a pause, the kill switch, a crash) for what was known of it.

        So it is where the clock was put back meanwhile: then nobody can say for how long.
        """
        waited_s = (self.clock.now() - self.progress.since).total_seconds()
        if -STALE_S <= waited_s <= STALE_S:
            return None
        return self.event(E.STALE, f"it stood still for {waited_s:.0f} s: what was known of it is asked anew (I2, I3)")

    def unsound(self) -> Event | None:
        return None if self.progress.sound else self.event(E.STALE, "it was sick when it began to leave (I2)")

    def event(self, kind: StrEnum, evidence: str, args: Mapping[str, Json] | None = None) -> Event:
        return Event(kind, self.zone.id, evidence, args or {})

    async def until(
        self, look: Callable[[], Awaitable[T | NotYet]], timeout_s: float, *, late: StrEnum, doing: str
    ) -> T | Event:
        """Look until it is so; the value, or the Event that says it was interrupted or came too late.

        I2: what could not be looked at is not sick. A person must choose, and nothing is rolled back for it.
        """
        with self.world.waiting(self.about or self.zone.id, doing) as tell:
            result = await look_until(
                look, self.clock, self.interrupted, every_s=self.policy.poll_s, timeout_s=timeout_s, tell=tell
            )
        if isinstance(result, Found):
            return result.value
        if isinstance(result, TimedOut):
            late = E.STUCK if late in {E.UNHEALTHY, E.INCOMPLETE} and result.blind else late
            return self.event(late, f"{doing} took more than {result.seconds:.0f} s: {result.last}")
        return self.event(E.INTERRUPTED, f"{doing} was interrupted")

    async def do(self, act: Callable[[], Awaitable[object]], *, late: StrEnum, doing: str) -> Event | None:
        """Do one idempotent thing, again while its cloud is only slow or throttled; None when it is done."""

        async def look() -> bool:
            await act()
            return True

        done = await self.until(look, self.policy.prepare_timeout_s, late=late, doing=doing)
        return done if isinstance(done, Event) else None

    async def wait(self, seconds: float, doing: str) -> Event | None:
        """Let `seconds` pass; an Event when a person interrupts."""
        until = self.clock.monotonic() + seconds
        with self.world.waiting(self.about or self.zone.id, doing) as tell:
            while (left := until - self.clock.monotonic()) > 0:
                tell("")
                if await self.interrupted():
                    return self.event(E.INTERRUPTED, f"{doing} was interrupted")
                await self.clock.sleep(min(self.policy.poll_s, left))
        return None
