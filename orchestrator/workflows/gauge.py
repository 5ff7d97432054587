"""What the service does now: peers, readiness and load of every zone, remembered so that nobody waits for a number twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from orchestrator.core.errors import Transient
from orchestrator.core.guards import ZoneLoad
from orchestrator.core.health import Counters, InstanceProbe, Window, served, window
from orchestrator.core.topology import Zone
from orchestrator.ports import FleetSeen, Peer
from orchestrator.workflows.world import World

PEERS_STALE_S: Final = 60.0
COUNTED_S: Final = 5.0  # the same where a guard counts on what is there (I3)
LOAD_STALE_S: Final = 15.0
KEPT_S: Final = 60.0  # how far back is looked where users are few
LONGEST: Final = 3.0  # of a window: what was measured over more than this may be another load than that of now
LONG_LOOK: Final = 5.0  # windows: whoever serves few requests is watched for so long before it counts as sound (I2)
FEW: Final = 30  # requests: fewer in one window do not say whether a zone is sick (I2)
BLUR_MAX: Final = 0.5  # of a window: agents that took longer than this to answer measured nothing


class ZoneReading(msgspec.Struct, frozen=True):
    """Counters of one zone's instances, taken at some moment between `asked` and `answered` (monotonic seconds).

    An instance that did not answer stands with its last counters: when it answers again, only what came since counts.
    """

    asked: float
    answered: float
    counters: Mapping[str, Counters]
    heard: int


Reading = Mapping[str, ZoneReading]


class _Known(msgspec.Struct, frozen=True):
    at: float
    fleet: FleetSeen
    peers: list[Peer]
    ids: list[str]


class Gauge:
    """Reads through the region agents. Peers of a zone are asked of its cloud once a minute, or when told to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fleets: dict[str, _Known] = {}
        self._readings: list[Reading] = []
        self._last: dict[str, Counters] = {}

    async def fleet(self, zone: Zone, *, anew: bool = False) -> FleetSeen:
        return (await self._know(zone, anew=anew)).fleet

    async def _know(self, zone: Zone, *, anew: bool) -> _Known:
        return (None if anew else self._remembered(zone)) or await self._ask(zone)

    async def _ask(self, zone: Zone) -> _Known:
        now = self._world.clock.monotonic()
        known = self._fleets.get(zone.id)
        fleet = await self._world.fleet(zone).describe(zone)
        peers = [Peer(i.id, i.address) for i in fleet.instances if i.address]
        if self._world.peers is not None and peers and (known is None or peers != known.peers):
            await self._world.peers.save(zone.id, peers)  # For an evacuation that cannot ask its cloud (I10).
        known = self._fleets[zone.id] = _Known(now, fleet, peers, [p.id for p in peers])
        return known

    def _remembered(self, zone: Zone) -> _Known | None:
        known = self._fleets.get(zone.id)
        return known if known and self._world.clock.monotonic() - known.at <= PEERS_STALE_S else None

    def forget(self, zone: Zone) -> None:
        """Its instances are about to change: ask its cloud at the next look."""
        self._fleets.pop(zone.id, None)

    def outdate(self, zones: Iterable[Zone], age_s: float = COUNTED_S) -> None:
        """I3: what leaves a fleet is listed and ready while it drains. A guard that counts on it has it described anew."""
        now = self._world.clock.monotonic()
        for zone in zones:
            known = self._fleets.get(zone.id)
            if known and now - known.at > age_s:
                self.forget(zone)

    async def peers(self, zone: Zone, *, anew: bool = False) -> list[Peer]:
        return (await self._know(zone, anew=anew)).peers

    async def probe(self, zone: Zone, *, anew: bool = False) -> list[InstanceProbe]:
        return list(await self._world.agent(zone).probe(await self.peers(zone, anew=anew)))

    async def tick(self) -> Reading:
        """Read every zone's counters, one question per region agent, and remember them for `loads`."""
        clock = self._world.clock
        reading: dict[str, ZoneReading] = {}
        for region in self._world.topology.regions:
            known = {z.id: self._remembered(z) or await self._ask(z) for z in region.zones}
            asked = clock.monotonic()
            counters = await self._world.agents[region.id].counters([p for k in known.values() for p in k.peers])
            answered = clock.monotonic()
            last = self._last
            last.update(counters)
            for zone, of_zone in known.items():
                mine = {i: counters[i] for i in of_zone.ids if i in counters}
                heard = len(mine)
                if heard < len(of_zone.ids):
                    mine = {i: last[i] for i in of_zone.ids if i in last}
                reading[zone] = ZoneReading(asked, answered, mine, heard)
        now = clock.monotonic()
        while self._readings and now - _asked(self._readings[0]) > KEPT_S:
            del self._readings[0]
        self._readings.append(reading)
        return reading

    async def start_afresh(self, zone: Zone) -> None:
        """`zone` serves nobody and its instances are about to end: measure every load from this moment on."""
        reading = await self.tick()
        for instance in reading[zone.id].counters:
            self._last.pop(instance, None)
        self._readings = [{**reading, zone.id: replace(reading[zone.id], counters={})}]

    def measure_anew(self) -> None:
        """Users have gone elsewhere: what was read before that says nothing of what each zone gets now."""
        self._readings.clear()

    async def loads(self, window_s: float) -> Mapping[str, ZoneLoad]:
        """Measure every zone over at least `window_s`, using what was read lately where that is enough.

        Over LONGEST windows at most, for the load may have been another before that.

        Raises Transient when an agent cannot be asked, or answered too late to tell: a load that cannot be measured is
        unknown, not zero (I2). A zone where no instance answers is left out, and the guards refuse.
        """
        latest = await self.tick()
        old = self._old_enough(latest, window_s, LONGEST * window_s)
        if old is None:
            old = latest
            await self._world.clock.sleep(window_s)
            latest = await self.tick()
            if changed := gone_between(old, latest) or _come_between(old, latest):
                raise Transient(f"instances of {changed} came or ended while their load was measured")
        ready_now = await self._ready()
        loads = {}
        for zone in self._world.topology.zones():
            if not latest[zone.id].heard:
                continue
            seconds = seconds_between(old, latest, zone.id)
            if seconds < BLUR_MAX * window_s:
                raise Transient(f"the agent of {zone.region} answered too late to tell the load of {zone.id}")
            requests, errors = served(old[zone.id].counters, latest[zone.id].counters)
            rps = requests / seconds if seconds > 0 else 0.0
            brief = False
            if requests < FEW:
                requests, errors, watched_s = self._lately(zone.id, latest) or (requests, errors, seconds)
                brief = requests < FEW and watched_s < LONG_LOOK * window_s
            seen = await self.fleet(zone)
            # What its cloud has no room for is missing in its capacity (I3), but what is there may be sound without it (I2).
            whole = len(seen.instances) if seen.no_room else seen.desired
            if any(i.id in ready_now and i.id not in latest[zone.id].counters for i in seen.instances):
                raise Transient(f"instances of {zone.id} came while its load was measured")
            ready = min(whole, sum(i.id in ready_now for i in seen.instances))
            if ready < whole:
                self.forget(zone)  # Its own autoscaler may have changed it since: look again.
            loads[zone.id] = ZoneLoad(zone.id, rps, whole, ready, requests, errors, brief)
        return loads

    def _lately(self, zone: str, latest: Reading) -> tuple[int, int, float] | None:
        """Requests, errors and seconds over as long as it takes to get FEW of the same instances: fewer say nothing (I2)."""
        now, lately = latest[zone].counters, None
        for reading in reversed(self._readings):
            then = reading[zone].counters if zone in reading else {}
            if then and then.keys() == now.keys():
                lately = *served(then, now), seconds_between(reading, latest, zone)
                if lately[0] >= FEW:
                    break
        return lately

    def _old_enough(self, latest: Reading, window_s: float, longest_s: float) -> Reading | None:
        """The newest reading that is at least `window_s` older, of the same instances."""
        for reading in reversed(self._readings):
            apart_s = min(seconds_between(reading, latest, z) for z in latest)
            if apart_s > longest_s:
                return None
            old = apart_s >= window_s
            if old and not _come_between(reading, latest) and not gone_between(reading, latest):
                return reading
        return None

    async def _ready(self) -> frozenset[str]:
        """Ids of all instances that are ready now, one question per region agent."""
        ready: set[str] = set()
        for region in self._world.topology.regions:
            known = [self._remembered(z) or await self._ask(z) for z in region.zones]
            peers = [peer for of_zone in known for peer in of_zone.peers]
            probes = await self._world.agents[region.id].probe(peers)
            ready.update(p.id for p in probes if p.reachable and p.ready)
        return frozenset(ready)

    def usual_p50_ms(self, without: str) -> float | None:
        """Median of what users of the other zones saw lately; None when nothing was read."""
        now = self._world.clock.monotonic()
        lately = [reading for reading in self._readings if now - _asked(reading) <= LOAD_STALE_S]
        if len(lately) <= 1:
            return None
        before, after = lately[0], lately[-1]
        return window_of(before, after, *(z for z in after if z != without)).p50_ms


