"""The ports over the simulated world: fleets, the two fronts, DNS, agent, notices. They pass the contract suites.

Each write is a list of parts, one for each call that the real adapter makes, so that it can stop half-way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from zlib import crc32

from orchestrator.core.errors import NoCapacity, Rejected, Transient
from orchestrator.core.health import LATENCY_BOUNDS_MS, Counters, InstanceProbe, Synthetic
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import Placement, ZoneSeen, ZoneTraffic
from orchestrator.ports import Autoscaler, Fence, FleetSeen, GlobalSeen, Instance, Notice, Peer, Replacement
from orchestrator.sim import load
from orchestrator.sim.faults import Wire
from orchestrator.sim.truth import BACKEND_POOL, RAMP_POOL, STEADY_POOL, Admin, Blow, Box, Life, RegionTruth, ZoneTruth
from orchestrator.sim.world import World

WEIGHT_MAX = 999
HALF_A_GRAIN = 0.0025  # of AwsTraffic
_FAST_BUCKETS = (2, 5)  # 20 ms for most, 50 ms for the slowest twentieth
_SLOW_BUCKETS = (8, 10)  # 150 ms and 300 ms: what +100 ms makes of them

_UNREACHED = partial(
    InstanceProbe, reachable=False, ready=False, admitted=False, version=None, in_flight=0, connections=0
)
_TURN = {Placement.OUT: 0, Placement.STEADY: 1, Placement.RAMP: 2}

Parts = list[Callable[[], None]]


@dataclass(frozen=True, slots=True)
class SimFleet:
    world: World
    wire: Wire

    async def describe(self, zone: Zone) -> FleetSeen:
        return await self.wire.read("fleet.describe", zone.id, partial(self._seen, zone))

    def _seen(self, zone: Zone) -> FleetSeen:
        place = self.world.zones[zone.id]
        instances = tuple(
            Instance(box.id, box.address, box.version, box.life is Life.RUNNING, box.version == place.model)
            for box in place.boxes
        )
        bounds = Autoscaler(place.minimum, zone.instances_max, enabled=place.repairs)
        short = place.no_capacity and len(instances) < place.desired
        no_room = f"{zone.id} has no room for more" if short else ""
        return FleetSeen(instances, place.desired, place.model, place.repairs, bounds, no_room=no_room)

    async def replace(self, zone: Zone, version: str, image: Image, fence: Fence) -> None:
        del image  # its data is the cloud's own vocabulary; this cloud goes by the version
        place = self.world.zones[zone.id]
        swap = place.swap
        parts: Parts = [] if place.model == version else [partial(self.world.stage, place, version)]
        stays = all(box.version == version and not box.leaving for box in place.boxes)
        under_way = swap is not None and swap.running and swap.version == version
        if not under_way and (not stays or (swap is not None and swap.running)):
            parts.append(partial(self.world.replace, place, version))
        elif stays and swap is not None:
            swap.failure = None  # nothing to do: an older failure says nothing of the fleet as it stands
        if parts:
            await self.wire.write("fleet.replace", zone.id, parts, fence)

    async def replacement(self, zone: Zone) -> Replacement:
        return await self.wire.read("fleet.replacement", zone.id, partial(self._swap, zone))

    def _swap(self, zone: Zone) -> Replacement:
        place = self.world.zones[zone.id]
        swap = place.swap
        if swap is None:
            return Replacement(running=False, version=None, done=0, total=0)
        # Azure tells of instances that are not on the model, AWS of how the refresh itself went.
        failed = place.region.aws or any(box.version != place.model for box in place.boxes)
        return Replacement(swap.running, swap.version, swap.done, swap.total, swap.failure if failed else None)

    async def scale(self, zone: Zone, instances: int, fence: Fence) -> None:
        place = self.world.zones[zone.id]
        if instances > zone.instances_max:
            raise Rejected(f"{zone.id} may have {zone.instances_max} instances at most, not {instances}")
        if instances == place.desired:
            return
        if place.no_capacity and instances > place.desired:
            raise NoCapacity(f"{zone.id} has no room for {instances} instances")
        await self.wire.write("fleet.scale", zone.id, [partial(self.world.scale, place, instances)], fence)

    async def set_minimum(self, zone: Zone, instances: int, fence: Fence) -> None:
        place = self.world.zones[zone.id]
        if place.minimum != instances:
            await self.wire.write("fleet.set_minimum", zone.id, [partial(setattr, place, "minimum", instances)], fence)

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        place, repairs = self.world.zones[zone.id], enabled if repairs is None else repairs
        if place.repairs is not repairs:
            change = partial(self.world.set_repairs, place, repairs)
            await self.wire.write("fleet.set_autoscaling", zone.id, [change], fence)


def _pool_seen(place: ZoneTruth, pool: str) -> tuple[list[Box], list[Box]]:
    """The zone's instances in a pool: those that may take traffic, and those that drain."""
    taking: list[Box] = []
    draining: list[Box] = []
    for box in place.boxes:
        target = box.targets.get(pool)
        if target is not None:
            (draining if target.draining else taking).append(box)
    return taking, draining


