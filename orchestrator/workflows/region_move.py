"""One effect being performed for the regions of one run: what it may know, and how it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.core.deploy import ZoneProgress
from orchestrator.core.machine import Event
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import M, RegionState
from orchestrator.core.topology import Region, Topology, Zone, ZoneState
from orchestrator.ports import Fence
from orchestrator.workflows.capacity import Prepared, Scaled
from orchestrator.workflows.job import Job
from orchestrator.workflows.polling import Found, Interrupted, NotYet, TimedOut, look_until
from orchestrator.workflows.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Move:
    """One effect being performed for the regions of one run."""

    world: World
    state: RegionState
    fence: Fence
    interrupted: Interrupted

    @property
    def policy(self) -> DeployPolicy:
        return self.state.policy

    @property
    def topology(self) -> Topology:
        return self.world.topology

    @property
    def leaving(self) -> list[Region]:
        return [self.topology.region(r) for r in self.state.regions]

    @property
    def zones(self) -> list[Zone]:
        return [z for region in self.leaving for z in region.zones]

    @property
    def others(self) -> list[Zone]:
        return [z for r in self.topology.regions if r.id not in self.state.regions for z in r.zones]

    def job(self, zone: Zone) -> Job:
        """A survivor's part in it, for the effects that a deploy has for one too."""
        progress = ZoneProgress(zone.id, ZoneState.PREPARING, "", "", self.state.since)
        overrides, run = self.state.overrides, self.state.run
        return Job(self.world, zone, progress, self.policy, self.fence, self.interrupted, overrides, about=run)

    async def until(
        self, look: Callable[[], Awaitable[T | NotYet]], timeout_s: float, *, late: M, doing: str
    ) -> T | Event:
        clock, every_s = self.world.clock, self.policy.poll_s
        with self.world.waiting(self.state.run, doing) as tell:
            result = await look_until(look, clock, self.interrupted, every_s=every_s, timeout_s=timeout_s, tell=tell)
        if isinstance(result, Found):
            return result.value
        if isinstance(result, TimedOut):
            late = (
                M.STUCK if late is M.UNHEALTHY and result.blind else late
            )  # What could not be looked at is not sick (I2).
            return Event(late, evidence=f"{doing} took more than {result.seconds:.0f} s: {result.last}")
        return Event(M.INTERRUPTED, evidence=f"{doing} was interrupted")

    async def wait(self, seconds: float, doing: str) -> Event | None:
        until = self.world.clock.monotonic() + seconds
        with self.world.waiting(self.state.run, doing) as tell:
            while (left := until - self.world.clock.monotonic()) > 0:
                tell("")
                if await self.interrupted():
                    return Event(M.INTERRUPTED, evidence=f"{doing} was interrupted")
                await self.world.clock.sleep(min(self.policy.poll_s, left))
        return None


def scaled_by(state: RegionState) -> Mapping[str, Scaled]:
    """What is prepared; a row of before minimums were kept has the size of before as one."""
    return Prepared.of({"scale": dict(state.scaled)}).scale
