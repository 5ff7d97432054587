"""The store, and all that workflows may touch of the world, as one simulated process sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.release import Image, Release
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Store
from orchestrator.ports import Clock, Notifier
from orchestrator.sim.adapters import AwsTraffic, AzureTraffic, SimAgent, SimDns, SimFleet
from orchestrator.sim.faults import Wire
from orchestrator.sim.world import World
from orchestrator.workflows.world import World as Ports


class SimStore:
    """The store as one process sees it: a dead process writes nothing, and may die right before or after a write."""

    _WRITES = frozenset({"claim", "intend", "commit", "save_traffic", "create_run", "post_order"})

    def __init__(self, store: MemoryStore, wire: Wire) -> None:
        self._store = store
        self._wire = wire

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - every method of the store, unchanged
        """Called once for each name: what it returns is kept on the instance."""
        method, wire = getattr(self._store, name), self._wire
        call = f"store.{name}"

        def read(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - the store's own coroutine
            wire.reach_state()
            return method(*args, **given)

        def write(*args: Any, **given: Any) -> Any:  # noqa: ANN401
            return wire.instant(call, lambda: method(*args, **given))

        kept = write if name in self._WRITES else read
        setattr(self, name, kept)
        return kept


@dataclass(frozen=True, slots=True)
class Book:
    store: Store
    service: str

    async def load(self) -> DesiredTraffic | None:
        return await self.store.load_traffic(self.service)

    async def save(self, document: DesiredTraffic, expected_version: int) -> None:
        await self.store.save_traffic(self.service, document, expected_version)


@dataclass(frozen=True, slots=True)
class Releases:
    regions: tuple[str, ...]

    def get(self, version: str) -> Release:
        return Release(version, tuple(Image(region, f"sha256:{version}", {}) for region in self.regions))


def ports_of(world: World, wire: Wire, store: Store, clock: Clock, notifier: Notifier) -> Ports:
    topology, fleet = world.topology, SimFleet(world, wire)
    regions = tuple(region.id for region in topology.regions)
    return Ports(
        topology,
        {"aws": fleet, "azure": fleet},
        {"aws": AwsTraffic(world, wire), "azure": AzureTraffic(world, wire)},
        SimDns(world, wire),
        {region: SimAgent(world, wire, region) for region in regions},
        clock,
        notifier,
        Book(store, topology.service),
        Releases(regions),
    )