@dataclass(frozen=True, slots=True)
class AwsTraffic:
    """Two target groups on one listener (facts of the real adapter: a zone leaves `steady`, returns through `ramp`)."""

    world: World
    wire: Wire

    def grain(self, zone: Zone, instances: int) -> Fraction:
        del zone, instances
        return Fraction(1, 200)

    def whole_instances(self) -> bool:
        return False

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        return await self.wire.read("traffic.read", region.id, partial(self._seen, region))

    def _seen(self, region: Region) -> Mapping[str, ZoneSeen]:
        self.world.settle()
        truth = self.world.regions[region.id]
        return {place.zone.id: self._zone_seen(truth, place) for place in truth.zones}

    def _zone_seen(self, truth: RegionTruth, place: ZoneTruth) -> ZoneSeen:
        steady, old = _pool_seen(place, STEADY_POOL)
        ramp, older = _pool_seen(place, RAMP_POOL)
        in_steady = place.zone.id in truth.attached[STEADY_POOL]
        in_ramp = place.zone.id in truth.attached[RAMP_POOL]
        taking = [box for box in place.boxes if truth.shares.get(box)]
        pool, name = (steady, STEADY_POOL) if in_steady else (ramp, RAMP_POOL)
        healthy = sum(box.targets[name].healthy for box in pool)
        counts = (len(taking), len(old) + len(older), healthy, len(place.boxes))
        if in_steady and in_ramp:
            return ZoneSeen(None, None, *counts)
        if in_steady:
            return ZoneSeen(Placement.STEADY, 1.0, *counts)
        if in_ramp:
            return ZoneSeen(Placement.RAMP, _ramp_share(truth, place), *counts)
        return ZoneSeen(Placement.OUT, 0.0, *counts)

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        truth = self.world.regions[region.id]
        parts: Parts = []
        # As the real one: zones leave first, then they join.
        for zone in sorted(
            region.zones, key=lambda zone: _TURN[desired[zone.id].placement] if zone.id in desired else 0
        ):
            if zone.id in desired:
                parts += self._next(truth, self.world.zones[zone.id], desired[zone.id])
        if parts:
            await self.wire.write("traffic.apply", region.id, parts, fence)

    def _next(self, truth: RegionTruth, place: ZoneTruth, wish: ZoneTraffic) -> Parts:
        in_steady = place.zone.id in truth.attached[STEADY_POOL]
        in_ramp = place.zone.id in truth.attached[RAMP_POOL]
        closed = partial(self.world.set_weights, truth, {STEADY_POOL: 100, RAMP_POOL: 0})
        unramp: Parts = [closed, partial(self.world.detach, place, RAMP_POOL)] if in_ramp else []
        leave: Parts = [partial(self.world.detach, place, STEADY_POOL)] if in_steady else []
        if wish.placement is Placement.OUT:
            return leave + unramp
        if wish.placement is Placement.RAMP:
            if in_steady or _others_in_ramp(truth, place):
                return leave  # Their own turn clears the ramp; until then this zone waits where it is.
            if not in_ramp:
                return [closed] if truth.weights[RAMP_POOL] else [partial(self.world.attach, place, RAMP_POOL)]
            if truth.weights[RAMP_POOL] and not _on_ramp(place):
                return [closed]  # It died there: a group without a healthy target fails open.
            share = _ramp_share(truth, place)
            lower = share is not None and share > wish.share and _on_ramp(place) > 0
            near = share is not None and abs(share - wish.share) < HALF_A_GRAIN
            if near or not (lower or _all_healthy(place, RAMP_POOL)):
                return []
            return [partial(self.world.set_weights, truth, _weights(truth, place, wish.share))]
        if not in_steady:
            zone, others, share = len(place.boxes), _others_serving(truth, place), _ramp_share(truth, place)
            most = zone / (zone + others) if zone else 1.0
            if in_ramp and share is not None and share > most + HALF_A_GRAIN:  # two parts at once are too much (I3)
                return [partial(self.world.set_weights, truth, _weights(truth, place, most))]
            return [partial(self.world.attach, place, STEADY_POOL)]
        # At the first healthy one: an instance in both groups carries two parts (I3).
        joined = any(box.targets[STEADY_POOL].healthy for box in place.boxes if STEADY_POOL in box.targets)
        return unramp if joined else []


