"""The Azure adapters deploy a zone, and empty one without Azure, over real processes and a real load balancer, under load."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dataplane_world import free_octets

from orchestrator.agent.local import LocalAgent
from orchestrator.clouds.azure.arm import Azure
from orchestrator.clouds.azure.fleet import AzureFleet
from orchestrator.clouds.azure.traffic import AzureTraffic
from orchestrator.core.errors import Transient
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import OUT, STEADY, ZoneSeen, ZoneTraffic, matches, ramp
from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.ask import ask
from orchestrator.lab.azure import EmulatedAzure, RegionPlan, provision
from orchestrator.lab.azure.client import clients
from orchestrator.lab.credential import LabCredential
from orchestrator.lab.dataplane import DataPlane
from orchestrator.lab.model import FRONT_PORT
from orchestrator.lab.timeline import Timeline
from orchestrator.lab.traffic.generator import Settings, Summary, generate
from orchestrator.lab.traffic.plan import constant
from orchestrator.lab.traffic.record import read

ZONE = "azure/eastus-1"
POLL_S = 0.1
REFERENCE = {"publisher": "failout", "offer": "gates", "sku": "lab", "image_version": "2.0.0"}
V2 = Image("azure/eastus", "sha256:2", {**REFERENCE, "user_data": "VERSION=v2\n"})
CALLS_PER_ZONE_MAX = 200

T = TypeVar("T")


class Open:
    number = 1

    async def check(self) -> None:
        """The lease is ours."""


class Driver:
    """What a workflow does with the ports, without its gates."""

    def __init__(self, emulated: EmulatedAzure, document: dict[str, Any], addresses: RegionAddresses) -> None:
        zones = tuple(Zone(cloud="azure", region=document["id"], **zone) for zone in document["zones"])
        self.emulated = emulated
        self.region = Region(**{**document, "zones": zones})
        self.zone = zones[0]
        self.azure = Azure(LabCredential())
        agent = LocalAgent(addresses.agent, [IPv4Network(addresses.network)])
        self.traffic = AzureTraffic(self.azure, {self.region.id: agent})
        self.fleet = AzureFleet(self.azure, [self.region])

    async def apply(self, wanted: ZoneTraffic) -> None:
        desired = {zone.id: STEADY for zone in self.region.zones} | {ZONE: wanted}
        await self.traffic.apply(self.region, desired, Open())

    async def move(self, wanted: ZoneTraffic, good: Callable[[ZoneSeen], bool] = lambda _seen: True) -> ZoneSeen:
        async def look() -> ZoneSeen | None:
            await self.apply(wanted)
            seen = (await self.traffic.read(self.region))[ZONE]
            return seen if matches(seen, wanted, self.traffic.grain(self.zone, seen.total)) and good(seen) else None

        return await until(look)

    async def upgrade(self) -> None:
        async def order() -> bool:
            await self.fleet.replace(self.zone, "v2", V2, Open())
            return True

        async def look() -> bool:
            return not (await self.fleet.replacement(self.zone)).running

        await until(order)
        await until(look)

    async def deploy(self) -> None:
        await self.move(OUT, lambda seen: seen.draining == 0)
        await self.upgrade()
        for wanted in (ramp(0.1), ramp(0.5), ramp(1.0), STEADY):
            await self.move(wanted)
            await asyncio.sleep(0.3)


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            if seen := await look():
                return seen
        except Transient:
            pass
        await asyncio.sleep(POLL_S)
    raise AssertionError("this did not come true in time")


@contextmanager
def lab(folder: Path) -> Iterator[tuple[Driver, DataPlane, str]]:
    """One region of three zones with two instances each, in strict mode; the name's DNS is at the region's address."""
    addresses = RegionAddresses(free_octets(1)[0])
    with closing(Timeline(folder / "timeline.jsonl")) as timeline:
        emulated = EmulatedAzure({"eastus": addresses.octet}, timeline)
        data_plane = DataPlane([emulated], timeline, folder, dns_address=addresses.dns)
        thread = threading.Thread(target=lambda: asyncio.run(data_plane.run()))
        thread.start()
        url = emulated.start()
        try:
            plan = RegionPlan("eastus", addresses.octet, "v1", instances=2)
            document = provision(url, emulated.subscription_id, plan)
            name = profile(url, emulated.subscription_id, plan.group, addresses.tcp_front)
            driver = Driver(emulated, document, addresses)
            asyncio.run(driver.traffic.read(driver.region))
            asyncio.run(until(lambda: probed_healthy(folder / "timeline.jsonl", 6)))
            asyncio.run(until(lambda: serves(addresses.tcp_front)))
            yield driver, data_plane, name
            driver.azure.close()
        finally:
            data_plane.stop()
            thread.join(10)
            emulated.stop()


async def probed_healthy(timeline: Path, members: int) -> bool:
    """Whether the load balancer's own probes passed; the agent knows earlier that an instance is ready."""
    lines = (await asyncio.to_thread(timeline.read_text)).splitlines()
    last = {e["instance"]: e["state"] for e in map(json.loads, lines) if e["kind"] == "member"}
    return sum(state == "healthy" for state in last.values()) == members


