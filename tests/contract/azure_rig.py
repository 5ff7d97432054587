"""The Azure adapters on the lab's ARM stand-in, with instances that are told rather than run: they boot in 50 ms."""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from contract_rig import until

from orchestrator.clouds.azure.arm import Azure
from orchestrator.clouds.azure.fleet import AzureFleet, Remembered
from orchestrator.clouds.azure.traffic import AzureTraffic
from orchestrator.clouds.azure.trafficmanager import TrafficManager
from orchestrator.core.health import Counters, InstanceProbe, Synthetic
from orchestrator.core.release import Image
from orchestrator.core.topology import GlobalTier, Region, Zone
from orchestrator.lab.azure import EmulatedAzure, RegionPlan, provision
from orchestrator.lab.azure.client import clients
from orchestrator.lab.azure.state import World
from orchestrator.lab.credential import LabCredential
from orchestrator.lab.model import DesiredRegion, Process, SeenRegion
from orchestrator.ports import Fence, Peer

BLOCK = 42
PATIENCE_S = 30.0
STANDING = {"azure/eastus": 100, "aws/us-east-1": 60}


class Machines(threading.Thread):
    """The instances as told: each runs 50 ms after it was asked for, and a machine that starts anew is admitted."""

    def __init__(self, azure: EmulatedAzure) -> None:
        super().__init__(name="machines", daemon=True)
        self.sick: set[str] = set()
        self.dark: set[str] = set()  # zones whose instances do not answer the agent
        self.users: Counter[str] = Counter()
        self.running: dict[str, tuple[int, str, str]] = {}  # incarnation, version, zone
        self.dismissed: set[tuple[str, int]] = set()
        self._azure = azure
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            for region in self._azure.desired():
                self._azure.observe(self._seen(region))

    async def told(self) -> bool:
        return bool(self.running)

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _seen(self, region: DesiredRegion) -> SeenRegion:
        wanted = {i.id: (i.incarnation, i.version, i.zone) for i in region.instances}
        processes = {k: Process.RUNNING if self.running.get(k) == v else Process.BOOTING for k, v in wanted.items()}
        self.running = wanted
        incarnations = {k: v[0] for k, v in wanted.items()}
        healthz = {k: p is Process.RUNNING for k, p in processes.items()}
        return SeenRegion(region.id, processes, healthz, {}, incarnations=incarnations)


class ToldAgent:
    """A region agent over `Machines`: what their state says, without a network. `trouble` is raised by every call."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self.trouble: Exception | None = None
        self.admissions = 0

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        if self.trouble is not None:
            raise self.trouble
        return [self._probe(peer.id) for peer in peers]

    def _probe(self, id_: str) -> InstanceProbe:
        m = self._machines
        incarnation, version, zone = m.running.get(id_, (0, "", ""))
        if not incarnation or zone in m.dark:
            return InstanceProbe(id_, False, False, False, None, 0, 0)
        admitted = (id_, incarnation) not in m.dismissed
        return InstanceProbe(id_, True, zone not in m.sick, admitted, version, 0, m.users[id_])

    async def admit(self, peers: Sequence[Peer], *, admitted: bool, fence: Fence) -> None:
        await fence.check()
        if self.trouble is not None:
            raise self.trouble
        self.admissions += 1
        keys = {(peer.id, self._machines.running[peer.id][0]) for peer in peers if peer.id in self._machines.running}
        (self._machines.dismissed.difference_update if admitted else self._machines.dismissed.update)(keys)

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        raise NotImplementedError("the adapters do not count")

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        raise NotImplementedError("the adapters send nothing")


class AzureRig:
    """All three rigs in one: an emulated Azure, one process's adapters."""

    poll_s = 0.05
    patience_s = PATIENCE_S

    def __init__(self, emulated: EmulatedAzure, machines: Machines, document: dict[str, Any]) -> None:
        self.emulated, self.machines = emulated, machines
        self.region = region_of(document)
        self.zone = self.region.zones[0]
        self.agent = ToldAgent(machines)
        self.azure = Azure(LabCredential())
        self.operations = Remembered()
        self.fleet = AzureFleet(self.azure, [self.region], self.operations)
        self.traffic = AzureTraffic(self.azure, {self.region.id: self.agent})
        self.standing = dict(STANDING)
        attributes = {"profile": "gates"} | {k: self.region.front[k] for k in ("subscription_id", "resource_group")}
        tier = GlobalTier("trafficmanager", 5, "gates.lab.", attributes, self.region.api)
        self.global_traffic = TrafficManager(self.azure, tier, [*STANDING, "nowhere/at-all"])

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        asyncio.run(test)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def writes(self) -> int:
        asked = sum(n for call, n in self.azure.calls.items() if not call.startswith(("Get", "List")))
        return asked + self.agent.admissions

    def image(self, version: str) -> Image:
        return image(version)

    async def set_healthy(self, zone: str, *, healthy: bool) -> None:
        (self.machines.sick.discard if healthy else self.machines.sick.add)(zone)

    async def resize(self, zone: str, instances: int) -> None:
        found = next(z for z in self.region.zones if z.id == zone)

        def patch() -> None:
            made = clients(self.emulated_url, self.emulated.subscription_id)
            sets, body = made.compute.virtual_machine_scale_sets, {"sku": {"capacity": instances}}
            sets.begin_update(self.region.front["resource_group"], found.fleet["scale_set"], body).result()
            made.close()

        await asyncio.to_thread(patch)

    @property
    def emulated_url(self) -> str:
        return self.region.api["endpoint_url"]


