"""What a person says to the run that moves a region, and what the run makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from runbooks.places import TOPOLOGY

from orchestrator.core.deploy import begin as begin_deploy
from orchestrator.core.deploy_row import dump as dump_deploy
from orchestrator.core.errors import IllegalTransition, NotFound, Refused
from orchestrator.core.machine import Event, Facts, Json, Order
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import FINISHED, HELD, TRANSITIONS, M, Phase, RegionState, apply, begin, decide
from orchestrator.core.region_row import RegionMachine, dump, parse
from orchestrator.engine.ledger import slot_for
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Advance, Lease, Run
from orchestrator.operations.regions import order_return, start_evacuation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AWS, AZURE = "aws/us-east-1", "azure/eastus"


def at(phase: Phase) -> RegionState:
    return replace(begin("region-1", "gates", (AZURE,), DeployPolicy(), (), NOW), phase=phase)


def told(state: RegionState, kind: str, now: datetime = NOW, **args: Json) -> RegionState:
    order = Order(1, kind, "ada", "because", now, args)
    event = decide(state, Facts(now, (order,)))
    assert isinstance(event, Event)
    return apply(state, event, now)


async def stands(store: MemoryStore, state: RegionState) -> Run:
    """A region's run whose row says that."""
    row, status = dump(state), RegionMachine().status(state)
    return await store.create_run(state.run, "gates", "region", row, status, author="ada", reason="r", now=NOW)


async def evacuate(store: MemoryStore, region: str = AZURE, overrides: Sequence[str] = ()) -> Run:
    who = {"run": "region-9", "author": "ada", "reason": "r"}
    return await start_evacuation(store, TOPOLOGY, DeployPolicy(), [region], **who, now=NOW, overrides=overrides)


def test_a_region_that_was_held_before_it_was_admitted_asks_anew_when_it_is_evacuated_again() -> None:
    """The audit log said that it was told; it said that this makes no sense."""
    later = NOW + timedelta(hours=1)
    after = told(at(Phase.HELD_ASKING), "evacuate", later, behind=True)
    assert (Phase.ASKING, later, DeployPolicy().upgrade_timeout_s) == (after.phase, after.since, after.admit_timeout_s)
    assert after == parse(dump(after))


def test_a_region_that_was_held_on_its_way_out_goes_on_when_it_is_evacuated_again_and_is_no_newer_for_it() -> None:
    after = told(at(Phase.HELD_LEAVING), "evacuate", NOW + timedelta(hours=1))
    assert (Phase.LEAVING, NOW, False) == (after.phase, after.since, after.unasked)


def test_i11_a_crash_before_others_were_told_to_make_way_is_made_good_by_asking_again() -> None:
    async def asked() -> list[str]:
        store = MemoryStore()
        await stands(store, at(Phase.ASKING))
        state = begin_deploy("gates", "v2", {f"{AWS}a": "v1"}, (f"{AWS}a",), DeployPolicy(), NOW)
        row = dump_deploy(state)
        await store.create_run("deploy-1", "gates", "deploy", row, "active", author="eve", reason="v2", now=NOW)
        assert "region-1" == (await evacuate(store)).id
        return [order.kind for order in (await store.pending("deploy-1")).orders]

    assert ["suspend"] == asyncio.run(asked())


def test_i1_the_lease_is_asked_for_as_long_as_an_admission_lasts_and_then_a_person_is_told() -> None:
    refused = Event("refused", evidence="run outing-1 has azure/eastus-1 out", args={"rule": "I1"})
    with pytest.raises(IllegalTransition):
        apply(at(Phase.ASKING), refused, NOW + timedelta(seconds=119))
    after = apply(at(Phase.ASKING), refused, NOW + timedelta(seconds=120))
    assert (Phase.ASKING, refused.evidence) == (after.phase, after.contested)
    assert after == parse(dump(after))
    held = apply(after, Event("refused", evidence="refused by I1"), NOW)
    assert (Phase.HELD_ASKING, "") == (held.phase, held.contested)