def _all_healthy(place: ZoneTruth, pool: str) -> bool:
    """Zero instances are not all healthy (I2)."""
    return bool(place.boxes) and all(pool in box.targets and box.targets[pool].healthy for box in place.boxes)


def _others_in_ramp(truth: RegionTruth, place: ZoneTruth) -> bool:
    others = (z for z in truth.zones if z is not place)
    return any(z.zone.id in truth.attached[RAMP_POOL] or _pool_seen(z, RAMP_POOL)[0] for z in others)


def _on_ramp(place: ZoneTruth) -> int:
    return sum(box.targets[RAMP_POOL].healthy for box in _pool_seen(place, RAMP_POOL)[0])


def _others_serving(truth: RegionTruth, place: ZoneTruth) -> int:
    """Those in `steady` that share its traffic: the healthy, or all when it fails open."""
    others = [box for z in truth.zones if z is not place for box in _pool_seen(z, STEADY_POOL)[0]]
    return sum(box.targets[STEADY_POOL].healthy for box in others) or len(others)


def _weights(truth: RegionTruth, place: ZoneTruth, share: float) -> dict[str, int]:
    """Weights that give each of its instances `share` of what one in `steady` gets, as exact as 0..999 allows."""
    others, mine = _others_serving(truth, place), _on_ramp(place)
    if not mine or share <= 0.0:
        return {STEADY_POOL: 100, RAMP_POOL: 0}
    if not others:
        return {STEADY_POOL: 0, RAMP_POOL: 100}
    ratio = Fraction(share).limit_denominator(10_000) * mine / others
    nearest = min(ratio, 1 / ratio).limit_denominator(WEIGHT_MAX)
    low, high = nearest.numerator, nearest.denominator
    return {STEADY_POOL: high, RAMP_POOL: low} if ratio <= 1 else {STEADY_POOL: low, RAMP_POOL: high}


def _ramp_share(truth: RegionTruth, place: ZoneTruth) -> float | None:
    if not truth.weights[RAMP_POOL]:
        return 0.0
    others, mine = _others_serving(truth, place), _on_ramp(place)
    if not others:
        return 1.0
    if not mine or not truth.weights[STEADY_POOL]:
        return None
    return (truth.weights[RAMP_POOL] / mine) / (truth.weights[STEADY_POOL] / others)