def image(version: str) -> Image:
    number = version.removeprefix("v")
    reference = {"publisher": "failout", "offer": "gates", "sku": "lab", "image_version": f"{number}.0.0"}
    return Image("azure/eastus", f"sha256:{version}", {**reference, "user_data": f"VERSION={version}\n"})


def region_of(document: dict[str, Any]) -> Region:
    """Read one region of a topology document."""
    region = {key: document[key] for key in ("id", "cloud", "name", "weight", "agent_url", "front", "api")}
    zones = tuple(Zone(cloud=document["cloud"], region=document["id"], **zone) for zone in document["zones"])
    return Region(zones=zones, **region)


def provision_profile(url: str, region: dict[str, Any], subscription_id: str) -> None:
    """Make a Traffic Manager profile with an endpoint per standing region and one that is not ours."""
    weights = {region_id.replace("/", "-"): weight for region_id, weight in STANDING.items()} | {"other": 5}
    endpoints = [
        {
            "name": name,
            "type": "Microsoft.Network/trafficManagerProfiles/externalEndpoints",
            "properties": {"target": f"127.{BLOCK + i}.0.20", "weight": weight, "endpointStatus": "Enabled"},
        }
        for i, (name, weight) in enumerate(weights.items())
    ]
    properties = {
        "profileStatus": "Enabled",
        "trafficRoutingMethod": "Weighted",
        "dnsConfig": {"relativeName": "gates", "ttl": 5},
        "monitorConfig": {"protocol": "HTTP", "port": 8000, "path": "/admit"},
        "endpoints": endpoints,
    }
    made = clients(url, subscription_id)
    group = region["front"]["resource_group"]
    made.traffic.profiles.create_or_update(group, "gates", {"location": "global", "properties": properties})
    made.close()


@functools.cache
def provisioned() -> tuple[World, dict[str, Any]]:
    """Provision once: the state of an Azure with a region of three zones, three instances each, and its document."""
    emulated = EmulatedAzure({"eastus": BLOCK}, rate_limits=False)
    url = emulated.start()
    machines = Machines(emulated)
    machines.start()
    try:
        document = provision(url, emulated.subscription_id, RegionPlan("eastus", BLOCK, "v1", instances_max=4))
        provision_profile(url, document, emulated.subscription_id)
    finally:
        machines.stop()
        emulated.stop()
    return emulated._world, document


@contextmanager
def azure_rig() -> Iterator[AzureRig]:
    """Open a copy of what was provisioned: all steady."""
    world, document = provisioned()
    emulated = EmulatedAzure({"eastus": BLOCK}, rate_limits=False)
    copied = copy.deepcopy(world)
    for name in ("groups", "network", "balancers", "scale_sets", "profiles", "autoscale"):
        setattr(emulated._world, name, getattr(copied, name))
    document = {**document, "api": {"endpoint_url": emulated.start()}}
    machines = Machines(emulated)
    machines.start()
    rig = AzureRig(emulated, machines, document)
    try:
        asyncio.run(until(rig, machines.told, bool, "the machines run"))
        yield rig
    finally:
        rig.azure.close()
        machines.stop()
        emulated.stop()
