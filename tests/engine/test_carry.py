"""The loop, driven by hand under virtual time: no event loop, no thread, nothing but the clock may suspend it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import coroutine
from typing import Any

import pytest
from msgspec.structs import replace
from toy import STEPS, Toy, ToyMachine

from orchestrator.core.errors import IllegalTransition, StaleCarrier, Transient
from orchestrator.core.machine import Effect, Event
from orchestrator.engine import carry as carry_module
from orchestrator.engine.carry import Interrupted, carry
from orchestrator.engine.fence import RunFence
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Advance, Run
from orchestrator.ports import Fence

START = datetime(2030, 1, 1, tzinfo=UTC)
DONE = [f"{step}-done" for step in STEPS]


class Crash(BaseException):
    """kill -9: nothing of the code under test may catch it."""


@coroutine
def _suspend(seconds: float) -> Generator[float, None, None]:
    yield seconds


@dataclass
class VirtualClock:
    """`at` runs something at a moment of virtual time, while the code under test sleeps."""

    seconds: float = 0.0
    at: dict[float, Callable[[], Awaitable[Any]]] = field(default_factory=dict)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for moment in sorted(self.at):
            if moment <= self.seconds:
                await self.at.pop(moment)()
        await _suspend(seconds)


Act = Callable[[Effect, Fence, Interrupted], Awaitable[Event | None]]


@dataclass
class Hands:
    """A performer that notes what it did; `acts` replace what an effect does by default."""

    clock: VirtualClock
    acts: dict[str, Act] = field(default_factory=dict)
    performed: list[str] = field(default_factory=list)

    async def perform(self, state: Toy, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        self.performed.append(effect.kind)
        act = self.acts.get(effect.kind)
        told = await act(effect, fence, interrupted) if act else None
        return told or Event(f"{effect.kind}-done", effect.zone)


@dataclass
class Bench:
    """A store with one toy run, and everything that carries it."""

    store: MemoryStore = field(default_factory=MemoryStore)
    clock: VirtualClock = field(default_factory=VirtualClock)
    machine: ToyMachine = field(default_factory=ToyMachine)
    hands: Hands = field(init=False)

    def __post_init__(self) -> None:
        self.hands = Hands(self.clock)
        self.create("r1")

    def create(self, run: str, zone: str = "aws/a") -> None:
        state = self.machine.dump(Toy(zone=zone))
        made = self.store.create_run(run, "gates", "toy", state, "active", author="ada", reason="", now=START)
        drive(made)

    def carry(self, carrier: str = "one", hands: Hands | None = None, store: MemoryStore | None = None) -> bool:
        return drive(carry("r1", self.machine, hands or self.hands, store or self.store, self.clock, carrier))

    def row(self) -> Run:
        return drive(self.store.load("r1"))

    def history(self) -> list[str]:
        return [record.event.kind for record in drive(self.store.events("r1"))]

    async def order(self, kind: str) -> int:
        return await self.store.post_order("r1", kind, author="bob", reason="", now=self.clock.now())


def drive(work: Coroutine[Any, Any, Any], limit: int = 10_000) -> Any:
    """Run a coroutine to its end; whatever suspends it must be the clock's sleep."""
    try:
        for _ in range(limit):
            assert isinstance(work.send(None), float), "something other than the clock was awaited"
    except StopIteration as stop:
        return stop.value
    finally:
        work.close()
    raise AssertionError(f"still going after {limit} sleeps")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_run_is_carried_to_its_end_and_its_history_tells_each_effect(bench: Bench) -> None:
    assert bench.carry()
    assert list(STEPS) == bench.hands.performed
    assert DONE == bench.history()
    row = bench.row()
    assert ("succeeded", True, 3, None, None) == (row.status, row.finished, row.seq, row.zone, row.effect)
    assert [] == drive(bench.store.leases("gates"))