@dataclass(frozen=True, slots=True)
class AzureTraffic:
    """Admission and backend state, one instance as the grain; the front works on connections."""

    world: World
    wire: Wire

    def grain(self, zone: Zone, instances: int) -> Fraction:
        del zone
        return Fraction(1, instances) if instances else Fraction(1)

    def whole_instances(self) -> bool:
        return True

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        return await self.wire.read("traffic.read", region.id, partial(self._seen, region))

    def _seen(self, region: Region) -> Mapping[str, ZoneSeen]:
        self.world.settle()
        return {place.zone.id: self._zone_seen(place) for place in self.world.regions[region.id].zones}

    def _zone_seen(self, place: ZoneTruth) -> ZoneSeen:
        boxes = place.boxes
        admitted = [box for box in boxes if box.admin is not Admin.DOWN and box.admitted]
        healthy = sum(box.targets[BACKEND_POOL].healthy for box in admitted)
        draining = sum(box.tail_until_s > self.world.now_s for box in boxes)
        counts = (healthy, draining, healthy, len(boxes))
        if not admitted:
            return ZoneSeen(Placement.OUT, 0.0, *counts)
        if len(admitted) < len(boxes):
            return ZoneSeen(Placement.RAMP, len(admitted) / len(boxes), *counts)
        return ZoneSeen(Placement.STEADY, 1.0, *counts)

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        dismiss: Parts = []
        put: Parts = []
        admit: Parts = []
        for zone in region.zones:
            if zone.id not in desired:
                continue
            place, wish = self.world.zones[zone.id], desired[zone.id]
            wanted = wish.whole_instances(len(place.boxes))
            for box in place.boxes[:wanted]:
                admit += [partial(self.world.set_admitted, box, admitted=True)] if not box.admitted else []
                ready = box.targets[BACKEND_POOL].healthy and load.passes_probe(box, self.world.versions[box.version])
                put += [partial(self.world.set_admin, box, Admin.NONE)] if box.admin is Admin.DOWN and ready else []
            for box in place.boxes[wanted:]:
                busy = box.rps > 0.0 or box.tail_until_s > self.world.now_s
                put += [partial(self.world.set_admin, box, Admin.DOWN)] if box.admin is not Admin.DOWN else []
                dismiss += [partial(self.world.set_admitted, box, admitted=False)] if box.admitted and busy else []
        # As the real one: one question to the agent, one write of the whole pool, one more question.
        calls: Parts = [partial(_all, parts) for parts in (dismiss, put, admit) if parts]
        if calls:
            await self.wire.write("traffic.apply", region.id, calls, fence)


@dataclass(frozen=True, slots=True)
class SimDns:
    world: World
    wire: Wire

    async def read(self) -> GlobalSeen:
        return await self.wire.read(
            "dns.read", "", lambda: GlobalSeen(dict(self.world.dns_weights), self.world.dns_synced)
        )

    async def apply(self, weights: Mapping[str, int], fence: Fence) -> None:
        unknown = sorted(set(weights) - set(self.world.dns_weights))
        if unknown:
            raise Rejected(f"no record for {', '.join(unknown)}")
        after = self.world.dns_weights | dict(weights)
        if not any(after.values()):
            raise Rejected("with every weight at 0 the DNS would answer with every record")
        if after != self.world.dns_weights:
            await self.wire.write("dns.apply", "", [partial(self.world.set_dns, after)], fence)


