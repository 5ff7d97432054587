"""The regional load balancers: what every node should do, and what members and zones experience of it.

An ALB chooses a pool by weight for each request, never fails over between pools, and fails open when a pool has members
but none is healthy. A TCP front sends connections to members whose probe passes (or that an admin put Up); when there
is none, new connections fail.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from orchestrator.core.errors import Rejected
from orchestrator.lab.faults import Faults
from orchestrator.lab.haproxy import POOLS_MAX, SHARES, SLOTS, Node, Serving, Slot, Tally, Wanted
from orchestrator.lab.model import Admin, DesiredRegion, Front, FrontKind, Member, Pool, TargetHealth
from orchestrator.lab.timeline import Timeline

Key = tuple[str, str, str]  # front, pool, instance
HealthOf = Callable[[Key], TargetHealth]


def serving(front: Front, pool: Pool, health: HealthOf) -> frozenset[str]:
    """Return the instances of a pool that new traffic may reach, if any reaches the pool."""
    able = [m for m in pool.members if not m.draining]
    well = {m.instance for m in able if health((front.name, pool.name, m.instance)) is TargetHealth.HEALTHY}
    if front.kind is FrontKind.TCP:
        chosen = [m for m in able if m.admin is Admin.UP or (m.admin is Admin.NONE and m.instance in well)]
    else:
        chosen = [m for m in able if m.instance in well and m.zone not in front.away]
        chosen = chosen or able  # fails open; a zonal shift has no effect then
    return frozenset(m.instance for m in chosen)


def shares(front: Front, places: dict[str, int]) -> tuple[int, ...]:
    """Return each place's part of SHARES by weight; all zero when every weight is (requests get 503 then)."""
    weights = [0] * POOLS_MAX
    for name, place in places.items():
        weights[place] = front.weights.get(name, 0)
    total = sum(weights)
    ends = [round(SHARES * end / total) if total else 0 for end in accumulate(weights)]
    return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))


@dataclass(slots=True)
class Standing:
    """What a pool's member has been told of so far, to tell the timeline only what is new."""

    member: Member
    drained: bool = False

    @property
    def leaving(self) -> bool:
        return self.member.draining or self.member.admin is Admin.DOWN


@dataclass(slots=True)
class LiveFront:
    """A front's nodes by zone, and the places of its pools and slots of its members in them."""

    front: Front
    nodes: dict[str, Node]
    tasks: list[asyncio.Task[None]]
    places: dict[str, int] = field(default_factory=dict)
    slots: dict[tuple[str, str, str], Slot] = field(default_factory=dict)  # pool, instance, address
    free: list[deque[int]] = field(default_factory=lambda: [deque(range(1, SLOTS + 1)) for _ in range(POOLS_MAX)])
    standings: dict[tuple[str, str], Standing] = field(default_factory=dict)  # pool, instance

    def live_nodes(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.alive]

    def raise_what_nodes_raised(self) -> None:
        for task in self.tasks:
            if task.done():
                task.result()

    def settled(self) -> bool:
        return all(node.settled for node in self.live_nodes())

    def sessions(self, slot: Slot) -> int:
        return sum(node.sessions.get(slot, 0) for node in self.live_nodes())

    def sessions_of(self, pool: str, member: Member) -> int:
        slot = self.slots.get((pool, member.instance, member.address))
        return self.sessions(slot) if slot else 0

    def place_pools(self) -> None:
        names = {pool.name for pool in self.front.pools}
        self.places = {name: place for name, place in self.places.items() if name in names}
        for name in sorted(names - self.places.keys()):
            spare = set(range(POOLS_MAX)) - set(self.places.values())
            if not spare or (self.front.kind is FrontKind.TCP and self.places):
                raise Rejected(f"load balancer {self.front.name} has more pools than one may have")
            self.places[name] = min(spare)

    def assign_slots(self) -> None:
        wanted = {(pool.name, m.instance, m.address) for pool in self.front.pools for m in pool.members}
        for key in [key for key in self.slots if key not in wanted]:
            slot = self.slots.pop(key)
            self.free[slot.pool].append(slot.index)  # the longest free is used first
        for key in sorted(wanted - self.slots.keys()):
            place = self.places[key[0]]
            if not self.free[place]:
                raise Rejected(f"pool {key[0]} of {self.front.name} has more than {SLOTS} members")
            self.slots[key] = Slot(place, self.free[place].popleft())


