"""Everything a workflow may touch, as ports: bootstrap fills it with adapters, the simulator with its world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.release import Release
from orchestrator.core.topology import Region, Topology, Zone
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.ports import Agent, Clock, Fleet, GlobalTraffic, Notifier, Traffic


class TrafficBook(Protocol):
    """The one desired-traffic document of the service. A save that comes too late raises StaleCarrier."""

    async def load(self) -> DesiredTraffic | None: ...

    async def save(self, document: DesiredTraffic, expected_version: int) -> None: ...


class Releases(Protocol):
    def get(self, version: str) -> Release:
        """Return the manifest of `version`; NotFound when there is none."""


@dataclass(frozen=True, slots=True)
class World:
    """`fleets` and `traffics` per cloud, `agents` per region id."""

    topology: Topology
    fleets: Mapping[str, Fleet]
    traffics: Mapping[str, Traffic]
    global_tier: GlobalTraffic
    agents: Mapping[str, Agent]
    clock: Clock
    notifier: Notifier
    book: TrafficBook
    releases: Releases

    def fleet(self, zone: Zone) -> Fleet:
        return self.fleets[zone.cloud]

    def traffic(self, region: Region) -> Traffic:
        return self.traffics[region.cloud]

    def agent(self, zone: Zone) -> Agent:
        return self.agents[self.topology.region_of(zone.id).id]
