"""Virtual time: order, death and sleep of processes."""

from __future__ import annotations

import pytest

from orchestrator.sim.scheduler import Killed, Process, Scheduler, SimClock


def test_time_moves_only_to_the_next_thing_that_is_due() -> None:
    scheduler, seen = Scheduler(), []
    scheduler.after(2.0, lambda: seen.append(("b", scheduler.now_s)))
    scheduler.after(1.0, lambda: seen.append(("a", scheduler.now_s)))
    scheduler.run(10.0)
    assert seen == [("a", 1.0), ("b", 2.0)]
    assert scheduler.now_s == 10.0


def test_what_is_due_at_once_happens_in_the_order_it_was_asked_for() -> None:
    scheduler, seen = Scheduler(), []
    for name in "abc":
        scheduler.after(1.0, lambda name=name: seen.append(name))
    scheduler.run(1.0)
    assert seen == ["a", "b", "c"]


def test_a_killed_process_does_nothing_more_whatever_its_handlers_say() -> None:
    scheduler, process, seen = Scheduler(), Process("p"), []
    clock = SimClock(scheduler, process)

    async def stubborn() -> None:
        try:
            await clock.sleep(5.0)
        except Exception:  # noqa: BLE001 - as broad as code under test may be
            seen.append("survived")
        finally:
            await clock.sleep(1.0)
            seen.append("cleaned up")

    scheduler.spawn(process, stubborn())
    scheduler.run(1.0)
    scheduler.kill(process)
    scheduler.run(20.0)
    assert seen == []
    assert not process.running


def test_a_stopped_process_sleeps_through_its_deadline_and_wakes() -> None:
    scheduler, process, woke = Scheduler(), Process("p"), []
    clock = SimClock(scheduler, process)

    async def body() -> None:
        await clock.sleep(1.0)
        woke.append(clock.monotonic())

    scheduler.spawn(process, body())
    scheduler.run(0.5)
    scheduler.stall(process, 30.0)
    scheduler.run(100.0)
    assert woke == [30.5]


def test_a_process_that_dies_of_an_error_keeps_it_for_the_judge() -> None:
    scheduler, process = Scheduler(), Process("p")

    async def body() -> None:
        raise ValueError("broken")

    scheduler.spawn(process, body())
    scheduler.run(1.0)
    assert isinstance(process.failure, ValueError)


def test_a_dead_process_is_refused_at_every_port() -> None:
    process = Process("p", alive=False)
    with pytest.raises(Killed):
        process.check()
