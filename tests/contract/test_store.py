"""What every store promises: SQLite, PostgreSQL and the in-memory fake keep one contract."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from core import proof_facts
from msgspec import structs

from orchestrator.core.errors import Bug, NotFound, Refused, Rejected, StaleCarrier, Transient
from orchestrator.core.machine import Effect, Event, Json, Order
from orchestrator.core.traffic import OUT, STEADY, DesiredTraffic, ramp
from orchestrator.engine import ledger
from orchestrator.engine.ports import EVERY_SERVICE, Advance, Pending, Run, Store
from orchestrator.ports import Peer

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=90)
DRAIN = Effect("drain", "aws/a", {"timeout_s": 30})


def at_once(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def begin(
    store: Store, run: str = "d1", service: str = "gates", kind: str = "deploy", now: datetime = NOW
) -> Run:
    await store.create_run(run, service, kind, {"step": 0}, "active", author="ada", reason="v2", now=now)
    await store.claim(run, "me", now)
    return await store.load(run)


def step(zone: str | None = None, event: Event | None = None, **changes: Any) -> Advance:
    advance = Advance({"step": 1}, "active", zone, False, event or Event("stepped"), None, 0.0)
    return structs.replace(advance, **changes)


@at_once
async def test_a_new_run_is_at_seq_0_with_its_state_author_and_reason(store: Store) -> None:
    state: Json = {"zones": ["aws/a"], "share": 0.5, "none": None}
    run = await store.create_run("d1", "gates", "deploy", state, "active", author="ada", reason="v2", now=NOW)
    assert Run("d1", "gates", "deploy", "active", 0, 0, state, None, None, NOW, NOW, None, "ada", "v2") == run
    assert run == await store.load("d1")
    assert not run.finished


@at_once
async def test_an_unknown_run_is_not_found(store: Store) -> None:
    for asked in (store.load("d9"), store.claim("d9", "me", NOW), store.events("d9"), store.held("d9")):
        with pytest.raises(NotFound, match="d9"):
            await asked
    with pytest.raises(NotFound):
        await store.post_order("d9", "pause", author="ada", reason="", now=NOW)


@at_once
async def test_what_is_not_json_is_not_written(store: Store) -> None:
    with pytest.raises((TypeError, ValueError)):
        await store.create_run("d1", "gates", "deploy", {"x": float("nan")}, "active", author="a", reason="", now=NOW)
    run = await begin(store)
    with pytest.raises(TypeError):
        await store.commit(run, step(state={"x": object()}), NOW)  # type: ignore[dict-item]
    assert 0 == (await store.load("d1")).seq


@at_once
async def test_a_second_unfinished_deploy_is_refused_and_names_the_first(store: Store) -> None:
    run = await begin(store)
    with pytest.raises(Refused, match=r"d1 of gates .*active, by ada since 2030-01-01 12:00:00") as refused:
        await begin(store, "d2")
    assert (refused.value.next_command or "").startswith("failout deployments show d1")
    await begin(store, "d3", service="doors")
    await begin(store, "drill1", kind="drill")
    await store.commit(run, step(finished=True, status="succeeded"), NOW)
    await begin(store, "d4")


@at_once
async def test_a_taken_id_is_rejected(store: Store) -> None:
    await begin(store, kind="drill")
    with pytest.raises(Rejected, match="d1"):
        await begin(store, kind="drill")


@at_once
async def test_a_commit_folds_state_event_and_intent_in_at_once(store: Store) -> None:
    run = await begin(store)
    await store.intend(run, DRAIN, NOW)
    assert DRAIN == (await store.load("d1")).effect
    drained = Event("drained", "aws/a", "nothing in flight", {"seconds": 1.5})
    await store.commit(run, step("aws/a", drained, effect=DRAIN, duration_s=1.5, status="paused"), LATER)
    row = await store.load("d1")
    assert (1, "paused", None, "aws/a", {"step": 1}) == (row.seq, row.status, row.effect, row.zone, row.state)
    assert (NOW, LATER) == (row.created_at, row.updated_at)
    (record,) = await store.events("d1")
    assert ("d1", 1, LATER, DRAIN, drained, 1.5) == (
        record.run, record.seq, record.at, record.effect, record.event, record.duration_s,
    )  # fmt: skip


@at_once
async def test_a_zombie_loses_at_intend_and_at_commit_and_overwrites_nothing(store: Store) -> None:
    old = await begin(store)
    await store.intend(old, DRAIN, NOW)
    assert 2 == await store.claim("d1", "other", NOW)
    with pytest.raises(StaleCarrier, match=r"epoch 2 .*other"):
        await store.intend(old, Effect("upgrade"), LATER)
    with pytest.raises(StaleCarrier):
        await store.commit(old, step("aws/a"), LATER)
    await store.give_up("d1", old.epoch, DRAIN, "my last words", LATER)
    row = await store.load("d1")
    assert (0, {"step": 0}, DRAIN, None) == (row.seq, row.state, row.effect, row.trouble)
    assert [] == list(await store.events("d1"))
    assert [] == list(await store.leases("gates"))


@at_once
async def test_a_run_that_has_ended_is_not_claimed_anew_by_a_carrier_that_comes_late(store: Store) -> None:
    await store.commit(await begin(store), step(finished=True, status="succeeded"), NOW)
    ended = await store.load("d1")
    assert 1 == await store.claim("d1", "late", LATER)
    assert ended == await store.load("d1")


@at_once
async def test_one_seq_is_committed_once(store: Store) -> None:
    run = await begin(store)
    await store.commit(run, step(), NOW)
    with pytest.raises(StaleCarrier):
        await store.commit(run, step(state={"step": 99}), NOW)
    assert {"step": 1} == (await store.load("d1")).state


@at_once
async def test_of_two_that_commit_at_the_same_moment_one_wins(make) -> None:
    first, second = make(), make()
    run = await begin(first)
    results = await asyncio.gather(
        first.commit(run, step(status="a"), NOW), second.commit(run, step(status="b"), NOW), return_exceptions=True
    )
    assert 1 == sum(isinstance(result, StaleCarrier) for result in results)
    assert 1 == sum(result is None for result in results)
    assert 1 == len(await first.events("d1"))


@at_once
async def test_a_zone_is_out_for_one_run_at_a_time(store: Store) -> None:
    deploy, drill = await begin(store), await begin(store, "drill1", kind="drill")
    await store.commit(deploy, step("aws/a"), NOW)
    with pytest.raises(Refused, match="d1 has aws/a of gates out since 2030-01-01 12:00:00") as refused:
        await store.commit(drill, step("azure/1"), LATER)
    assert ("I1", "azure/1") == (refused.value.rule, refused.value.zone)
    assert "failout report show d1" == refused.value.next_command
    assert 0 == (await store.load("drill1")).seq, "a refused commit changes nothing"
    assert [] == list(await store.events("drill1"))
    await store.commit(await store.load("d1"), step(None), LATER)
    await store.commit(drill, step("azure/1"), LATER)
    assert ["drill1"] == [lease.run for lease in await store.leases("gates")]


@at_once
async def test_a_lease_says_when_it_has_been_held_for_too_long(make) -> None:
    store = make(out_expires_s=90.0)
    await store.commit(await begin(store), step("aws/a"), NOW)
    assert [LATER] == [lease.expires_at for lease in await store.leases("gates")]
    await store.commit(await store.load("d1"), step("aws/a"), LATER)
    assert LATER == (await store.held("d1")).lease.expires_at, "it grows no older by being kept"
    await store.commit(await store.load("d1"), step(), LATER)
    await store.commit(await store.load("d1"), step("aws/a"), LATER)
    assert [LATER + timedelta(seconds=90)] == [lease.expires_at for lease in await store.leases("gates")]


@at_once
async def test_services_do_not_share_a_lease(store: Store) -> None:
    await store.commit(await begin(store), step("aws/a"), NOW)
    await store.commit(await begin(store, "d2", service="doors"), step("aws/a"), NOW)
    assert ["d1"] == [lease.run for lease in await store.leases("gates")]


@at_once
async def test_the_fence_grows_with_every_lease_and_stays_while_it_is_kept(store: Store) -> None:
    fences = []
    await begin(store)
    for zone in ("aws/a", "aws/a", None, "aws/a", "aws/b", None):
        await store.commit(await store.load("d1"), step(zone), NOW)
        lease = (await store.held("d1")).lease
        fences.append(lease.fence if lease else None)
    assert [1, 1, None, 2, 3, None] == fences


@at_once
async def test_a_finished_run_holds_no_lease(store: Store) -> None:
    run = await begin(store)
    await store.commit(run, step("aws/a"), NOW)
    await store.commit(await store.load("d1"), step(None, finished=True, status="succeeded"), LATER)
    row = await store.load("d1")
    assert (True, LATER, "succeeded", None) == (row.finished, row.finished_at, row.status, row.zone)
    assert [] == list(await store.leases("gates"))


@at_once
async def test_two_slots_let_two_different_zones_out_and_no_third(make) -> None:
    store = make(max_zones_out=2)
    await store.commit(await begin(store), step("aws/a"), NOW)
    drill = await begin(store, "drill1", kind="drill")
    with pytest.raises(Refused, match="d1 has aws/a"):
        await store.commit(drill, step("aws/a"), NOW)
    await store.commit(drill, step("aws/b"), NOW)
    third = await begin(store, "drill2", kind="drill")
    with pytest.raises(Refused):
        await store.commit(third, step("aws/c"), NOW)
    assert [(0, "d1", 1), (1, "drill1", 2)] == [(x.slot, x.run, x.fence) for x in await store.leases("gates")]


@at_once
async def test_fewer_slots_than_held_leases_let_nobody_else_out(make) -> None:
    wide = make(max_zones_out=2)
    await wide.commit(await begin(wide), step("aws/a"), NOW)
    await wide.commit(await begin(wide, "drill1", kind="drill"), step("aws/b"), NOW)
    narrow = make(max_zones_out=1)
    await narrow.commit(await narrow.load("d1"), step(None), NOW)
    with pytest.raises(Refused, match="drill1 has aws/b"):
        await narrow.commit(await narrow.load("d1"), step("aws/a"), NOW)


@at_once
async def test_of_two_that_take_the_lease_at_the_same_moment_one_is_refused(make) -> None:
    first, second = make(), make()
    one, two = await begin(first), await begin(second, "drill1", kind="drill")
    results = await asyncio.gather(
        first.commit(one, step("aws/a"), NOW), second.commit(two, step("aws/b"), NOW), return_exceptions=True
    )
    assert 1 == sum(isinstance(result, Refused) for result in results), results
    assert 1 == len(await first.leases("gates"))


@at_once
async def test_orders_wait_oldest_first_until_an_event_consumes_them(store: Store) -> None:
    run = await begin(store)
    first = await store.post_order("d1", "pause", author="bob", reason="lunch", now=NOW)
    second = await store.post_order("d1", "retarget", author="bob", reason="", now=LATER, args={"to": "v3"})
    assert (
        Order(first, "pause", "bob", "lunch", NOW),
        Order(second, "retarget", "bob", "", LATER, {"to": "v3"}),
    ) == (await store.pending("d1")).orders
    await store.commit(run, step(event=Event("pause", order=first)), NOW)
    assert [second] == [order.id for order in (await store.pending("d1")).orders]


@at_once
async def test_an_order_is_consumed_once_and_only_by_its_own_run(store: Store) -> None:
    run = await begin(store)
    await begin(store, "drill1", kind="drill")
    order = await store.post_order("drill1", "pause", author="bob", reason="", now=NOW)
    with pytest.raises(Bug):
        await store.commit(run, step(event=Event("pause", order=order)), NOW)
    await store.commit(await store.load("drill1"), step(event=Event("pause", order=order)), NOW)
    with pytest.raises(Bug):
        await store.commit(await store.load("drill1"), step(event=Event("pause", order=order)), NOW)
    assert (0, 1) == ((await store.load("d1")).seq, (await store.load("drill1")).seq)


@at_once
async def test_a_finished_run_takes_no_orders(store: Store) -> None:
    await store.commit(await begin(store), step(finished=True, status="aborted"), NOW)
    with pytest.raises(Rejected, match=r"d1 has finished \(aborted\)"):
        await store.post_order("d1", "pause", author="bob", reason="", now=NOW)


@at_once
async def test_switches_reach_their_service_and_the_star_reaches_all(store: Store) -> None:
    await begin(store)
    await begin(store, "x", service="doors")
    assert Pending((), frozen=False, killed=False) == await store.pending("d1")
    await store.set_switch("gates", "freeze", on=True, author="ada", reason="exams", now=NOW)
    await store.set_switch(EVERY_SERVICE, "kill", on=True, author="ada", reason="storm", now=NOW)
    assert Pending((), frozen=True, killed=True) == await store.pending("d1")
    assert Pending((), frozen=False, killed=True) == await store.pending("x")
    await store.set_switch(EVERY_SERVICE, "kill", on=False, author="bob", reason="over", now=LATER)
    assert Pending((), frozen=True, killed=False) == await store.pending("d1")
    told = [(s.service, s.name, s.on, s.author, s.reason, s.at) for s in await store.switches()]
    assert [("*", "kill", False, "bob", "over", LATER), ("gates", "freeze", True, "ada", "exams", NOW)] == told


@at_once
async def test_traffic_is_written_by_whoever_read_it_last(store: Store) -> None:
    assert await store.load_traffic("gates") is None
    first = DesiredTraffic(1, 0, {"aws/a": OUT, "aws/b": STEADY, "azure/1": ramp(0.1)}, {"aws/us": 100})
    await store.save_traffic("gates", first, 0)
    assert first == await store.load_traffic("gates")
    await store.commit(await begin(store), step("aws/a"), NOW)
    second = first.with_zone("aws/a", STEADY, 1)
    await store.save_traffic("gates", second, 1)
    with pytest.raises(Transient, match="at version 2, not 1"):
        await store.save_traffic("gates", first.with_zone("aws/b", OUT, 1), 1)
    with pytest.raises(Bug):
        await store.save_traffic("gates", second, 2)
    assert second == await store.load_traffic("gates")


@at_once
async def test_traffic_is_not_changed_without_a_lease_that_is_held_now(make) -> None:
    store = make(max_zones_out=2)
    first = DesiredTraffic(1, 0, {"aws/a": STEADY})
    await store.save_traffic("gates", first, 0)
    await store.commit(await begin(store), step("aws/a"), NOW)
    await store.commit(await begin(store, "drill1", kind="drill"), step("aws/b"), NOW)
    await store.save_traffic("gates", first.with_zone("aws/b", OUT, 2), 1)
    out = DesiredTraffic(3, 1, {"aws/a": OUT, "aws/b": OUT})
    await store.save_traffic("gates", out, 2)  # An older lease that is still held is as good as a newer one.
    await store.commit(await store.load("d1"), step(None), NOW)
    for fence in (1, 0, 3):
        with pytest.raises(StaleCarrier, match=f"fence {fence}"):
            await store.save_traffic("gates", out.with_zone("aws/a", ramp(0.5), fence), 3)
    assert out == await store.load_traffic("gates")


@at_once
async def test_a_carrier_that_gives_up_leaves_its_reason_until_the_next_commit(store: Store) -> None:
    run = await begin(store)
    await store.intend(run, DRAIN, NOW)
    await store.give_up("d1", run.epoch, DRAIN, "ZeroDivisionError()", LATER)
    row = await store.load("d1")
    assert ("ZeroDivisionError()", 0, DRAIN) == (row.trouble, row.seq, row.effect)
    (record,) = await store.events("d1")
    assert (None, DRAIN, "carrier-gave-up") == (record.seq, record.effect, record.event.kind)
    await store.commit(run, step(), LATER)
    assert (None, 1) == ((await store.load("d1")).trouble, (await store.load("d1")).seq)


@at_once
async def test_runs_are_listed_newest_first(store: Store) -> None:
    for number in range(3):
        await begin(store, f"r{number}", kind="drill", now=NOW + timedelta(microseconds=number))
    await begin(store, "other", service="doors")
    assert ["r2", "r1"] == [run.id for run in await store.runs("gates", limit=2)]
    assert 4 == len(await store.runs())


@at_once
async def test_i8_what_is_unfinished_is_found_however_many_runs_came_after_it(store: Store) -> None:
    """Refused drills of a schedule are runs: after 50 of them a held deploy was not found, after 500 no zone that is out."""
    await begin(store, "held")
    await begin(store, "other", service="doors")
    for number in range(60):
        now = NOW + timedelta(minutes=1 + number)
        await begin(store, f"r{number}", kind="drill", now=now)
        await store.commit(await store.load(f"r{number}"), step(finished=True), now)
    await begin(store, "newest", kind="drill", now=NOW + timedelta(hours=2))
    assert ["held", "newest"] == [run.id for run in await store.unfinished("gates")]
    assert {"held", "newest", "other"} == {run.id for run in await store.unfinished()}
    assert "held" not in {run.id for run in await store.runs("gates")}


@at_once
async def test_an_effect_usually_takes_what_three_of_four_took_over_its_usual_outcome(store: Store) -> None:
    await begin(store)
    durations = [(4.0, "drained"), (1.0, "drained"), (900.0, "interrupted"), (2.0, "drained"), (3.0, "drained")]
    for seconds, kind in durations:
        await store.commit(await store.load("d1"), step(event=Event(kind), effect=DRAIN, duration_s=seconds), NOW)
    await store.commit(await store.load("d1"), step(event=Event("paused")), NOW)
    await store.give_up("d1", 1, DRAIN, "boom", NOW)
    usual = await store.usual("gates")
    assert {"drain": (4, 3.0)} == {kind: (found.count, found.p75_s) for kind, found in usual.items()}
    assert {} == await store.usual("doors")


@at_once
async def test_the_audit_log_is_a_chain_that_shows_what_was_changed(store: Store) -> None:
    for number in range(3):
        await store.append_audit("ada", "freeze", f"reason {number}", "done", NOW + timedelta(seconds=number))
    entries = list(await store.audit())
    assert [1, 2, 3] == [entry.id for entry in entries]
    assert ledger.GENESIS == entries[0].prev_hash
    assert entries[1].hash == entries[2].prev_hash
    assert ledger.verify(entries) is None
    told = ledger.verify([entries[0], replace(entries[1], reason="harmless"), entries[2]])
    assert told is not None
    assert "entry 2" in told
    assert "entry 3" in (ledger.verify([entries[0], entries[2]]) or "")


@at_once
async def test_audit_entries_written_at_the_same_moment_still_make_one_chain(make) -> None:
    stores = [make(), make(), make()]
    await asyncio.gather(*(s.append_audit("ada", "act", "", "done", NOW) for s in stores for _ in range(4)))
    assert ledger.verify(await stores[0].audit()) is None
    assert 12 == len(await stores[0].audit())


# ---- what was measured, and what it proved


@at_once
async def test_samples_come_back_in_order_of_time_within_the_bounds_and_no_second_twice(store: Store) -> None:
    await store.add_samples("gates", proof_facts.steady(range(5, 10)))
    await store.add_samples("gates", proof_facts.steady(range(5)))
    await store.add_samples(
        "gates", [replace(s, at=s.at + timedelta(seconds=0.3)) for s in proof_facts.steady(range(10))]
    )
    await store.add_samples("doors", proof_facts.steady(range(3)))
    assert proof_facts.steady(range(2, 6)) == list(
        await store.samples("gates", proof_facts.at(2.4), proof_facts.at(6.2))
    )
    await store.forget_samples("gates", proof_facts.at(9))
    assert proof_facts.at(9) == (await store.samples("gates", NOW, NOW + timedelta(days=1)))[0].at
    assert 3 == len(await store.samples("doors", NOW, NOW + timedelta(days=1)))


@at_once
async def test_a_proof_is_written_over_the_one_of_the_same_id_and_the_newest_comes_first(store: Store) -> None:
    old, new = proof_facts.proof(days_ago=2), proof_facts.proof("aws/b", days_ago=1)
    await store.put_proofs([old])
    await store.put_proofs([new, replace(old, evidence="it came back after all")])
    await store.put_proofs([proof_facts.proof(service="doors", id="other")])
    assert [new, replace(old, evidence="it came back after all")] == list(await store.proofs("gates"))
    assert [new] == list(await store.proofs("gates", 1))


@at_once
async def test_the_peak_of_a_day_only_grows_and_old_days_can_be_left_out(store: Store) -> None:
    assert await store.peak_rps("gates", NOW) is None
    for rps, days in ((300.0, 0), (200.0, 0), (900.0, -5)):
        await store.note_peak("gates", rps, NOW + timedelta(days=days))
    assert (300.0, 900.0) == (
        await store.peak_rps("gates", NOW),
        await store.peak_rps("gates", NOW - timedelta(days=5)),
    )
    assert await store.peak_rps("doors", NOW - timedelta(days=5)) is None


@at_once
async def test_i1_a_dead_zone_gets_a_lease_beyond_the_slots_and_nobody_else_does(store: Store) -> None:
    first, second, third = [await begin(store, run, kind="outing") for run in ("o1", "o2", "o3")]
    await store.commit(first, step("aws/a"), NOW)
    with pytest.raises(Refused, match="aws/a of gates out"):
        await store.commit(second, step("aws/b"), NOW)
    await store.commit(second, step("aws/b", extra=True), NOW)
    assert [(0, "aws/a", 1), (1, "aws/b", 2)] == [(x.slot, x.zone, x.fence) for x in await store.leases("gates")]
    with pytest.raises(Refused, match="aws/b"):
        await store.commit(third, step("aws/b", extra=True), NOW)
    await store.commit(await store.load("o1"), step(None, finished=True), NOW)
    with pytest.raises(Refused, match="aws/b"):
        await store.commit(third, step("aws/c"), NOW)  # One zone still is out, in whatever slot.


@at_once
async def test_i1_a_region_gets_a_lease_beside_zones_within_it_and_beside_no_others(store: Store) -> None:
    inner, region = await begin(store, "o1", kind="outing"), await begin(store, "r1", kind="region")
    await store.commit(inner, step("aws/r/a"), NOW)
    with pytest.raises(Refused, match="aws/r/a of gates out"):
        await store.commit(region, step("aws/r", extra=("aws/r/b",)), NOW)
    await store.commit(region, step("aws/r", extra=("aws/r/a",)), NOW)
    assert [(0, "aws/r/a"), (1, "aws/r")] == [(x.slot, x.zone) for x in await store.leases("gates")]


@at_once
async def test_i10_where_the_instances_of_a_zone_are_is_remembered_per_service(store: Store) -> None:
    assert [] == list(await store.peers("gates", "aws/a"))
    for peers in ([Peer("i-1", "10.0.0.1")], [Peer("i-2", "10.0.0.2"), Peer("i-3", "10.0.0.3:8080")]):
        await store.save_peers("gates", "aws/a", peers)
        assert peers == list(await store.peers("gates", "aws/a"))
    assert [] == list(await store.peers("doors", "aws/a"))


@at_once
async def test_where_to_ask_after_a_long_running_operation_is_remembered_until_it_is_forgotten(store: Store) -> None:
    assert None is await store.operation("gates", "azure/a upgrade")
    for token in ("https://first", "https://second"):
        await store.keep_operation("gates", "azure/a upgrade", token)
        assert token == await store.operation("gates", "azure/a upgrade")
    assert None is await store.operation("doors", "azure/a upgrade")
    await store.keep_operation("gates", "azure/a upgrade", None)
    assert None is await store.operation("gates", "azure/a upgrade")