def test_i1_the_lease_goes_beyond_its_slots_beside_zones_within_and_no_others() -> None:
    state = replace(at(Phase.ASKING), inside=(f"{AZURE}-1",))
    extra = RegionMachine().extra_slot(state)

    def lease(zone: str, slot: int) -> Lease:
        return Lease("gates", slot, zone, f"outing-{slot}", slot, NOW)

    assert 1 == slot_for("region-1", "gates", AZURE, [lease(f"{AZURE}-1", 0)], 1, extra)
    with pytest.raises(Refused, match="has aws/us-east-1a of gates out"):
        slot_for("region-1", "gates", AZURE, [lease(f"{AZURE}-1", 0), lease(f"{AWS}a", 1)], 1, extra)


def test_i1_what_a_person_has_out_within_stands_in_nobodys_way_and_what_a_deploy_has_comes_back_first() -> None:
    async def inside(kind: str, row: Json) -> tuple[str, ...]:
        store = MemoryStore()
        zone = f"{AZURE}-1"
        held = await store.create_run("run-1", "gates", kind, row, "active", author="eve", reason="r", now=NOW)
        await store.claim("run-1", "carrier", NOW)
        held = await store.load("run-1")
        await store.commit(held, Advance(row, "out", zone, False, Event("evacuated"), None, 0.0), NOW)
        return parse((await evacuate(store)).state).inside

    assert (f"{AZURE}-1",) == asyncio.run(inside("outing", {"ask": {"asker": "person"}}))
    assert () == asyncio.run(inside("outing", {"ask": {"asker": "drill"}}))
    assert () == asyncio.run(inside("deploy", {}))


@pytest.mark.parametrize("phase", [*Phase])
def test_i14_a_freeze_calls_a_drill_off_that_has_not_left_and_stops_no_person(phase: Phase) -> None:
    person, drill = at(phase), replace(at(phase), asker="drill")
    assert decide(person, Facts(NOW)) == decide(person, Facts(NOW, frozen=True))
    chosen = decide(drill, Facts(NOW, frozen=True))
    if phase in {Phase.ASKING, Phase.PREPARING}:
        assert isinstance(chosen, Event)
        after = apply(drill, chosen, NOW)
        wanted = (Phase.CALLED_OFF, False) if phase is Phase.ASKING else (Phase.SETTLING, True)
        assert (*wanted, True) == (after.phase, after.calling_off, "I14" in after.reason)
    else:
        assert decide(drill, Facts(NOW)) == chosen


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in FINISHED])
def test_i13_a_region_that_is_paused_stays_where_it_is_and_goes_on_from_there(phase: Phase) -> None:
    """`failout state restore` said that it was paused; the order was refused, and it left on what had been known before."""
    machine, before, later = RegionMachine(), at(phase), NOW + timedelta(hours=1)
    paused = told(before, "pause")
    assert ("paused", phase) == (machine.status(paused), paused.phase)
    assert (phase is Phase.OUT) is (decide(paused, Facts(NOW)) is not None)
    assert paused == parse(dump(paused))
    after = told(paused, "resume", later)
    if phase in HELD:
        assert (False, TRANSITIONS[phase][M.RESUME]) == (after.paused, after.phase)
    else:
        assert (False, phase, decide(before, Facts(NOW))) == (after.paused, after.phase, decide(after, Facts(later)))
        assert (later if phase is Phase.ASKING else NOW) == after.since


@pytest.mark.parametrize("kind", ["evacuate", "return"])
@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in FINISHED])
def test_i13_pause_is_not_ignore(phase: Phase, kind: str) -> None:
    """What a person says to a region that is paused is done: it is paused no longer."""

    async def ordered() -> RegionState:
        store = MemoryStore()
        await stands(store, told(at(phase), "pause"))
        if kind == "evacuate":
            await evacuate(store)
        else:
            await order_return(store, TOPOLOGY, [AZURE], author="ada", reason="r", now=NOW)
        state, orders = parse((await store.load("region-1")).state), (await store.pending("region-1")).orders
        chosen = decide(state, Facts(NOW, orders))
        assert isinstance(chosen, Event)
        return apply(state, chosen, NOW)

    assert not asyncio.run(ordered()).paused


