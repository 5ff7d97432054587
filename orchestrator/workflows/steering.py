"""Moves traffic, level-triggered: write the wish into the one document, make the clouds match it, read back."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from orchestrator.core.errors import Denied, Transient
from orchestrator.core.topology import Region, Topology, Zone
from orchestrator.core.traffic import (
    OUT,
    STEADY,
    DesiredTraffic,
    Placement,
    ZoneSeen,
    ZoneTraffic,
    as_it_is,
    matches,
    ramp,
)
from orchestrator.ports import Fence
from orchestrator.workflows.polling import NotYet
from orchestrator.workflows.world import WEIGHTS, World

NOTHING: Final = DesiredTraffic(0, 0, {}, {})


def all_steady(topology: Topology) -> DesiredTraffic:
    weights = {region.id: region.weight for region in topology.regions}
    return DesiredTraffic(0, 0, {zone.id: STEADY for zone in topology.zones()}, weights)


class Steering:
    """Both tiers of one service."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def document(self) -> DesiredTraffic:
        """What has been asked for, and no more: the clouds are not asked, so that an evacuation waits for none (I10)."""
        return await self._world.book.load() or all_steady(self._world.topology)

    async def _known(self) -> DesiredTraffic:
        """What is on record of it: before its first wish a run takes nothing for granted, not even of its own zone."""
        return await self._world.book.load() or NOTHING

    async def wanted(self, zone: Zone) -> ZoneTraffic:
        """What it is to get; as it is, where nobody knows. Raises Transient when its cloud cannot say that either (I2)."""
        wish = (await self._known()).zones.get(zone.id)
        return self._as_it_is(zone, await self.seen_zone(zone)) if wish is None else wish

    async def standing(self, zones: Iterable[Zone]) -> Mapping[str, ZoneTraffic]:
        """What these are to get; of one that no document names (`failout state restore`), what its cloud gives it (I1).

        One of which its cloud cannot say that either is left out: it holds nothing up (I10).
        """
        wished, found = (await self.document()).zones, dict[str, ZoneTraffic]()
        for zone in zones:
            if zone.id in wished:
                found[zone.id] = wished[zone.id]
                continue
            with contextlib.suppress(Transient, Denied):
                found[zone.id] = self._as_it_is(zone, await self.seen_zone(zone))
        return found

    def _as_it_is(self, zone: Zone, seen: ZoneSeen | None) -> ZoneTraffic:
        whole = self._world.traffic(self._world.topology.region_of(zone.id)).whole_instances()
        wish = as_it_is(seen, whole_instances=whole) if seen is not None else None
        if wish is None:
            raise Transient(f"nobody knows what {zone.id} is to get, and its cloud cannot say what it gets")
        return wish

    async def weight(self, region: Region) -> int:
        """What the region's is to be, in the same way."""
        known = (await self.document()).region_weights
        return (known if region.id in known else (await self._world.global_tier.read()).weights).get(region.id, 0)

    async def want_out_if_lost(self, zone: Zone, fence: Fence) -> None:
        """Its own run knows that it is out: where the wish is lost, an evacuation may have reached its instances alone."""
        if zone.id not in (await self._known()).zones:
            seen = await self.seen_zone(zone)
            if seen is not None and seen.taking == 0:
                await self.want_zone(zone, OUT, fence)

    async def want_zone(self, zone: Zone, traffic: ZoneTraffic, fence: Fence) -> None:
        """Record the wish (I11); `step_region` makes it so."""
        document = await self.document()
        await self._want(document, document.with_zone(zone.id, traffic, fence.number), fence)

    async def takes_nothing(self, zone: Zone) -> bool:
        """It is to be out, or its first part on the ramp is recorded and not yet there."""
        wanted = await self.wanted(zone)
        if wanted == OUT:
            return True
        seen = await self.seen_zone(zone) if wanted.placement is Placement.RAMP else None
        return seen is not None and seen.taking == 0

    async def want_no_more(self, zone: Zone, fence: Fence) -> None:
        """It is to leave from where it is: a wish that its cloud has not carried out yet gives it nothing more (I2, I9).

        Where none is on record, nothing is being carried out: a hand that has the zone out may put it back.
        """
        wanted = (await self._known()).zones.get(zone.id)
        if wanted is None:
            return
        seen = await self.seen_zone(zone) if wanted != OUT else None
        if wanted == OUT or (wanted.placement is Placement.RAMP and seen is not None and seen.taking == 0):
            await self.want_zone(zone, OUT, fence)
        elif wanted == STEADY and seen is not None and seen.placement is Placement.RAMP:
            await self.want_zone(zone, ramp(1.0), fence)

    async def is_back(self, zone: Zone) -> bool:
        """It is to be out, and somebody has given it all of its users: to take them away again needs the guards (I1, I3)."""
        wish = (await self._known()).zones.get(zone.id)
        seen = await self.seen_zone(zone) if wish == OUT else None
        return seen is not None and seen.placement is Placement.STEADY

    async def want_survivor(self, zone: Zone, traffic: ZoneTraffic, fence: Fence) -> None:
        """The same for a zone of which only the size is ours: while another run has it out, its traffic is that run's (I1)."""
        wish = (await self.document()).zones.get(zone.id)  # Before the first wish of all nobody has it out.
        wanted = await self.wanted(zone) if wish is None else wish
        if wanted.placement is Placement.STEADY or wanted.least:  # Or a part of it left, to make it smaller.
            await self.want_zone(zone, traffic, fence)

    async def want_ramp(self, zone: Zone, traffic: ZoneTraffic, fence: Fence, beside: Sequence[Zone]) -> str | None:
        """The same, unless one of `beside` is on its ramp already: then nothing is written, and it is returned."""
        document = await self.document()
        for other, to in (await self.standing(beside)).items():
            if to.placement is Placement.RAMP:
                return other
        await self._want(document, document.with_zone(zone.id, traffic, fence.number), fence)
        return None

    async def want_weights(self, weights: Mapping[str, int], fence: Fence) -> None:
        document = await self.document()
        await self._want(document, document.with_weights(weights, fence.number), fence)

    async def _want(self, document: DesiredTraffic, wanted: DesiredTraffic, fence: Fence) -> None:
        if wanted != document:
            await fence.check()  # After the load: whatever was written in between fails the save (a zombie's wish).
            await self._world.book.save(wanted, document.version)

    async def seen(self, but: Collection[str] = ()) -> Mapping[str, ZoneSeen]:
        """What every cloud says of every zone, now; none is asked about the regions in `but`."""
        seen: dict[str, ZoneSeen] = {}
        for region in self._regions(but):
            seen.update(await self._world.traffic(region).read(region))
        return seen

    async def seen_where_told(self, but: Collection[str] = ()) -> Mapping[str, ZoneSeen]:
        """The same of the clouds that answer."""
        seen: dict[str, ZoneSeen] = {}
        for region in self._regions(but):
            with contextlib.suppress(Transient, Denied):
                seen.update(await self._world.traffic(region).read(region))
        return seen

    async def seen_or_wanted(self) -> Mapping[str, ZoneSeen]:
        """The same, and of those that do not answer what is wished for: who is to be out carries nobody (I3)."""
        wishes = (await self.document()).zones
        wanted = {z: ZoneSeen(wish.placement, wish.share, 0, 0, 0, 0) for z, wish in wishes.items()}
        return {**wanted, **await self.seen_where_told()}

    def _regions(self, but: Collection[str]) -> list[Region]:
        return [region for region in self._world.topology.regions if region.id not in but]

    async def seen_zone(self, zone: Zone) -> ZoneSeen | None:
        region = self._world.topology.region_of(zone.id)
        return (await self._world.traffic(region).read(region)).get(zone.id)

    async def step_region(self, zone: Zone, fence: Fence) -> Mapping[str, ZoneSeen]:
        """Bring the region of `zone` one step closer to the document and say what it does now.

        No other zone is taken out for it: where one is to be out and serves, its own run has stood still, and much may
        have happened since (I1). None of which nobody knows what it is to get is touched (I2).
        """
        document = await self._known()
        region = self._world.topology.region_of(zone.id)
        traffic = self._world.traffic(region)
        wanted = {z.id: document.zones[z.id] for z in region.zones if z.id in document.zones}
        others = [z for z, to in wanted.items() if to == OUT and z != zone.id]
        seen = await traffic.read(region) if others else {}
        wanted |= {z: STEADY for z in others if z in seen and seen[z].placement is Placement.STEADY}
        if wanted:
            await traffic.apply(region, wanted, fence)
        return await traffic.read(region)

    async def until_zone(self, zone: Zone, fence: Fence) -> ZoneSeen | NotYet:
        """One look: does the zone get what the document says?"""
        region = self._world.topology.region_of(zone.id)
        wish = (await self._known()).zones.get(zone.id)
        seen = (await self.step_region(zone, fence)).get(zone.id)
        if seen is None:
            return NotYet(f"{region.id} says nothing of {zone.id}")
        wanted = self._as_it_is(zone, seen) if wish is None else wish
        if matches(seen, wanted, self._world.traffic(region).grain(zone, seen.total)):
            self._world.saw(zone.id, wanted)
            return seen
        return NotYet(told(seen))

    async def until_drained(self, zone: Zone, fence: Fence) -> ZoneSeen | NotYet:
        seen = await self.until_zone(zone, fence)
        if isinstance(seen, NotYet) or seen.draining == 0:
            return seen
        return NotYet(told(seen))

    async def until_weights(self, fence: Fence) -> bool | NotYet:
        """One look: does the global tier answer with the document's weights, everywhere?"""
        wanted = (await self.document()).region_weights
        await self._world.global_tier.apply(wanted, fence)
        seen = await self._world.global_tier.read()
        if any(seen.weights.get(region) != weight for region, weight in wanted.items()):
            return NotYet(f"the DNS answers {dict(seen.weights)}")
        self._world.saw(WEIGHTS, dict(wanted))
        return True if seen.in_sync else NotYet("the DNS still spreads the change")


def told(seen: ZoneSeen) -> str:
    """One zone's traffic in words."""
    share = f" at {seen.share:.0%}" if seen.placement is Placement.RAMP and seen.share is not None else ""
    return (
        f"{seen.placement or 'between placements'}{share}: {seen.taking} of {seen.total} instances take traffic, "
        f"{seen.healthy} healthy, {seen.draining} draining"
    )
