"""What the service does now: peers, readiness and load of every zone, remembered so that nobody waits for a number twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.core.guards import ZoneLoad
from orchestrator.core.health import Counters, InstanceProbe, Window, add, window
from orchestrator.core.topology import Zone
from orchestrator.ports import FleetSeen, Peer
from orchestrator.workflows.world import World

Reading = Mapping[str, Mapping[str, Counters]]  # zone -> instance -> counters

PEERS_STALE_S = 60.0
LOAD_STALE_S = 15.0


@dataclass(slots=True)
class _Known:
    at: float
    fleet: FleetSeen


class Gauge:
    """Reads through the region agents. Peers of a zone are asked of its cloud once a minute, or when told to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fleets: dict[str, _Known] = {}
        self._readings: list[tuple[float, Reading]] = []

    async def fleet(self, zone: Zone, *, anew: bool = False) -> FleetSeen:
        now = self._world.clock.monotonic()
        known = self._fleets.get(zone.id)
        if anew or known is None or now - known.at > PEERS_STALE_S:
            known = self._fleets[zone.id] = _Known(now, await self._world.fleet(zone).describe(zone))
        return known.fleet

    async def peers(self, zone: Zone, *, anew: bool = False) -> list[Peer]:
        seen = await self.fleet(zone, anew=anew)
        return [Peer(i.id, i.address) for i in seen.instances if i.address]

    async def probe(self, zone: Zone, *, anew: bool = False) -> list[InstanceProbe]:
        return list(await self._world.agent(zone).probe(await self.peers(zone, anew=anew)))

    async def read(self, zones: Iterable[Zone]) -> Reading:
        """Read the counters of `zones` now, one question per region agent."""
        peers = {zone.id: await self.peers(zone) for zone in zones}
        reading: dict[str, Mapping[str, Counters]] = {}
        for region in self._world.topology.regions:
            asked = {z.id: peers[z.id] for z in region.zones if z.id in peers}
            if asked:
                all_peers = [peer for of_zone in asked.values() for peer in of_zone]
                counters = await self._world.agents[region.id].counters(all_peers)
                for zone, of_zone in asked.items():
                    reading[zone] = {p.id: counters[p.id] for p in of_zone if p.id in counters}
        return reading

    async def tick(self) -> tuple[float, Reading]:
        """Read every zone and remember it for `loads`."""
        reading = await self.read(self._world.topology.zones())
        now = self._world.clock.monotonic()
        self._readings = [r for r in self._readings if now - r[0] <= LOAD_STALE_S]
        self._readings.append((now, reading))
        return now, reading

    async def loads(self, window_s: float) -> Mapping[str, ZoneLoad]:
        """Measure every zone over at least `window_s`, using what was read lately where that is enough.

        Raises Transient when an agent cannot be asked: a load that cannot be measured is unknown, not zero (I2).
        """
        now, reading = await self.tick()
        old = [r for r in self._readings if now - r[0] >= window_s]
        if not old:
            await self._world.clock.sleep(window_s)
            old = [(now, reading)]
            now, reading = await self.tick()
        then, before = old[-1]
        loads = {}
        for zone in self._world.topology.zones():
            if not reading.get(zone.id):
                continue  # Nobody answered there: unmeasured, and the guards refuse.
            measured = window(before.get(zone.id, {}), reading[zone.id], now - then)
            probes = await self.probe(zone)
            seen = await self.fleet(zone)
            loads[zone.id] = ZoneLoad(zone.id, measured.rps, seen.desired, sum(p.reachable and p.ready for p in probes))
        return loads

    def usual_p50_ms(self, without: str) -> float | None:
        """Median of what users of the other zones saw lately; None when nothing was read."""
        if len(self._readings) <= 1:
            return None
        (then, before), (now, after) = self._readings[0], self._readings[-1]
        others = (z for z in after if z != without)
        return add(window(before.get(z, {}), after[z], now - then) for z in others).p50_ms

    def windows(
        self, before: Reading, after: Reading, seconds: float, zone: str, others: Iterable[str]
    ) -> tuple[Window, Window]:
        """The zone's window, and that of all `others` together, over the same seconds."""
        of_zone = window(before.get(zone, {}), after.get(zone, {}), seconds)
        return of_zone, add(window(before.get(o, {}), after.get(o, {}), seconds) for o in others)