def test_a_row_of_before_a_region_could_be_paused_is_read() -> None:
    state = at(Phase.LEAVING)
    row = dump(state)
    assert isinstance(row, dict)
    assert state == parse({k: v for k, v in row.items() if k not in {"paused", "behind", "inside", "contested"}})


def orders_of(state: RegionState, overrides: Sequence[str]) -> tuple[Order, ...]:
    """What a person's second evacuation posts for the run."""

    async def posted() -> tuple[Order, ...]:
        store = MemoryStore()
        await stands(store, state)
        await evacuate(store, overrides=overrides)
        return (await store.pending("region-1")).orders

    return asyncio.run(posted())


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in FINISHED])
def test_i4_an_override_that_is_given_the_second_time_is_one(phase: Phase) -> None:
    """It stood in the audit log, and the run never heard of it."""
    before = replace(at(phase), overrides=("I2",))
    chosen = decide(before, Facts(NOW, orders_of(before, ("I1", "I3"))))
    assert isinstance(chosen, Event)
    after = apply(before, chosen, NOW)
    assert (("I1", "I2", "I3"), True) == (after.overrides, RegionMachine().extra_slot(after))


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("phase", sorted(HELD))
def test_i4_a_rule_that_a_person_overrides_with_a_resume_is_skipped_from_then_on(phase: Phase, paused: bool) -> None:
    before = replace(at(phase), paused=paused)
    assert ("I3",) == told(before, "resume", overrides=["I3"]).overrides
    leaving = replace(at(Phase.LEAVING), paused=True)
    assert ("I3",) == told(leaving, "resume", overrides=["I3"]).overrides


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.LEAVING, Phase.EMPTYING, Phase.OUT])
def test_a_region_on_its_way_out_is_not_disturbed_by_being_asked_for_again(phase: Phase) -> None:
    assert () == orders_of(at(phase), ())


def test_each_of_two_regions_on_the_move_can_be_named_and_what_is_refused_is_written_down() -> None:
    """A drill's region could not come back, and a person had asked for another since: `it is not out`, said a return."""

    async def named() -> tuple[str, str, list[str]]:
        store = MemoryStore()
        drill = replace(at(Phase.HELD_OUT), asker="drill", run="drill-1.out")
        person = replace(begin("region-1", "gates", (AWS,), DeployPolicy(), (), NOW), phase=Phase.HELD_ASKING)
        for state in (drill, person):
            await stands(store, state)
        for number in range(600):
            done = await store.create_run(f"d{number}", "gates", "x", {}, "x", author="a", reason="r", now=NOW)
            await store.commit(done, Advance({}, "x", None, True, Event("x"), None, 0.0), NOW)
        back = await order_return(store, TOPOLOGY, [AZURE], author="ada", reason="r", now=NOW)
        again = await evacuate(store, AZURE)
        with pytest.raises(NotFound):
            await order_return(store, TOPOLOGY, [AWS, AZURE], author="ada", reason="r", now=NOW)
        return back.id, again.id, [line.result for line in await store.audit()]

    told_ = "run drill-1.out told"
    refused = f"not done: {AWS} and {AZURE} is not out: no run has evacuated it"
    assert ("drill-1.out", "drill-1.out", [told_, told_, refused]) == asyncio.run(named())


def test_i14_an_evacuation_that_the_kill_switch_would_keep_still_is_refused_with_the_way_out() -> None:
    """It was begun, moved nothing, and said nothing."""

    async def asked() -> Refused:
        store = MemoryStore()
        await store.set_switch("gates", "kill", on=True, author="eve", reason="odd", now=NOW)
        with pytest.raises(Refused, match="kill is on for gates, set by eve: odd") as refused:
            await evacuate(store)
        assert [] == list(await store.runs("gates", 10))
        return refused.value

    refused = asyncio.run(asked())
    assert ("I14", "failout kill-switch off --reason ...") == (refused.rule, refused.next_command)