def test_the_intent_is_in_the_row_before_anything_is_done(bench: Bench) -> None:
    seen: list[Effect | None] = []

    async def look(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        seen.append((await bench.store.load("r1")).effect)

    bench.hands.acts["drain"] = look
    bench.carry()
    assert [Effect("drain", "aws/a")] == seen


def test_the_fence_is_the_lease_number_and_0_before_there_is_a_lease(bench: Bench) -> None:
    numbers: list[int] = []

    async def look(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        await fence.check()
        numbers.append(fence.number)

    bench.hands.acts = dict.fromkeys(STEPS, look)
    bench.carry()
    assert [0, 1, 1] == numbers


def test_durations_are_what_the_effect_took(bench: Bench) -> None:
    async def slow(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        await bench.clock.sleep(7.5)

    bench.hands.acts["upgrade"] = slow
    bench.carry()
    assert [0.0, 7.5, 0.0] == [record.duration_s for record in drive(bench.store.events("r1"))]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["during", "before-commit", "after-commit"])
def test_a_crash_at_any_moment_leads_to_the_same_end(bench: Bench, step: str, moment: str) -> None:
    async def die(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        raise Crash

    class Dying(MemoryStore):
        async def commit(self, run: Run, advance: Advance, now: datetime) -> None:
            mine = advance.effect is not None and advance.effect.kind == step and moment != "during"
            if mine and moment == "before-commit":
                raise Crash
            await super().commit(run, advance, now)
            if mine:
                raise Crash

    dying = Dying()
    vars(dying).update(vars(bench.store))  # The same rows, reached through a process that is about to die.
    doomed = Hands(bench.clock, {step: die} if moment == "during" else {})
    with pytest.raises(Crash):
        bench.carry("doomed", doomed, dying)
    assert bench.carry("next")
    assert DONE == bench.history()
    ended = (moment, step) == ("after-commit", STEPS[-1])  # then nobody claims it any more
    assert ("succeeded", 3, 1 if ended else 2) == (bench.row().status, bench.row().seq, bench.row().epoch)
    twice = step if moment != "after-commit" else None
    assert sorted([*STEPS, *([twice] if twice else [])]) == sorted(doomed.performed + bench.hands.performed)


def test_a_zombie_is_stopped_by_its_fence_and_overwrites_nothing(bench: Bench) -> None:
    wrote: list[str] = []

    async def overtaken(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        assert await carry("r1", bench.machine, Hands(bench.clock), bench.store, bench.clock, "other")
        with pytest.raises(StaleCarrier):
            await fence.check()
        await fence.check()
        wrote.append(effect.kind)

    bench.hands.acts["upgrade"] = overtaken
    assert not bench.carry()
    assert [] == wrote
    assert DONE == bench.history()
    assert ("succeeded", 2, "other") == (bench.row().status, bench.row().epoch, bench.row().carrier)


@pytest.mark.parametrize("ends", ["before the zombie commits", "not at all"])
def test_a_zombie_that_writes_without_asking_still_loses_at_commit(bench: Bench, ends: str) -> None:
    async def overtaken(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        if ends == "not at all":
            await bench.store.claim("r1", "other", START)
        else:
            await carry("r1", bench.machine, Hands(bench.clock), bench.store, bench.clock, "other")

    bench.hands.acts["upgrade"] = overtaken
    assert not bench.carry()
    assert (DONE if ends != "not at all" else DONE[:1]) == bench.history()
    assert bench.row().trouble is None


def test_a_zombie_that_was_waiting_for_a_person_does_not_act_on_the_order_that_comes(bench: Bench) -> None:
    drive(bench.order("pause"))
    bench.clock.at[1.0] = lambda: bench.store.claim("r1", "other", START)
    bench.clock.at[2.0] = lambda: bench.order("resume")
    assert not bench.carry()
    assert [] == bench.hands.performed
    assert ["pause"] == bench.history()


@pytest.mark.parametrize("lost", ["the run", "the lease"])
def test_the_fence_raises_when_the_run_or_its_lease_is_somebody_elses(bench: Bench, lost: str) -> None:
    out = Advance(bench.machine.dump(Toy(step=1)), "active", "aws/a", False, Event("x"), None, 0.0)
    drive(bench.store.commit(bench.row(), out, START))
    fence = RunFence(bench.store, "r1", 0, drive(bench.store.held("r1")).lease)
    drive(fence.check())
    if lost == "the run":
        drive(bench.store.claim("r1", "other", START))
    else:
        drive(bench.store.commit(bench.row(), replace(out, zone="aws/b"), START))
    with pytest.raises(StaleCarrier):
        drive(fence.check())


def test_a_carrier_whose_lease_is_gone_though_nobody_took_over_does_not_end_silently(bench: Bench) -> None:
    async def robbed(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        bench.store._leases.clear()
        await fence.check()

    bench.hands.acts["upgrade"] = robbed
    with pytest.raises(StaleCarrier, match="no longer holds lease number 1"):
        bench.carry()
    assert "no longer holds lease" in (bench.row().trouble or "")


def test_a_run_that_waits_for_a_person_hears_an_order_within_a_fifth_of_a_second(bench: Bench) -> None:
    drive(bench.order("pause"))
    heard: list[float] = []

    async def resumed(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        heard.append(bench.clock.seconds)

    bench.clock.at[100.0] = lambda: bench.order("resume")
    bench.hands.acts["drain"] = resumed
    assert bench.carry()
    assert ["pause", "resume", *DONE] == bench.history()
    assert 0 <= heard[0] - 100.0 <= 0.2
    assert () == drive(bench.store.pending("r1")).orders


@pytest.mark.parametrize(("what", "stops"), [("order", True), ("kill", True), ("freeze", False), ("nothing", False)])
def test_a_long_effect_is_interrupted_by_an_order_and_the_kill_switch_but_not_by_a_freeze(
    bench: Bench, what: str, stops: bool
) -> None:
    asked: list[bool] = []

    async def long(effect: Effect, fence: Fence, interrupted: Interrupted) -> Event | None:
        assert not await interrupted()
        if what == "order":
            await bench.order("resume")
        elif what != "nothing":
            await bench.store.set_switch("gates", what, on=True, author="bob", reason="", now=START)  # type: ignore[arg-type]
        asked.append(await interrupted())
        await bench.store.set_switch("gates", "kill", on=False, author="bob", reason="", now=START)
        bench.hands.acts.clear()
        return Event("interrupted", effect.zone) if asked[0] else None

    bench.hands.acts["drain"] = long
    assert bench.carry()
    assert [stops] == asked
    assert stops == ("interrupted" in bench.history())


def test_the_kill_switch_holds_a_run_until_it_is_off_again(bench: Bench) -> None:
    def switch(*, on: bool) -> Coroutine[Any, Any, None]:
        return bench.store.set_switch("*", "kill", on=on, author="bob", reason="", now=START)

    drive(switch(on=True))
    bench.clock.at[60.0] = lambda: switch(on=False)
    assert bench.carry()
    assert bench.clock.seconds >= 60.0


def take_lease_for(bench: Bench, run: str) -> Callable[[], Awaitable[None]]:
    """Give the lease to another run; returns what frees it."""
    bench.create(run, zone="azure/1")
    state = bench.machine.dump(Toy(step=1))
    drive(
        bench.store.commit(
            drive(bench.store.load(run)), Advance(state, "active", "azure/1", False, Event("x"), None, 0.0), START
        )
    )

    async def free() -> None:
        end = Advance(state, "succeeded", None, True, Event("x"), None, 0.0)
        await bench.store.commit(await bench.store.load(run), end, bench.clock.now())

    return free


def test_a_refused_lease_is_an_event_for_a_machine_that_knows_it() -> None:
    bench = Bench(machine=ToyMachine(knows_refusals=True))
    free = take_lease_for(bench, "drill1")
    bench.clock.at[50.0] = free
    bench.clock.at[60.0] = lambda: bench.order("resume")
    assert bench.carry()
    assert ["refused", "resume", *DONE] == bench.history()
    refused = drive(bench.store.events("r1"))[0].event
    assert ("aws/a", {"rule": "I1"}) == (refused.zone, refused.args)
    assert "drill1 has azure/1" in refused.evidence


def test_a_machine_without_a_word_for_it_waits_for_the_lease_and_changes_nothing_meanwhile(bench: Bench) -> None:
    bench.clock.at[30.0] = take_lease_for(bench, "drill1")
    assert bench.carry()
    assert DONE == bench.history()
    assert 30.0 <= bench.clock.seconds <= 32.0


def test_an_error_of_the_code_is_written_down_and_raised_and_the_next_carrier_goes_on(bench: Bench) -> None:
    async def fail(effect: Effect, fence: Fence, interrupted: Interrupted) -> None:
        raise ZeroDivisionError("oops")

    bench.hands.acts["upgrade"] = fail
    with pytest.raises(ZeroDivisionError):
        bench.carry()
    assert ("ZeroDivisionError('oops')", 1) == (bench.row().trouble, bench.row().seq)
    assert ["drain-done", "carrier-gave-up"] == bench.history()
    bench.hands.acts.clear()
    assert bench.carry()
    assert ("succeeded", None) == (bench.row().status, bench.row().trouble)


def test_an_event_the_machine_does_not_expect_changes_nothing(bench: Bench) -> None:
    async def confused(effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        return Event("upgrade-done", effect.zone)

    bench.hands.acts["drain"] = confused
    before = bench.row().state
    with pytest.raises(IllegalTransition):
        bench.carry()
    assert (before, 0) == (bench.row().state, bench.row().seq)


class Flaky(MemoryStore):
    """A store that cannot be reached until a moment of virtual time, from its second commit on."""

    def __init__(self, bench: Bench, back_s: float) -> None:
        vars(self).update(vars(bench.store))
        self._bench, self._back_s = bench, back_s

    async def commit(self, run: Run, advance: Advance, now: datetime) -> None:
        if run.seq == 1 and self._bench.clock.seconds < self._back_s:
            raise Transient("connection refused")
        await super().commit(run, advance, now)


def test_a_store_that_comes_back_is_waited_for(bench: Bench) -> None:
    assert bench.carry(store=Flaky(bench, back_s=40.0))
    assert DONE == bench.history()
    assert 40.0 <= bench.clock.seconds <= 46.0


def test_a_store_that_stays_away_ends_the_carrier_with_its_error(bench: Bench) -> None:
    with pytest.raises(Transient, match="connection refused"):
        bench.carry(store=Flaky(bench, back_s=10_000.0))
    assert carry_module.STORE_PATIENCE_S <= bench.clock.seconds <= carry_module.STORE_PATIENCE_S + 6
    assert bench.carry()
    assert DONE == [kind for kind in bench.history() if kind != "carrier-gave-up"]


def test_a_finished_run_is_not_performed_again(bench: Bench) -> None:
    assert bench.carry()
    again = Hands(bench.clock)
    assert bench.carry("again", again)
    assert [] == again.performed
