"""The simulator's fakes under the contract suites: virtual time, no faults."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.sim.adapters import AwsTraffic, AzureTraffic, SimDns, SimFleet
from orchestrator.sim.faults import Faults, Wire
from orchestrator.sim.scenario import two_clouds
from orchestrator.sim.scheduler import Process, Scheduler, SimClock
from orchestrator.sim.truth import WELL
from orchestrator.sim.world import build


class SimRig:
    """All three rigs in one: a world of two clouds, and the ports of one process."""

    poll_s = 0.5
    patience_s = 60.0

    def __init__(self, cloud: str) -> None:
        self.scheduler = Scheduler()
        self.process = Process("contract")
        topology = two_clouds()
        self.world = build(topology, self.scheduler, version="v1", versions={"v2": WELL}, users_rps=120.0)
        self.wire = Wire(self.process, self.scheduler, Faults(Random(1)))
        self.region: Region = next(region for region in topology.regions if region.cloud == cloud)
        self.zone: Zone = self.region.zones[0]
        self.fleet = SimFleet(self.world, self.wire)
        self.traffic = {"aws": AwsTraffic, "azure": AzureTraffic}[cloud](self.world, self.wire)
        self.global_traffic = SimDns(self.world, self.wire)
        self.standing = dict(self.world.dns_weights)

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        self.scheduler.spawn(self.process, test)
        self.scheduler.run(3600.0, until=lambda: self.process.done)
        assert self.process.done, "the test never came to its end"
        if self.process.failure is not None:
            raise self.process.failure

    async def sleep(self, seconds: float) -> None:
        await SimClock(self.scheduler, self.process).sleep(seconds)

    def writes(self) -> int:
        return self.wire.writes

    def image(self, version: str) -> Image:
        return Image(self.region.id, f"sha256:{version}", {})

    async def set_healthy(self, zone: str, *, healthy: bool) -> None:
        for box in self.world.zones[zone].boxes:
            box.ready = healthy
            self.world.probe(box)
            self.world.touch(box.zone.region)

    async def resize(self, zone: str, instances: int) -> None:
        self.world.scale(self.world.zones[zone], instances)


@contextmanager
def aws_sim_rig() -> Iterator[SimRig]:
    yield SimRig("aws")


@contextmanager
def azure_sim_rig() -> Iterator[SimRig]:
    yield SimRig("azure")