def _asked(reading: Reading) -> float:
    return min(zone.asked for zone in reading.values())


def gone_between(before: Reading, after: Reading) -> str | None:
    """A zone that lost instances between the two: what those served since is lost, so the load would look too small (I3)."""
    return next((z for z in after if z in before and before[z].counters.keys() - after[z].counters.keys()), None)


def seconds_between(before: Reading, after: Reading, zone: str) -> float:
    """The shortest time that may lie between the two: a late answer never makes a load look smaller (I3)."""
    return after[zone].asked - before[zone].answered if zone in before else 0.0


def window_of(before: Reading, after: Reading, *zones: str) -> Window:
    """What the zones served, put together, between two readings."""
    seconds = max([seconds_between(before, after, zone) for zone in zones], default=0.0)
    if len(zones) == 1:
        return window(before[zones[0]].counters, after[zones[0]].counters, seconds)
    had: dict[str, Counters] = {}
    have: dict[str, Counters] = {}
    for zone in zones:
        had.update(before[zone].counters)
        have.update(after[zone].counters)
    return window(had, have, seconds)


def _come_between(before: Reading, after: Reading) -> str | None:
    """A zone of which an instance is known only since: it may have served for long, and how much of it now nobody can say.

    Not where none was known, as in a zone that was emptied to be upgraded (`start_afresh`): all that is there has begun since.
    """
    return gone_between({z: r for z, r in after.items() if z in before and before[z].counters}, before)
