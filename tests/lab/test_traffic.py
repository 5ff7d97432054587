"""The generator counts every request once, whatever the far side does to it."""

from __future__ import annotations

import asyncio
import stat
import time
from itertools import pairwise

import pytest
from traffic_world import Service, ok_answer, world

from orchestrator.core.errors import Rejected
from orchestrator.lab.traffic.record import read, recount

A, B = "127.77.0.10", "127.77.0.11"


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


async def resets(writer, _):
    writer.transport.abort()
    return False


async def closes_half_way(writer, _):
    writer.write(ok_answer("aws/a")[:-5])
    return False


async def hangs(writer, _):
    await asyncio.sleep(5)
    return False


async def answers_late(writer, _):
    await asyncio.sleep(1.2)
    writer.write(ok_answer("aws/a"))
    return True


async def is_overloaded(writer, _):
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nX-Zone: aws/a\r\nContent-Length: 2\r\n\r\nno")
    return True


async def is_overloaded_without_length(writer, _):
    writer.write(b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\nno")
    return False


async def states_another_zone(writer, _):
    writer.write(ok_answer("aws/a", body=b'{"zone": "aws/b", "instance": "i-1", "version": "v1"}'))
    return True


async def talks_garbage(writer, _):
    writer.write(b"220 ready for mail\r\n\r\n")
    return True


@pytest.mark.parametrize(
    ("outcome", "behave"),
    [
        ("reset", resets),
        ("reset", closes_half_way),
        ("timeout", hangs),
        ("timeout", answers_late),
        ("status-503", is_overloaded),
        ("status-503", is_overloaded_without_length),
        ("wrong-body", states_another_zone),
        ("wrong-body", talks_garbage),
    ],
)
def test_a_request_that_gets_no_correct_answer_in_time_has_failed_and_the_log_says_why(tmp_path, outcome, behave):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a", behave))
            counts = (await w.generate(seconds=0.5)).requests
            assert (counts.sent, counts.ok, counts.failed) == (50, 0, 50)
            assert {outcome: 50} == counts.failures
            assert {outcome: 50} == recount(read(w.log)).failures

    run(scenario())


def test_nobody_listening_is_refused(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            assert (await w.generate(seconds=0.5)).requests.failures == {"refused": 50}

    run(scenario())


def test_a_silent_or_empty_dns_server_is_told_from_a_dead_service(tmp_path):
    async def scenario():
        async with world(tmp_path) as w:
            assert (await w.generate(seconds=0.5)).requests.failures == {"dns": 50}
            w.log = tmp_path / "silent.csv"
            w.dns.silent = True
            assert (await w.generate(seconds=0.5)).requests.failures == {"dns": 50}

    run(scenario())


def test_requests_beyond_the_sockets_that_may_be_open_are_unsent_and_failed(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a", hangs))
            counts = (await w.generate(seconds=0.5, sockets=20)).requests
            assert counts.failures == {"timeout": 20, "unsent": 30}

    run(scenario())


def test_a_generator_that_was_held_up_counts_what_it_did_not_send_as_failed(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a"))
            asyncio.get_running_loop().call_later(0.2, block_the_loop)
            counts = (await w.generate(seconds=2)).requests
            assert counts.sent == 200
            assert set(counts.failures) <= {"unsent", "timeout"}
            assert 20 <= counts.failures["unsent"] <= 80

    run(scenario())


def block_the_loop() -> None:
    time.sleep(1.5)


def test_of_many_troubles_at_once_no_request_gets_lost(tmp_path):
    troubles = [resets, closes_half_way, is_overloaded, states_another_zone, hangs]

    async def any_of_them(writer, number):
        if number % 7 < len(troubles):
            return await troubles[number % 7](writer, number)
        writer.write(ok_answer("aws/a", close=number % 2 == 0))
        return number % 2 == 1

    async def scenario():
        async with world(tmp_path, A, B) as w:
            await w.serve(A, Service("aws/a", any_of_them))  # and nobody listens on B
            counts = (await w.generate(rate=400, seconds=1.5)).requests
            assert 600 == counts.sent == counts.ok + counts.failed
            assert counts.ok > 0
            assert {"refused", "reset", "status-503", "timeout", "wrong-body"} == set(counts.failures)

    run(scenario())


def test_the_recount_of_the_raw_log_equals_the_summary(tmp_path):
    async def sometimes_fails(writer, number):
        if number % 10 == 0:
            return await is_overloaded(writer, number)
        writer.write(ok_answer("aws/a"))
        return True

    async def scenario():
        async with world(tmp_path, A, B) as w:
            await w.serve(A, Service("aws/a", sometimes_fails))
            await w.serve(B, Service("azure/b"))
            said = (await w.generate(rate=300)).requests
            again = recount(read(w.log))
            assert (said.sent, said.ok, said.failed, said.failures) == (300, again.ok, again.failed, again.failures)
            for ours, theirs in ((said.by_zone, again.by_zone), (said.by_version, again.by_version)):
                assert {k: (s.ok, s.failed) for k, s in theirs.items()} == {
                    k: (s.ok, s.failed) for k, s in ours.items()
                }
            assert {"aws/a", "azure/b"} == set(again.by_zone)
            assert again.p99_ms == pytest.approx(said.p99_ms, rel=0.002)
            assert again.by_zone["aws/a"].p50_ms == pytest.approx(said.by_zone["aws/a"].p50_ms, rel=0.002)
            assert stat.S_IMODE(w.log.stat().st_mode) == 0o600

    run(scenario())


def test_the_rate_is_kept_and_latency_counts_from_the_moment_a_request_was_due(tmp_path):
    async def takes_50_ms(writer, _):
        await asyncio.sleep(0.05)
        writer.write(ok_answer("aws/a"))
        return True

    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a", takes_50_ms))
            await w.generate(rate=200)
            rows = sorted(read(w.log))
            assert [pytest.approx(0.005, abs=1e-5)] * 199 == [b.t - a.t for a, b in pairwise(rows)]
            assert all(row.latency_ms >= 50 for row in rows)

    run(scenario())


def test_fresh_requests_use_a_connection_of_their_own_and_kept_ones_are_reused(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            service = Service("aws/a")
            await w.serve(A, service)
            await w.generate(clients=1, fresh_share=0.5)
            fresh = sum("Connection: close" in head for head in service.heads)
            assert fresh == sum(row.connection == "fresh" for row in read(w.log))
            assert 30 <= fresh <= 70
            assert fresh + 1 <= service.connections <= fresh + 5

    run(scenario())


def test_a_connection_that_the_far_side_closes_or_announces_to_close_is_not_used_again(tmp_path):
    async def closes_quietly(writer, number):
        writer.write(ok_answer("aws/a", close=number % 2 == 0))
        return False

    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a", closes_quietly))
            counts = (await w.generate(clients=1, fresh_share=0, rate=50)).requests
            assert (counts.ok, counts.failures) == (50, {})

    run(scenario())


def test_a_kept_connection_is_given_up_when_idle_so_that_a_drain_ends(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            service = Service("aws/a")
            await w.serve(A, service)
            began = time.monotonic()
            quiet = asyncio.create_task(w.generate(rate=0.1, seconds=None, fresh_share=0))
            await service.unused.wait()
            assert time.monotonic() - began == pytest.approx(2, abs=0.5)
            assert service.requests == 1
            w.stop.set()
            assert (await quiet).requests.ok == 1

    run(scenario())


def test_a_kept_connection_that_is_always_busy_is_given_up_after_3_s_so_that_traffic_follows_the_balancer(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            service = Service("aws/a")
            await w.serve(A, service)
            began = time.monotonic()
            busy = asyncio.create_task(w.generate(rate=20, seconds=None, clients=1, fresh_share=0))
            await service.unused.wait()
            assert time.monotonic() - began == pytest.approx(3, abs=0.5)
            w.stop.set()
            assert (await busy).requests.failures == {}

    run(scenario())


def test_a_client_goes_on_to_the_old_address_until_its_ttl_has_passed_and_not_longer(tmp_path):
    async def scenario():
        async with world(tmp_path, A, ttl_s=2) as w:
            await w.serve(A, Service("aws/a"))
            await w.serve(B, Service("aws/b"))
            going = asyncio.create_task(w.generate(rate=200, seconds=4.5, clients=20, fresh_share=1))
            await asyncio.sleep(1)
            w.dns.addresses = [B]
            assert (await going).requests.failed == 0
            rows = sorted(read(w.log))
            changed = rows[0].t + 1
            after = [row for row in rows if row.t > changed + 0.1]
            assert {"aws/a", "aws/b"} == {row.zone for row in after}
            tail_s = max(row.t for row in rows if row.zone == "aws/a") - changed
            assert 1 < tail_s < 2.1
            moved = {row.client: row.t for row in reversed(rows) if row.zone == "aws/b"}
            assert max(moved.values()) - min(moved.values()) > 0.5  # caches expire at different times

    run(scenario())


def test_a_dns_server_that_dies_is_felt_only_when_caches_expire(tmp_path):
    async def scenario():
        async with world(tmp_path, A, ttl_s=60) as w:
            await w.serve(A, Service("aws/a"))
            going = asyncio.create_task(w.generate(seconds=1.5, fresh_share=1))
            await asyncio.sleep(0.5)
            w.dns.silent = True
            summary = await going
            assert summary.requests.failures.get("dns", 0) <= 10  # of a cache whose first answer was nearly 60 s old
            assert summary.requests.ok >= 140

    run(scenario())


def test_progress_tells_each_second_what_zones_served(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            await w.serve(A, Service("aws/a"))
            await w.generate(seconds=2.2)
            assert len(w.pages) == 2
            page = w.pages[-1]
            assert page["sent"] == page["ok"] + page["failed"] + page["open"]
            assert page["last"]["by_zone"]["aws/a"]["ok"] == page["by_zone"]["aws/a"]["ok"] == page["ok"]
            assert 0 < page["last"]["p50_ms"] <= page["last"]["p99_ms"]

    run(scenario())


def test_a_log_that_exists_is_never_mixed_with_another_run(tmp_path):
    async def scenario():
        async with world(tmp_path, A) as w:
            w.log.write_text("precious")
            with pytest.raises(Rejected, match="exists"):
                await w.generate()
            assert w.log.read_text() == "precious"

    run(scenario())