@dataclass(frozen=True, slots=True)
class SimAgent:
    """The region agent. What it cannot reach it reports as unreachable, whatever users can reach."""

    world: World
    wire: Wire
    region: str

    def _reach(self, peers: Sequence[Peer]) -> list[Box]:
        """Those of them that answer it."""
        boxes, reached = self.world.boxes, []
        for peer in peers:
            box = boxes.get(peer.id)
            if box is None or not box.listening:
                continue
            zone = box.zone
            cut = zone.blows and (zone.dark or Blow.AGENT_CUT in zone.blows)
            if not cut and zone.zone.region == self.region:
                reached.append(box)
        return reached

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        return await self.wire.read("agent.probe", _about(peers), partial(self._probes, tuple(peers)))

    def _probes(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        self.world.settle()
        reached = {box.id: self._probe(box, self.world.now_s) for box in self._reach(peers)}
        return [reached.get(peer.id) or _UNREACHED(peer.id) for peer in peers]

    def _probe(self, box: Box, now_s: float) -> InstanceProbe:
        busy = box.rps > 0.0 or box.busy_until_s > now_s
        open_ = box.tail_until_s > now_s or box.rps > 0.0
        return InstanceProbe(
            box.id,
            reachable=True,
            ready=box.ready or self.world.versions[box.version].lies,
            admitted=box.admitted,
            version=box.version,
            in_flight=max(1, round(box.rps * self.world.physics.mean_request_s)) if busy else 0,
            connections=max(1, round(box.rps)) if open_ else 0,
        )

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        return await self.wire.read("agent.counters", _about(peers), partial(self._counters, tuple(peers)))

    def _counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        """Each instance's own, as whole requests."""
        self.world.settle()
        self.world.count(self.world.regions[self.region])
        counters = {}
        for box in self._reach(peers):
            requests = int(box.requests)
            slow = min(int(box.slow_requests), requests) if box.slow_requests else 0
            counters[box.id] = _counted(requests, int(box.errors), slow, crc32(box.id.encode()) % 20)
        return counters

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        request_s = self.world.physics.synthetic_s
        sent = min(requests, int(timeout_s / request_s)) if peers else 0
        answer = await self.wire.read("agent.synthesize", _about(peers), partial(self._synthesize, tuple(peers), sent))
        await self.wire.rest(sent * request_s)
        return answer

    def _synthesize(self, peers: Sequence[Peer], sent: int) -> Synthetic:
        boxes, versions = self._reach(peers), self.world.versions
        failing = sum(load.fails(box, versions[box.version]) for box in boxes) + len(peers) - len(boxes)
        failed = round(failing * sent / len(peers)) if peers else 0
        slow = any(load.slow(box, versions[box.version]) for box in boxes)
        if sent == failed:
            return Synthetic(sent, 0, failed, None, None)
        fast, tail = _SLOW_BUCKETS if slow else _FAST_BUCKETS
        return Synthetic(sent, sent - failed, failed, LATENCY_BOUNDS_MS[fast], LATENCY_BOUNDS_MS[tail])

    async def admit(self, peers: Sequence[Peer], *, admitted: bool, fence: Fence) -> None:
        parts: Parts = [partial(self.world.set_admitted, box, admitted=admitted) for box in self._reach(peers)]
        await self.wire.write("agent.admit", _about(peers), parts, fence)
        reached = {box.id for box in self._reach(peers)}
        dark = [peer for peer in peers if peer.id not in reached]
        if dark:
            raise Transient(f"{_about(dark)} did not take its admission flag")


def _all(parts: Parts) -> None:
    for part in parts:
        part()


def _about(peers: Sequence[Peer]) -> str:
    return ",".join([peer.id for peer in peers])


@lru_cache(maxsize=2048)  # Instances that share a load evenly have counted the same.
def _counted(requests: int, errors: int, slow: int, phase: int) -> Counters:
    """Put requests into the buckets that a well and a slow one fall into.

    The slowest twentieth comes at another time to each instance, by its `phase` (0 to 19): when it came to all of them
    within a second, that second looked slow.
    """
    latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    for count, (most, slowest) in ((requests - slow, _FAST_BUCKETS), (slow, _SLOW_BUCKETS)):
        if count:
            latency[most] = (count * 19 + phase) // 20
            latency[slowest] = count - latency[most]
    return Counters(requests, errors, tuple(latency))


@dataclass(slots=True)
class SimNotifier:
    wire: Wire
    on_notice: Callable[[Notice], None] = lambda _notice: None
    notices: list[Notice] = field(default_factory=list)

    async def notify(self, notice: Notice) -> None:
        await self.wire.write("notify", notice.what, [partial(self._arrives, notice)], None)

    def _arrives(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.on_notice(notice)
