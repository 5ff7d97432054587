"""The reconciler of a simulated process: a second task of it, which lives and dies with the carrier (workflows.reconcile)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import ZoneSeen, ZoneTraffic
from orchestrator.engine.ports import Run, Store
from orchestrator.ports import Clock, Fence, Traffic
from orchestrator.workflows.reconcile import Reconciler
from orchestrator.workflows.world import Sighting
from orchestrator.workflows.world import World as Ports

TURN_S = 0.01  # how often whoever waits for its turn looks


@dataclass(frozen=True, slots=True)
class InTurns:
    """What `OneAtATime` is in a real process. `busy` holds the regions that are being written to, for all of its tasks."""

    traffic: Traffic
    clock: Clock
    busy: set[str]

    def grain(self, zone: Zone, instances: int) -> Fraction:
        return self.traffic.grain(zone, instances)

    def whole_instances(self) -> bool:
        return self.traffic.whole_instances()

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        return await self.traffic.read(region)

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        while region.id in self.busy:
            await self.clock.sleep(TURN_S)
        self.busy.add(region.id)
        try:
            await self.traffic.apply(region, desired, fence)
        finally:
            self.busy.discard(region.id)


async def in_turn(acts: Iterable[Awaitable[None]]) -> None:
    """There is no event loop in which they could go beside each other."""
    for act in acts:
        await act


def in_turns(ports: Ports, busy: set[str], sightings: dict[str, Sighting]) -> Ports:
    """One task's view of what all tasks of a process share."""
    traffics = {cloud: InTurns(traffic, ports.clock, busy) for cloud, traffic in ports.traffics.items()}
    return replace(ports, traffics=traffics, sightings=sightings)


def reconciler(ports: Ports, store: Store, carrier: str) -> Reconciler:
    async def unfinished() -> Sequence[Run]:
        return [run for run in reversed(await store.runs(ports.topology.service, 500)) if not run.finished]

    return Reconciler(ports, store, unfinished, carrier, Counter(), in_turn)
