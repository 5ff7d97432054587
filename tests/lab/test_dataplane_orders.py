"""The right order of calls costs users nothing in strict mode, and each wrong order costs requests: the lab can hurt."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from dataplane_world import DNS_TTL_S, Region, Traffic, World, aws, azure, free_octets, until, world

from orchestrator.lab.model import Admin, Process


@asynccontextmanager
async def under_traffic(folder, *regions: Region):
    async with world(folder, *regions) as made, made.traffic(rate=200) as traffic:
        yield made, traffic


def claims_nothing_by_retrying(made: World) -> None:
    tally = made.data_plane.status().balancing
    assert (0, 0) == (tally.retries, tally.redispatches)


async def running(made: World, region: Region, ids: list[str]) -> None:
    await until(lambda: all(made.process(region, i) is Process.RUNNING for i in ids))


async def drain(made: World, region: Region, zone: str) -> list[str]:
    """Take a zone out of `steady` as deregistration does, and wait until its last request has ended."""
    ids = region.of(zone)
    region.change("steady", ids, draining=True)
    made.plane.push()
    for id_ in ids:
        await made.saw("member", instance=id_, state="drained")
    region.deregister("steady", ids)
    made.plane.push()
    return ids


async def ramp(made: World, region: Region, ids: list[str], weights: list[int]) -> None:
    region.register("ramp", ids)
    made.plane.push()
    await made.healthy(region, "ramp", ids)
    for weight in weights:
        region.weights = {"steady": 100 - weight, "ramp": weight}
        made.plane.push()
        await asyncio.sleep(0.4)


@pytest.mark.soak  # the right order: the deploys of tests/e2e take it
def test_replacing_an_alb_zone_in_the_right_order_fails_no_request(tmp_path):
    """Deregister, drain, replace, come back through the ramp, join steady, leave the ramp."""

    async def scenario() -> tuple[World, Traffic, str]:
        region = aws(*free_octets(1))
        zone = region.zones[0]
        async with under_traffic(tmp_path, region) as (made, traffic):
            old = await drain(made, region, zone)
            await made.saw("idle", zone=zone)
            region.terminate(old)
            new = region.launch(zone, "v2", 2)
            made.plane.push()
            await running(made, region, new)
            await ramp(made, region, new, [1, 30])
            region.register("steady", new)
            made.plane.push()
            await made.healthy(region, "steady", new)
            region.weights = {"steady": 100, "ramp": 0}
            region.change("ramp", new, draining=True)
            made.plane.push()
            await asyncio.sleep(0.5)
            region.deregister("ramp", new)
            made.plane.push()
            await asyncio.sleep(0.3)
            claims_nothing_by_retrying(made)
        return made, traffic, old[0]

    made, traffic, old = asyncio.run(scenario())
    assert {} == traffic.result.requests.failures
    assert traffic.result.requests.by_version["v2"].ok > 30
    states = [e["state"] for e in made.events("member", pool="steady", instance=old)]
    assert ["draining", "drained", "gone"] == states[-3:]
    assert ["started", "listening", "exited"] == [e["state"] for e in made.events("process", instance=old)]


@pytest.mark.soak  # the right order: the deploys of tests/e2e take it
def test_replacing_a_tcp_zone_in_the_right_order_fails_no_request(tmp_path):
    """Admin Down, wait until no connection is left, reimage, ready, admin None one instance after the other."""

    async def scenario() -> Traffic:
        region = azure(*free_octets(1))
        zone = region.zones[1]
        ids = region.of(zone)
        async with under_traffic(tmp_path, region) as (made, traffic):
            region.change("gates", ids, admin=Admin.DOWN)
            made.plane.push()
            for id_ in ids:
                await made.saw("member", instance=id_, state="drained")
            await made.saw("idle", zone=zone)
            region.reimage(ids, "v2")
            made.plane.push()
            await until(lambda: all(made.events("process", instance=i, version="v2", state="listening") for i in ids))
            await made.healthy(region, "gates", ids)
            for id_ in ids:
                region.change("gates", [id_], admin=Admin.NONE)
                made.plane.push()
                await asyncio.sleep(0.5)
            claims_nothing_by_retrying(made)
        return traffic

    traffic = asyncio.run(scenario())
    assert {} == traffic.result.requests.failures
    assert traffic.result.requests.by_version["v2"].ok > 10


def test_restarting_an_alb_zone_without_a_drain_costs_requests(tmp_path):
    async def scenario() -> Traffic:
        region = aws(*free_octets(1))
        async with under_traffic(tmp_path, region) as (made, traffic):
            ids = region.of(region.zones[0])
            region.reimage(ids, "v2")
            made.plane.push()
            await until(lambda: all(made.events("process", instance=i, version="v2", state="listening") for i in ids))
        return traffic

    assert asyncio.run(scenario()).failed > 5


def test_with_retries_on_the_load_balancer_hides_the_missing_drain_and_its_tally_tells(tmp_path):
    """Why zero is only claimed in strict mode."""

    async def scenario() -> tuple[int, int]:
        region = aws(*free_octets(1))
        async with world(tmp_path, region, strict=False) as made, made.traffic(rate=200) as traffic:
            ids = region.of(region.zones[0])
            region.reimage(ids, "v2")
            made.plane.push()
            await until(lambda: all(made.events("process", instance=i, version="v2", state="listening") for i in ids))
            await asyncio.sleep(0.5)  # the tally is read a few times a second
            tally = made.data_plane.status().balancing
        return traffic.failed, tally.retries + tally.redispatches

    failed, retried = asyncio.run(scenario())
    assert retried > 5
    assert failed < retried


def test_restarting_a_tcp_zone_without_a_drain_costs_requests(tmp_path):
    async def scenario() -> Traffic:
        region = azure(*free_octets(1))
        async with under_traffic(tmp_path, region) as (made, traffic):
            ids = region.of(region.zones[0])
            region.reimage(ids, "v2")
            made.plane.push()
            await until(lambda: all(made.events("process", instance=i, version="v2", state="listening") for i in ids))
        return traffic

    assert asyncio.run(scenario()).failed > 5


def test_terminating_before_deregistration_ends_costs_the_long_requests_in_flight(tmp_path):
    """Nothing new comes in, but the load balancer cuts what is still in flight when its target is gone."""

    async def scenario() -> Traffic:
        region = aws(*free_octets(1))
        async with world(tmp_path, region) as made, made.traffic(rate=100, long_share=0.5, long_ms=800) as traffic:
            await asyncio.sleep(0.7)  # by now about 40 long requests are in flight, a third of them here
            ids = region.of(region.zones[0])
            region.change("steady", ids, draining=True)
            made.plane.push()
            await asyncio.sleep(0.1)
            region.terminate(ids)
            region.deregister("steady", ids)
            made.plane.push()
            await asyncio.sleep(0.5)
        cut = made.events("member", state="drained")
        assert cut, "no drain was cut, so the test did not terminate early"
        assert any(e["cut"] for e in cut)
        return traffic

    assert asyncio.run(scenario()).failed > 5


def test_weight_on_a_pool_whose_instances_are_not_ready_costs_requests(tmp_path):
    """The ramp has members but none is healthy: an ALB fails open and sends users to machines that still boot."""

    async def scenario() -> Traffic:
        region = aws(*free_octets(1))
        zone = region.zones[0]
        async with under_traffic(tmp_path, region) as (made, traffic):
            region.terminate(await drain(made, region, zone))
            new = region.launch(zone, "v2", 2)
            region.register("ramp", new)
            region.weights = {"steady": 70, "ramp": 30}
            made.plane.push()
            await made.healthy(region, "ramp", new)
        return traffic

    assert asyncio.run(scenario()).failed > 5


def end_a_region(folder, wait_s: float) -> Traffic:
    async def scenario() -> Traffic:
        octets = free_octets(2)
        stays, leaves = aws(octets[0]), azure(octets[1])
        async with under_traffic(folder, stays, leaves) as (made, traffic):
            made.plane.region_weights[leaves.id] = 0
            made.plane.push()
            await asyncio.sleep(wait_s)
            leaves.terminate(list(leaves.instances))
            leaves.pools["gates"].clear()
            made.plane.push()
            await asyncio.sleep(1.5)
        return traffic

    return asyncio.run(scenario())


def test_ending_a_region_before_its_dns_answers_expired_costs_requests(tmp_path):
    assert end_a_region(tmp_path, 0.1).failed > 5


@pytest.mark.soak  # the right order: the deploys of tests/e2e take it
def test_ending_a_region_after_its_answers_and_connections_expired_costs_none(tmp_path):
    """Clients keep an answer for its TTL and a connection for 3 s at most; a long request takes 0.3 s more."""
    assert {} == end_a_region(tmp_path, DNS_TTL_S + 4.5).result.requests.failures