class Balancer:
    """Every front of every region; names are unique over all regions. `reconcile` each tick."""

    def __init__(self, timeline: Timeline, folder: Path, faults: Faults, *, strict: bool) -> None:
        self._timeline, self._folder, self._faults, self._strict = timeline, folder, faults, strict
        self._fronts: dict[str, LiveFront] = {}
        self._taking: dict[str, bool] = {}  # zone -> takes new traffic; False only until the zone was reported idle
        self._past = Tally()

    def health_changed(self, key: Key, health: TargetHealth) -> None:
        """Tell the timeline of a health check's new verdict."""
        live = self._fronts.get(key[0])
        standing = live.standings.get(key[1:]) if live else None
        if standing is not None:
            self._tell(key[0], key[1], standing.member, health.value)

    def reconcile(self, regions: Sequence[DesiredRegion], health: HealthOf) -> None:
        """Make every node do what the control planes want, given the health of targets."""
        wanted = {front.name: front for region in regions for front in region.fronts}
        for name in [name for name in self._fronts if name not in wanted]:
            self._end(self._fronts.pop(name))
        taking = dict.fromkeys(self._taking, False)
        for name, front in wanted.items():
            live = self._fronts.get(name)
            if live is None or live.front.nodes != front.nodes or live.front.kind is not front.kind:
                if live:
                    self._end(live)
                live = self._fronts[name] = self._begin(front)
            elif live.front.weights != front.weights:
                self._timeline.write("weights", front=name, weights=dict(front.weights))
            live.front = front
            live.raise_what_nodes_raised()
            live.place_pools()
            self._tell_members(live)
            live.assign_slots()
            self._direct(live, health, taking)
        self._report_idle(taking)

    def sessions(self) -> dict[str, int]:
        """Return users' requests (ALB) or connections (TCP) per instance, over all fronts."""
        total: dict[str, int] = defaultdict(int)
        for live in self._fronts.values():
            for (_, instance, _), slot in live.slots.items():
                total[instance] += live.sessions(slot)
        return dict(total)

    def tally(self) -> Tally:
        total = self._past
        for live in self._fronts.values():
            for node in live.nodes.values():
                total += node.tally
        return total

    async def close(self) -> None:
        tasks = [task for live in self._fronts.values() for task in live.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, front: Front) -> LiveFront:
        nodes = {
            zone: Node(f"lb-{address}", front.kind, address, self._folder, strict=self._strict)
            for zone, address in front.nodes.items()
        }
        loop = asyncio.get_running_loop()
        self._timeline.write("weights", front=front.name, weights=dict(front.weights))
        return LiveFront(front, nodes, [loop.create_task(node.run()) for node in nodes.values()])

    def _end(self, live: LiveFront) -> None:
        for task in live.tasks:
            task.cancel()
        for node in live.nodes.values():
            self._past += node.tally

    def _direct(self, live: LiveFront, health: HealthOf, taking: dict[str, bool]) -> None:
        front = live.front
        parts = shares(front, live.places)
        servers: dict[Slot, tuple[str, Serving]] = {}
        for pool in front.pools:
            reached = serving(front, pool, health)
            open_pool = front.kind is FrontKind.TCP or parts[live.places[pool.name]] > 0
            for m in pool.members:
                takes = m.instance in reached
                servers[live.slots[pool.name, m.instance, m.address]] = (
                    m.address,
                    Serving.TAKING if takes else Serving.RESTING,
                )
                taking[m.zone] = taking.get(m.zone, False) or (takes and open_pool)
        leaving = any(s.leaving and not s.drained for s in live.standings.values())
        emptying = any(self._taking.get(zone) and not takes for zone, takes in taking.items())
        wanted = Wanted(parts, servers)
        for zone, node in live.nodes.items():
            node.break_(dead=self._faults.dead(zone), suspended=self._faults.suspended(zone))
            node.attentive = leaving or emptying
            node.want(wanted)

    def _tell_members(self, live: LiveFront) -> None:
        front = live.front
        now = {(pool.name, m.instance): m for pool in front.pools for m in pool.members}
        for key in [key for key in live.standings if key not in now]:
            standing = live.standings.pop(key)
            if standing.leaving and not standing.drained:
                cut = live.sessions_of(key[0], standing.member)
                self._tell(front.name, key[0], standing.member, "drained", cut=cut)
            self._tell(front.name, key[0], standing.member, "gone")
        settled = live.settled()
        for (pool, instance), member in now.items():
            if (pool, instance) not in live.standings:
                live.standings[pool, instance] = Standing(replace(member, draining=False, admin=Admin.NONE))
                self._tell(front.name, pool, member, "registered")
            standing = live.standings[pool, instance]
            before, standing.member = standing.member, member
            if member.draining and not before.draining:
                self._tell(front.name, pool, member, "draining")
            if member.admin is not before.admin:
                self._tell(front.name, pool, member, member.admin.value.lower())
            if not standing.leaving:
                standing.drained = False
            elif settled and before == member and not standing.drained and live.sessions_of(pool, member) == 0:
                standing.drained = True
                self._tell(front.name, pool, member, "drained")

    def _report_idle(self, taking: dict[str, bool]) -> None:
        """Tell when the last user of a zone that takes nothing new has gone; said once until it takes traffic again."""
        busy: set[str] = set()
        for live in self._fronts.values():
            settled = live.settled()
            for pool in live.front.pools:
                busy |= {m.zone for m in pool.members if not settled or live.sessions_of(pool.name, m)}
        for zone, takes in taking.items():
            if takes:
                self._taking[zone] = True
            elif self._taking.get(zone) and zone not in busy:
                self._taking[zone] = False
                self._timeline.write("idle", zone=zone)

    def _tell(self, front: str, pool: str, member: Member, state: str, **more: object) -> None:
        self._timeline.write(
            "member", front=front, pool=pool, instance=member.instance, zone=member.zone, state=state, **more
        )