async def serves(front: str) -> bool:
    """What is healthy to the prober is not yet known to the front."""
    return all([await ask("127.0.0.1", front, FRONT_PORT, "/", 1.0) == 200 for _ in range(3)])


def profile(url: str, subscription_id: str, group: str, target: str) -> str:
    """Give the service a name; returns it."""
    endpoint = {
        "name": "azure-eastus",
        "type": "Microsoft.Network/trafficManagerProfiles/externalEndpoints",
        "properties": {"target": target, "weight": 100, "endpointStatus": "Enabled"},
    }
    properties = {
        "profileStatus": "Enabled",
        "trafficRoutingMethod": "Weighted",
        "dnsConfig": {"relativeName": "gates", "ttl": 1},
        "monitorConfig": {"protocol": "HTTP", "port": FRONT_PORT, "path": "/healthz"},
        "endpoints": [endpoint],
    }
    made = clients(url, subscription_id)
    made.traffic.profiles.create_or_update(group, "gates", {"location": "global", "properties": properties})
    made.close()
    return "gates.trafficmanager.net."


@asynccontextmanager
async def users(folder: Path, driver: Driver, name: str) -> AsyncIterator[list[Summary]]:
    """Users send requests while the block runs; their count is in the list after it."""
    dns = RegionAddresses(int(driver.region.agent_url.split(".")[1])).dns
    stop, counted = asyncio.Event(), []
    settings = Settings(
        (dns, 5353), name, FRONT_PORT, folder / "requests.csv", constant(120), clients=20, long_share=0.2
    )
    task = asyncio.get_running_loop().create_task(generate(settings, stop))
    try:
        await asyncio.sleep(0.5)  # users are there before anything happens
        yield counted
        await asyncio.sleep(0.5)
    finally:
        stop.set()
        counted.append(await task)


def test_a_zone_is_upgraded_and_no_request_fails(tmp_path: Path) -> None:
    """Out, drained, replaced, ramped, steady: in strict mode, with every write in the order that the adapters chose."""

    async def story(driver: Driver, name: str) -> Summary:
        async with users(tmp_path, driver, name) as counted:
            await driver.deploy()
            seen = await driver.fleet.describe(driver.zone)
            assert [("v2", True)] * 2 == [(i.version, i.on_model) for i in seen.instances]
        return counted[0]

    with lab(tmp_path) as (driver, _data_plane, name):
        began = driver.azure.calls.total()
        summary = asyncio.run(story(driver, name))
        calls = driver.azure.calls.total() - began
    print(summary.requests, driver.azure.calls.most_common())
    assert summary.requests.failures == {}
    assert summary.requests.sent > 300
    assert summary.requests.by_version["v2"].ok > 0
    assert calls <= CALLS_PER_ZONE_MAX


def test_an_upgrade_without_a_drain_costs_requests(tmp_path: Path) -> None:
    """The lab can hurt: what the drain saves is measured by leaving it out."""

    async def story(driver: Driver, name: str) -> Summary:
        async with users(tmp_path, driver, name) as counted:
            await driver.upgrade()
        return counted[0]

    with lab(tmp_path) as (driver, _data_plane, name):
        assert asyncio.run(story(driver, name)).requests.failed > 0


def test_a_zone_is_emptied_without_azure_and_no_request_fails(tmp_path: Path) -> None:
    """I10: with every management API gone, the admission flags alone move all users to the other zones."""

    async def story(driver: Driver, name: str) -> tuple[float, Summary]:
        async with users(tmp_path, driver, name) as counted:
            await asyncio.to_thread(driver.emulated.stop)
            with pytest.raises(Transient):
                await driver.apply(OUT)
            await asyncio.sleep(1.0)  # two probes
            emptied = time.time()
            await asyncio.sleep(1.5)
        return emptied, counted[0]

    with lab(tmp_path) as (driver, _data_plane, name):
        emptied, summary = asyncio.run(story(driver, name))
    late = [row for row in read(tmp_path / "requests.csv") if row.t >= emptied and row.connection == "fresh"]
    assert summary.requests.failures == {}
    assert len(late) > 30
    assert {row.zone for row in late} == {"azure/eastus-2", "azure/eastus-3"}
