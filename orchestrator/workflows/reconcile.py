"""Keeps the clouds as the traffic document says while no effect does: what a zombie or a hand wrote is put back.

It puts back only what was just seen as the document says, by itself or by an effect. It asks no guard, so it carries out no wish itself: one
that an effect has written and not reached (a pause, the kill switch) is the run's, which asks its guards anew (I1-I4).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from orchestrator.core.errors import FailoutError, StaleCarrier
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import STEADY, DesiredTraffic, Placement, ZoneSeen, ZoneTraffic, matches
from orchestrator.engine.ports import EVERY_SERVICE, Run, Store
from orchestrator.ports import Fence, Notice, Traffic
from orchestrator.workflows.steering import told
from orchestrator.workflows.world import WEIGHTS, TrafficBook, World

BUSY_S: Final = 1.0  # between two looks while a run is unfinished: a stale write is gone within two seconds
IDLE_S: Final = 10.0  # while nothing runs, so that a cloud's budget of calls is not spent on nothing
KNOWN_S: Final = 15.0  # what nobody has looked at for longer is not put back: much may have happened since (I1-I4)
# Effects that leave traffic as it is. All others steer it themselves, in the region of their zone or in all.
STILL: Final = frozenset({"admit", "upgrade", "verify", "bake", "admit-region", "stay-out", "verify-region"})
# These steer nothing themselves, and wait for days: the runs that they begin do.
BEGINNERS: Final = frozenset({"runbook", "drill"})


async def beside_each_other(acts: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*acts)


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
    """One per service and process. `unfinished` gives the service's runs, oldest first; `carrier` is this process's name on their rows.

    `together` awaits what is done for every region: a cloud that does not answer holds up no other.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        unfinished: Callable[[], Awaitable[Sequence[Run]]],
        carrier: str,
        counts: Counter[str],
        together: Callable[[Iterable[Awaitable[None]]], Awaitable[None]] = beside_each_other,
    ) -> None:
        self._world, self._store, self._unfinished, self._carrier = world, store, unfinished, carrier
        self._counts, self._together = counts, together

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
        if runs and runs[0].carrier != self._carrier:
            return True  # Whoever carries the oldest does it for all.
        movers = [run for run in runs if run.kind not in BEGINNERS]
        steered = [run.effect for run in movers if run.effect is not None and run.effect.kind not in STILL]
        if any(effect.zone is None for effect in steered):
            return True
        taken = {self._world.topology.region_of(effect.zone).id for effect in steered if effect.zone}
        free = [region for region in self._world.topology.regions if region.id not in taken]
        await self._together(self._put_back(region, document) for region in free)
        if not steered:
            await self._put_weights_back(document)
        return bool(runs)

    async def _killed(self) -> bool:
        mine = {self._world.topology.service, EVERY_SERVICE}
        return any(s.on and s.name == "kill" and s.service in mine for s in await self._store.switches())

    async def _put_back(self, region: Region, document: DesiredTraffic) -> None:
        fence = DocumentFence(self._world.book, document)
        traffic, astray, wanted = self._world.traffic(region), dict[str, str](), dict[str, ZoneTraffic]()
        with contextlib.suppress(FailoutError):  # This cloud cannot be asked, or the document has just been changed.
            seen = await traffic.read(region)
            for zone in region.zones:
                there, wish = seen.get(zone.id), document.zones.get(zone.id, STEADY)
                if there is None:
                    continue
                is_so = _is_placed(there, wish, traffic.grain(zone, there.total))
                if self._goes_astray(zone.id, wish, is_so=is_so):
                    astray[zone.id], wanted[zone.id] = told(there), wish
            if wanted:
                await traffic.apply(region, wanted, fence)
        await self._tell(astray, fence)

    async def _put_weights_back(self, document: DesiredTraffic) -> None:
        usual = {region.id: region.weight for region in self._world.topology.regions}
        fence, wish = DocumentFence(self._world.book, document), {**usual, **document.region_weights}
        weights = dict((await self._world.global_tier.read()).weights)
        if self._goes_astray(WEIGHTS, wish, is_so=weights == wish):
            await self._world.global_tier.apply(wish, fence)
            await self._tell({WEIGHTS: f"has {weights}"}, fence)

    def _goes_astray(self, what: str, wish: object, *, is_so: bool) -> bool:
        """It is not as it should be, and was so, or was on its way back, when this was last looked at."""
        known = self._world.sightings.pop(what, None)
        lately = self._world.clock.monotonic() - KNOWN_S
        watched = known is not None and known.wish == wish and known.at >= lately
        if is_so or watched:
            self._world.saw(what, wish)
        return watched and not is_so

    async def _tell(self, astray: Mapping[str, str], fence: DocumentFence) -> None:
        if fence.writes:
            self._counts["traffic_put_back"] += 1
            evidence = f"moved away from what the traffic document says, and is being put back: {_listed(astray)}"
            await self._world.notifier.notify(
                Notice("warning", "", None, "traffic-put-back", evidence, "I1", "failout status")
            )


def _is_placed(seen: ZoneSeen, wish: ZoneTraffic, grain: Fraction) -> bool:
    """Where it should be, whatever its instances do there."""
    return seen.placement is Placement.STEADY if wish == STEADY else matches(seen, wish, grain)


def _listed(astray: Mapping[str, str]) -> str:
    return "; ".join(f"{what} {seen}" for what, seen in astray.items())
