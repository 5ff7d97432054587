"""Keeps the clouds as the traffic document says while no effect does: what a zombie or a hand wrote is put back.

It judges nothing and decides nothing: the document is the will of the run that holds the lease, or of the last one that
did. Before there is a document it does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from orchestrator.core.errors import FailoutError, StaleCarrier
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import STEADY, DesiredTraffic, ZoneSeen, ZoneTraffic
from orchestrator.engine.ports import EVERY_SERVICE, Run, Store
from orchestrator.ports import Fence, Notice, Traffic
from orchestrator.workflows.world import TrafficBook, World

BUSY_S: Final = 1.0  # between two looks while a run is unfinished: a stale write is gone within two seconds
IDLE_S: Final = 10.0  # while nothing runs, so that a cloud's budget of calls is not spent on nothing
# Effects that leave traffic as it is. All others steer it themselves, in the region of their zone or in all.
STILL: Final = frozenset({"admit", "upgrade", "verify", "bake"})
# These steer nothing themselves, and wait for days: the runs that they begin do.
BEGINNERS: Final = frozenset({"runbook", "drill"})


class OneAtATime:
    """A `ports.Traffic` whose writes to one region take turns in this process.

    A write under an older document that is still on its way then ends before the effect's own look, which mends it.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def grain(self, zone: Zone, instances: int) -> Fraction:
        return self._traffic.grain(zone, instances)

    def whole_instances(self) -> bool:
        return self._traffic.whole_instances()

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        return await self._traffic.read(region)

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        async with self._turns[region.id]:
            await self._traffic.apply(region, desired, fence)


class DocumentFence:
    """The right to write what one version of the document says, for as long as it is the newest."""

    def __init__(self, book: TrafficBook, document: DesiredTraffic) -> None:
        self._book, self._document = book, document
        self.writes = 0

    @property
    def number(self) -> int:
        return self._document.fence

    async def check(self) -> None:
        newest = await self._book.load()
        if newest is None or newest.version != self._document.version:
            raise StaleCarrier("the traffic document has moved on")
        self.writes += 1


class Reconciler:
    """One per service and process. `unfinished` gives the service's runs; `carrier` is this process's name on their rows."""

    def __init__(
        self,
        world: World,
        store: Store,
        unfinished: Callable[[], Awaitable[Sequence[Run]]],
        carrier: str,
        counts: Counter[str],
    ) -> None:
        self._world, self._store, self._unfinished, self._carrier = world, store, unfinished, carrier
        self._counts = counts

    async def forever(self) -> None:
        while True:
            busy = True
            with contextlib.suppress(FailoutError):  # A cloud or the store is not there: look again.
                busy = await self.look()
            await self._world.clock.sleep(BUSY_S if busy else IDLE_S)

    async def look(self) -> bool:
        """Put back what is not as the document says; False when nothing runs."""
        runs = await self._unfinished()
        document = await self._world.book.load()
        if document is None or await self._killed():
            return bool(runs)
        if any(run.carrier != self._carrier for run in runs):
            return True  # Its own carrier does it.
        movers = [run for run in runs if run.kind not in BEGINNERS]
        steered = [run.effect for run in movers if run.effect is not None and run.effect.kind not in STILL]
        if any(effect.zone is None for effect in steered):
            return True
        taken = {self._world.topology.region_of(effect.zone).id for effect in steered if effect.zone}
        free = [region for region in self._world.topology.regions if region.id not in taken]
        await asyncio.gather(*(self._put_back(region, document) for region in free))
        if not steered:
            await self._put_weights_back(document)
        return bool(runs)

    async def _killed(self) -> bool:
        mine = {self._world.topology.service, EVERY_SERVICE}
        return any(s.on and s.name == "kill" and s.service in mine for s in await self._store.switches())

    async def _put_back(self, region: Region, document: DesiredTraffic) -> None:
        fence = DocumentFence(self._world.book, document)
        wanted = {zone.id: document.zones.get(zone.id, STEADY) for zone in region.zones}
        with contextlib.suppress(FailoutError):  # This cloud cannot be asked, or the document has just been changed.
            await self._world.traffic(region).apply(region, wanted, fence)
        await self._tell(region.id, fence)

    async def _put_weights_back(self, document: DesiredTraffic) -> None:
        fence = DocumentFence(self._world.book, document)
        if not document.region_weights:
            return
        if dict((await self._world.global_tier.read()).weights) != dict(document.region_weights):
            await self._world.global_tier.apply(document.region_weights, fence)
        await self._tell("the global tier", fence)

    async def _tell(self, where: str, fence: DocumentFence) -> None:
        if fence.writes:
            self._counts["traffic_put_back"] += 1
            told = f"{where} was not as the traffic document says; it is being put back"
            await self._world.notifier.notify(Notice("warning", "", None, "traffic-put-back", told, "I1", None))
