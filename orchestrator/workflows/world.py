"""Everything a workflow may touch, as ports: bootstrap fills it with adapters, the simulator with its world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from orchestrator.core.release import Release
from orchestrator.core.topology import Region, Topology, Zone
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.ports import Agent, Clock, Fleet, GlobalTraffic, Notifier, Peer, Traffic


class TrafficBook(Protocol):
    """The one desired-traffic document of the service. A save that comes too late raises StaleCarrier."""

    async def load(self) -> DesiredTraffic | None: ...

    async def save(self, document: DesiredTraffic, expected_version: int) -> None: ...


class Releases(Protocol):
    def get(self, version: str) -> Release:
        """Return the manifest of `version`; NotFound when there is none."""


class PeerBook(Protocol):
    """Where the instances of each zone were seen last, for the day when its cloud does not answer (I10)."""

    async def load(self, zone: str) -> Sequence[Peer]: ...

    async def save(self, zone: str, peers: Sequence[Peer]) -> None: ...


WEIGHTS: Final = "the global tier"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the traffic document wished for when it was last seen to be so, and when that was (monotonic seconds)."""

    wish: object
    at: float


@dataclass(frozen=True, slots=True)
class World:
    """`fleets` and `traffics` per cloud, `agents` per region id. Without `peers`, clouds are asked every time.

    `sightings`: of each zone, and of WEIGHTS, what this process has seen come true (for `reconcile`). `waits`: of each
    zone, or of a region's run, what the effect that is performed waits for, by its last look.
    """

    topology: Topology
    fleets: Mapping[str, Fleet]
    traffics: Mapping[str, Traffic]
    global_tier: GlobalTraffic
    agents: Mapping[str, Agent]
    clock: Clock
    notifier: Notifier
    book: TrafficBook
    releases: Releases
    peers: PeerBook | None = None
    sightings: dict[str, Sighting] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)

    def saw(self, what: str, wish: object) -> None:
        self.sightings[what] = Sighting(wish, self.clock.monotonic())

    @contextmanager
    def waiting(self, who: str, doing: str) -> Iterator[Callable[[str], None]]:
        """While it lasts, what is told to it is what `who` waits for.

        One wait within another: what the outer one has seen says more than that time passes.
        """
        before = self.waits.get(who)

        def tell(why: str) -> None:
            self.waits[who] = f"{doing}: {why}" if why else before or doing

        try:
            yield tell
        finally:
            self.waits.pop(who, None)
            if before is not None:
                self.waits[who] = before

    def fleet(self, zone: Zone) -> Fleet:
        return self.fleets[zone.cloud]

    def traffic(self, region: Region) -> Traffic:
        return self.traffics[region.cloud]

    def agent(self, zone: Zone) -> Agent:
        return self.agents[self.topology.region_of(zone.id).id]
