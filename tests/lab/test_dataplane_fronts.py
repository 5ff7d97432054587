"""What the load balancers and DNS of the lab do to users, as their originals would."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from dataplane_world import NAME, Region, World, aws, azure, free_octets, until, world
from dnslib import QTYPE, DNSRecord

from orchestrator.core.errors import NotFound, Rejected
from orchestrator.lab.ask import ask
from orchestrator.lab.model import FRONT_PORT, SERVICE_PORT, Admin, DnsHealthCheck, Process, TargetHealth

OUTSIDER = "127.0.0.1"


class User:
    """A connection to a front that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def get(self, path: str = "/") -> tuple[int, str]:
        """Return status and instance; (0, "") when the connection has ended."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.split(": ", 1) for line in head.strip().lower().split("\r\n")[1:])
            await self.reader.readexactly(int(fields["content-length"]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, ""
        return int(head[9:12]), fields.get("x-instance", "")


@asynccontextmanager
async def user(address: str):
    reader, writer = await asyncio.open_connection(address, FRONT_PORT)
    try:
        yield User(reader, writer)
    finally:
        writer.close()


async def zones_reached(region: Region, address: str, requests: int) -> Counter[str]:
    """Count which zone answered; "" stands for 503."""
    seen: Counter[str] = Counter()
    for _ in range(requests):
        async with user(address) as someone:
            status, instance = await someone.get("/")
            seen[region.instances[instance].zone if status == 200 else ""] += 1
    return seen


async def serving(region: Region, address: str) -> None:
    """What is healthy to the prober is not yet known to the front."""
    for _ in range(100):
        if not (await zones_reached(region, address, 4))[""]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{address} does not serve")


async def resolve(made: World) -> frozenset[str]:
    """Return every address that the DNS server gives in a few dozen answers."""
    loop, found = asyncio.get_running_loop(), set()
    transport, protocol = await loop.create_datagram_endpoint(_Answers, remote_addr=made.dns)
    for _ in range(40):
        transport.sendto(DNSRecord.question(NAME).pack())
    await asyncio.sleep(0.3)
    transport.close()
    for data in protocol.received:
        found |= {str(rr.rdata) for rr in DNSRecord.parse(data).rr if rr.rtype == QTYPE.A}
    return frozenset(found)


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagram_received(self, data, addr):
        self.received.append(data)


async def eventually_resolves(made: World, addresses: set[str]) -> None:
    ends = time.monotonic() + 5
    while (found := await resolve(made)) != addresses:
        assert time.monotonic() < ends, found


def play(folder, *regions: Region, scenario) -> None:
    async def run() -> None:
        async with asyncio.timeout(40), world(folder, *regions) as made:
            await scenario(made, *regions)

    asyncio.run(run())


def test_an_alb_chooses_pools_by_weight_and_fails_open_and_never_over(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        first, _ = region.zones
        ids, node = region.of(first), region.addresses.node(1)
        region.change("steady", ids, draining=True)
        region.register("ramp", ids)
        region.weights = {"steady": 75, "ramp": 25}
        made.plane.push()
        await made.healthy(region, "ramp", ids)
        await asyncio.sleep(0.2)
        seen = await zones_reached(region, node, 200)
        assert 25 <= seen[first] <= 80, seen

        region.deregister("ramp", ids)  # an empty pool answers its share with 503
        made.plane.push()
        await asyncio.sleep(0.3)
        seen = await zones_reached(region, node, 100)
        assert 8 <= seen[""] <= 45, seen
        assert 0 == seen[first]

        region.weights = {"steady": 100, "ramp": 0}
        for id_ in region.instances:
            await admit(region, id_, admitted=False)
        made.plane.push()
        rest = [i for i in region.instances if i not in ids]
        await until(lambda: all(made.health(region, "steady", i) is TargetHealth.UNHEALTHY for i in rest))
        await asyncio.sleep(0.2)
        assert {region.zones[1]: 20} == await zones_reached(region, node, 20)

    play(tmp_path, aws(*free_octets(1), zones=2, instances=1), scenario=scenario)


async def admit(region: Region, id_: str, *, admitted: bool) -> None:
    address = region.instances[id_].address
    body = b'{"admitted": true}' if admitted else b'{"admitted": false}'
    assert 200 == await ask(region.addresses.agent, address, SERVICE_PORT, "/admission", 1, method="PUT", body=body)


def test_a_zonal_shift_takes_the_zone_out_of_dns_and_its_targets_out_of_traffic(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        first, second = region.zones
        nodes = {region.addresses.node(0), region.addresses.node(1)}
        await eventually_resolves(made, nodes)
        region.away = frozenset({first})
        made.plane.push()
        await made.saw("idle", zone=first)
        await eventually_resolves(made, {region.addresses.node(1)})
        assert {second: 20} == await zones_reached(region, region.addresses.node(0), 20)

    play(tmp_path, aws(*free_octets(1), zones=2, instances=1), scenario=scenario)


def test_a_tcp_member_that_is_down_keeps_its_connections_and_gets_no_new_ones(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        front = region.addresses.tcp_front
        await serving(region, front)
        async with user(front) as someone:
            status, mine = await someone.get()
            assert 200 == status
            region.change("gates", [mine], admin=Admin.DOWN)
            made.plane.push()
            await made.saw("member", instance=mine, state="down")
            await asyncio.sleep(0.3)
            assert (200, mine) == await someone.get(), "established connections stay"
            assert 0 == (await zones_reached(region, front, 20))[region.instances[mine].zone]
            assert [] == made.events("member", instance=mine, state="drained"), "a connection is left"
        await made.saw("member", instance=mine, state="drained")
        await made.saw("idle", zone=region.instances[mine].zone)

    play(tmp_path, azure(*free_octets(1), zones=2, instances=1), scenario=scenario)


def test_a_tcp_front_without_a_passing_probe_serves_no_new_connection(tmp_path):
    """Unlike an ALB it does not fail open; admin Up overrides the probe."""

    async def scenario(made: World, region: Region) -> None:
        front, ids = region.addresses.tcp_front, list(region.instances)
        for id_ in ids:
            await admit(region, id_, admitted=False)
        await until(lambda: all(made.health(region, "gates", i) is TargetHealth.UNHEALTHY for i in ids))
        await asyncio.sleep(0.2)
        async with user(front) as someone:
            assert (0, "") == await someone.get()
        region.change("gates", ids[:1], admin=Admin.UP)
        made.plane.push()
        await asyncio.sleep(0.3)
        async with user(front) as someone:
            assert (200, ids[0]) == await someone.get()

    play(tmp_path, azure(*free_octets(1), zones=2, instances=1), scenario=scenario)


def test_admission_off_ends_connections_as_they_are_answered(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        async with user(region.addresses.tcp_front) as someone:
            _, mine = await someone.get()
            await admit(region, mine, admitted=False)
            assert 200 == (await someone.get())[0], "the request is still answered"
            assert 0 == (await someone.get())[0], "and was the last of its connection"

    play(tmp_path, azure(*free_octets(1), zones=1, instances=1), scenario=scenario)


def test_an_instance_answers_only_peers_of_its_region(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        address = next(iter(region.instances.values())).address
        assert 200 == await ask(region.addresses.agent, address, SERVICE_PORT, "/readyz", 1)
        assert 0 == await ask(OUTSIDER, address, SERVICE_PORT, "/readyz", 1)
        assert 0 == await ask("127.99.0.5", address, SERVICE_PORT, "/readyz", 1)

    play(tmp_path, azure(*free_octets(1), zones=1, instances=1), scenario=scenario)


def test_a_killed_zone_is_dead_until_healed_and_its_node_leaves_dns(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        first, second = region.zones
        made.data_plane.fail(first, "kill")
        ids = region.of(first)
        await until(lambda: all(made.process(region, i) is Process.DEAD for i in ids))
        late = region.launch(first, "v1", 1)
        made.plane.push()
        await eventually_resolves(made, {region.addresses.node(1)})
        assert Process.DEAD is made.process(region, late[0]), "machines that start in a dead zone are dead too"
        assert not made.plane.seen[region.id].healthz[ids[0]]
        assert {second: 10} == await zones_reached(region, region.addresses.node(1), 10)
        made.data_plane.heal(first)
        await made.healthy(region, "steady", ids)
        await eventually_resolves(made, {region.addresses.node(0), region.addresses.node(1)})
        assert 200 == (await ask(OUTSIDER, region.addresses.node(0), FRONT_PORT, "/", 1))
        assert [{"mode": "kill"}, {"mode": None}] == [{"mode": e["mode"]} for e in made.events("fault", zone=first)]

    play(tmp_path, aws(*free_octets(1), zones=2, instances=1), scenario=scenario)


@pytest.mark.soak  # seconds of waiting for the DNS
def test_a_dead_region_leaves_dns_through_its_health_check_and_comes_back(tmp_path):
    """And when every region is sick, every region is answered."""

    async def scenario(made: World, one: Region, other: Region) -> None:
        made.plane.checks = tuple(DnsHealthCheck(r.id, "", r.front, "/readyz", 0.2, 2) for r in (one, other))
        made.plane.push()
        all_fronts = {one.addresses.node(0), other.addresses.tcp_front}
        await eventually_resolves(made, all_fronts)
        made.data_plane.fail(other.zones[0], "kill")
        await eventually_resolves(made, {one.addresses.node(0)})
        made.data_plane.fail(one.zones[0], "kill")
        await eventually_resolves(made, all_fronts)
        made.data_plane.heal(one.zones[0])
        await eventually_resolves(made, {one.addresses.node(0)})
        made.data_plane.heal(other.zones[0])
        await eventually_resolves(made, all_fronts)

    octets = free_octets(2)
    play(
        tmp_path,
        aws(octets[0], zones=1, instances=1),
        azure(octets[1], zones=1, instances=1),
        scenario=scenario,
    )


def test_a_blackholed_zone_hangs_and_comes_back(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        first = region.zones[0]
        (id_,) = region.of(first)
        made.data_plane.fail(first, "blackhole")
        await until(lambda: made.health(region, "steady", id_) is TargetHealth.UNHEALTHY)
        assert Process.RUNNING is made.process(region, id_), "the cloud still calls the machine running"
        assert 0 == await ask(OUTSIDER, region.addresses.node(0), FRONT_PORT, "/", 0.5)
        made.data_plane.heal(first)
        await made.healthy(region, "steady", [id_])
        assert 200 == await ask(OUTSIDER, region.addresses.node(0), FRONT_PORT, "/", 1)

    play(tmp_path, aws(*free_octets(1), zones=2, instances=1), scenario=scenario)


def test_gray_faults_escape_the_health_checks(tmp_path):
    """slow, errors and partition: the load balancer goes on sending users there."""

    async def scenario(made: World, region: Region) -> None:
        (zone,), (id_,) = region.zones, region.instances
        address, agent, prober = region.instances[id_].address, region.addresses.agent, region.addresses.prober

        made.data_plane.fail(zone, "errors")
        await asyncio.sleep(0.3)
        answers = Counter([await ask(prober, address, SERVICE_PORT, "/", 1) for _ in range(60)])
        assert 3 <= answers[500] <= 40, answers

        made.data_plane.fail(zone, "slow")
        await asyncio.sleep(0.3)
        before = time.monotonic()
        assert 200 == await ask(prober, address, SERVICE_PORT, "/", 1)
        assert time.monotonic() - before > 0.4

        made.data_plane.fail(zone, "partition")
        await asyncio.sleep(0.3)
        assert 0 == await ask(agent, address, SERVICE_PORT, "/readyz", 0.3)
        assert 200 == await ask(OUTSIDER, region.addresses.node(0), FRONT_PORT, "/", 1), "users reach it"

        made.data_plane.heal(zone)
        await asyncio.sleep(0.3)
        assert 200 == await ask(agent, address, SERVICE_PORT, "/readyz", 1)
        assert TargetHealth.HEALTHY is made.health(region, "steady", id_)
        assert 1 == len(made.events("member", pool="steady", state="healthy")), "no fault was seen by the health check"

    play(tmp_path, aws(*free_octets(1), zones=1, instances=1), scenario=scenario)


def test_faults_name_what_is_wrong_with_them(tmp_path):
    async def scenario(made: World, region: Region) -> None:
        with pytest.raises(NotFound, match="no zone 'aws/nowhere'"):
            made.data_plane.fail("aws/nowhere", "kill")
        with pytest.raises(Rejected, match="the modes are kill, blackhole"):
            made.data_plane.fail(region.zones[0], "explode")
        with pytest.raises(NotFound, match="no fault to heal"):
            made.data_plane.heal(region.zones[0])

    play(tmp_path, aws(*free_octets(1), zones=1, instances=1), scenario=scenario)
