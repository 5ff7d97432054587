"""A real data plane under a scripted control plane: tests say what a cloud would want, and users send requests."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.dataplane import DataPlane
from orchestrator.lab.model import (
    FRONT_PORT,
    DesiredDns,
    DesiredInstance,
    DesiredRegion,
    DnsHealthCheck,
    DnsRecord,
    Front,
    FrontKind,
    Member,
    Pool,
    Process,
    SeenRegion,
    TargetHealth,
)
from orchestrator.lab.timeline import Timeline
from orchestrator.lab.traffic.generator import Settings, Summary, generate
from orchestrator.lab.traffic.plan import constant

NAME = "gates.lab."
DNS_TTL_S = 1


def free_octets(count: int) -> list[int]:
    """Find regions whose addresses nobody on this machine uses now."""
    found: list[int] = []
    for octet in random.sample(range(130, 250), 120):
        with socket.socket() as probe, socket.socket() as other:
            try:
                probe.bind((RegionAddresses(octet).node(0), FRONT_PORT))
                other.bind((RegionAddresses(octet).tcp_front, FRONT_PORT))
            except OSError:
                continue
        found.append(octet)
        if len(found) == count:
            return found
    raise AssertionError("every lab address is taken")


@dataclass
class Region:
    """What a cloud's region should be; tests change it, the data plane follows. Pools: "steady" and "ramp" (AWS)."""

    addresses: RegionAddresses
    kind: FrontKind
    cloud: str
    zones: tuple[str, ...]
    instances: dict[str, DesiredInstance] = field(default_factory=dict)
    pools: dict[str, dict[str, Member]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    away: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return f"{self.cloud}/{self.addresses.octet}"

    @property
    def front(self) -> str:
        return f"front-{self.addresses.octet}"

    def launch(self, zone: str, version: str, count: int) -> list[str]:
        """Start `count` new machines on addresses of their own; return their ids."""
        index, ids = self.zones.index(zone), []
        for _ in range(count):
            n = sum(1 for i in self._ever if i[0] == zone)
            id_ = f"i-{self.addresses.octet}-{index}-{n}"
            self._ever.append((zone, id_))
            self.instances[id_] = DesiredInstance(id_, zone, self.addresses.instance(index, n), version)
            ids.append(id_)
        return ids

    _ever: list[tuple[str, str]] = field(default_factory=list)

    def of(self, zone: str) -> list[str]:
        return [i.id for i in self.instances.values() if i.zone == zone]

    def reimage(self, ids: Iterable[str], version: str) -> None:
        for id_ in ids:
            was = self.instances[id_]
            self.instances[id_] = replace(was, version=version, incarnation=was.incarnation + 1)

    def terminate(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            del self.instances[id_]

    def register(self, pool: str, ids: Iterable[str]) -> None:
        for id_ in ids:
            instance = self.instances[id_]
            self.pools[pool][id_] = Member(id_, instance.address, instance.zone)

    def change(self, pool: str, ids: Iterable[str], **fields: object) -> None:
        for id_ in ids:
            self.pools[pool][id_] = replace(self.pools[pool][id_], **fields)

    def deregister(self, pool: str, ids: Iterable[str]) -> None:
        for id_ in ids:
            self.pools[pool].pop(id_, None)

    def desired(self) -> DesiredRegion:
        alb = self.kind is FrontKind.ALB
        nodes = {z: self.addresses.node(i) for i, z in enumerate(self.zones)} if alb else {"": self.addresses.tcp_front}
        pools = tuple(Pool(name, tuple(members.values())) for name, members in self.pools.items())
        front = Front(self.front, self.kind, nodes, pools, dict(self.weights), self.away)
        return DesiredRegion(self.id, tuple(self.instances.values()), (front,))


def aws(octet: int, *, zones: int = 3, instances: int = 2) -> Region:
    names = tuple(f"aws/us-{octet}{letter}" for letter in "abcdef"[:zones])
    made = Region(RegionAddresses(octet), FrontKind.ALB, "aws", names)
    made.pools, made.weights = {"steady": {}, "ramp": {}}, {"steady": 100, "ramp": 0}
    for zone in names:
        made.register("steady", made.launch(zone, "v1", instances))
    return made


def azure(octet: int, *, zones: int = 3, instances: int = 2) -> Region:
    names = tuple(f"azure/eu{octet}-{n + 1}" for n in range(zones))
    made = Region(RegionAddresses(octet), FrontKind.TCP, "azure", names)
    made.pools, made.weights = {"gates": {}}, {"gates": 1}
    for zone in names:
        made.register("gates", made.launch(zone, "v1", instances))
    return made


class Scripted:
    """A control plane that wants what the test last committed with `push`."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions = regions
        self.region_weights = {region.id: 100 for region in regions}
        self.checks: tuple[DnsHealthCheck, ...] = ()
        self.seen: dict[str, SeenRegion] = {}
        self.push()

    def push(self) -> None:
        self._desired = tuple(region.desired() for region in self.regions)
        checked = {check.front: check.id for check in self.checks}
        records = (
            DnsRecord(NAME, r.id, weight, DNS_TTL_S, front=r.front, health_check=checked.get(r.front))
            for r in self.regions
            for weight in [self.region_weights[r.id]]
        )
        self._dns = DesiredDns(tuple(records), self.checks)

    def desired(self) -> Sequence[DesiredRegion]:
        return self._desired

    def desired_dns(self) -> DesiredDns:
        return self._dns

    def observe(self, seen: SeenRegion) -> None:
        self.seen[seen.id] = seen


@dataclass
class World:
    plane: Scripted
    data_plane: DataPlane
    dns: tuple[str, int]
    folder: Path

    def process(self, region: Region, id_: str) -> Process | None:
        seen = self.plane.seen.get(region.id)
        return seen.processes.get(id_) if seen else None

    def health(self, region: Region, pool: str, id_: str) -> TargetHealth | None:
        seen = self.plane.seen.get(region.id)
        return seen.targets.get((pool, id_)) if seen else None

    async def healthy(self, region: Region, pool: str, ids: Iterable[str], *, deadline_s: float = 10) -> None:
        ids = list(ids)
        await until(lambda: all(self.health(region, pool, i) is TargetHealth.HEALTHY for i in ids), deadline_s)

    def events(self, kind: str, **fields: object) -> list[Mapping[str, object]]:
        lines = (self.folder / "timeline.jsonl").read_text().splitlines()
        return [e for e in map(json.loads, lines) if e["kind"] == kind and fields.items() <= e.items()]

    async def saw(self, kind: str, *, deadline_s: float = 5, **fields: object) -> None:
        await until(lambda: self.events(kind, **fields), deadline_s)

    @asynccontextmanager
    async def traffic(self, *, rate: float = 150, **more: object) -> AsyncIterator[Traffic]:
        """Users send requests while the block runs; the counts are in `result` after it."""
        stop = asyncio.Event()
        log = self.folder / f"requests-{time.monotonic_ns()}.csv"
        options = {"clients": 20, "long_share": 0.2, **more}
        settings = Settings(self.dns, NAME, FRONT_PORT, log, constant(rate), **options)
        task = asyncio.get_running_loop().create_task(generate(settings, stop))
        traffic = Traffic()
        try:
            await asyncio.sleep(0.3)  # users are there before anything happens
            yield traffic
            await asyncio.sleep(0.3)
        finally:
            stop.set()
            traffic.result = await task


class Traffic:
    result: Summary

    @property
    def failed(self) -> int:
        return self.result.requests.failed

    @property
    def sent(self) -> int:
        return self.result.requests.sent


async def until(condition: Callable[[], object], deadline_s: float = 10) -> None:
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends, "this did not come true in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def world(folder: Path, *regions: Region, strict: bool = True) -> AsyncIterator[World]:
    """Raise the regions and wait until every member is healthy; the data plane has a thread of its own, as in a lab."""
    plane = Scripted(regions)
    at = (regions[0].addresses.dns, 5353)
    timeline = Timeline(folder / "timeline.jsonl")
    data_plane = DataPlane([plane], timeline, folder, dns_address=at[0], dns_port=at[1], strict=strict)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(data_plane.run())
        except BaseException as error:  # noqa: BLE001 the test reports it
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        made = World(plane, data_plane, at, folder)
        for region in regions:
            for pool, members in region.pools.items():
                await made.healthy(region, pool, members)
        yield made
    finally:
        data_plane.stop()
        await asyncio.to_thread(thread.join, 10)
        timeline.close()
    assert failures == []
