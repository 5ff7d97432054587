"""Schedules that fire: which place, once, after downtime, and why not. Over the memory store, at moments that a test names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from core.proof_facts import T0, proof, topology

from orchestrator.core.drill import Choice, DrillPolicy
from orchestrator.core.drill_row import parse
from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.outing import Mode
from orchestrator.core.proof import Proof
from orchestrator.core.schedule import DrillSchedule
from orchestrator.core.standing import Objective
from orchestrator.engine.memory import MemoryStore
from orchestrator.operations.outings import Person
from orchestrator.operations.schedules import DrillSchedules, add_schedule, order_schedule

BEGAN = T0 - timedelta(hours=6)
ZONES = ["aws/a", "aws/b", "aws/c", "azure/1", "azure/2"]
DAILY = DrillSchedule("daily", "0 12 * * *", "UTC", Mode.DRAIN, DrillPolicy(("users",)), "ada", "a test")


class Book:
    """The schedules of one service over one store, and what was logged."""

    def __init__(self, schedule: DrillSchedule = DAILY, proofs: Iterable[Proof] = ()) -> None:
        self.store, self.told = MemoryStore(), list[str]()
        asyncio.run(add_schedule(self.store, topology(), schedule, ("users", "pages"), BEGAN))
        asyncio.run(self.store.put_proofs(list(proofs)))
        asyncio.run(self.store.note_peak("gates", 500.0, BEGAN))

    def orchestrator(self) -> DrillSchedules:
        def log(event: str, /, **fields: Any) -> None:
            self.told.append(f"{event}: {fields.get('evidence')}")

        return DrillSchedules(self.store, topology(), Objective(), log)

    def look(self, now: datetime) -> None:
        asyncio.run(self.orchestrator().look(now))

    def drills(self) -> list[tuple[str, str]]:
        runs = asyncio.run(self.store.runs("gates"))
        return [(run.id, parse(run.state).wish.place) for run in reversed(runs)]

    def note(self) -> str:
        return asyncio.run(self.store.schedules("gates"))[0].note


def proven(zone: str, days_ago: float, load_share: float = 1.0) -> Proof:
    return proof(zone, days_ago, load_rps=500.0 * load_share)


ALL = [proven(z, i + 1) for i, z in enumerate(ZONES)]


def test_what_is_due_begins_a_drill_of_the_zone_that_was_never_proven() -> None:
    book = Book(proofs=[p for p in ALL if p.zone != "azure/1"])
    book.look(T0 - timedelta(seconds=1))
    assert [] == book.drills()
    book.look(T0)
    assert [("drill-daily-20300101-1200", "azure/1")] == book.drills()
    assert "azure/1 has the weakest proof: it has no good proof" == book.note()
    assert "run drill-daily-20300101-1200 started: azure/1 has the weakest proof: it has no good proof" in [
        entry.result for entry in asyncio.run(book.store.audit())
    ]


def test_the_weakest_is_the_one_proven_at_the_least_load_and_the_oldest_the_longest_ago() -> None:
    weak = [p for p in ALL if p.zone != "aws/b"] + [proven("aws/b", 1, 0.2)]
    for choice, zone in ((Choice.WEAKEST, "aws/b"), (Choice.OLDEST, "azure/2")):
        book = Book(replace(DAILY, choice=choice), weak)
        book.look(T0)
        assert [zone] == [place for _, place in book.drills()]


def test_a_zone_that_was_proven_lately_is_skipped_and_the_firing_says_why() -> None:
    book = Book(replace(DAILY, place="aws/a", fresh_s=2 * 86400.0), ALL)
    book.look(T0)
    assert ([], "aws/a was proven 1d ago; a drill is due after 2d") == (book.drills(), book.note())
    book.look(T0 + timedelta(days=2))
    assert [("drill-daily-20300103-1200", "aws/a")] == book.drills()


def test_after_downtime_a_missed_schedule_runs_once() -> None:
    book = Book()
    for minute in range(3):
        book.look(T0 + timedelta(days=30, hours=1, minutes=minute))
    assert ["drill-daily-20300131-1200"] == [run for run, _ in book.drills()]


def test_several_orchestrators_fire_once() -> None:
    book = Book()

    async def at_once() -> None:
        await asyncio.gather(*(book.orchestrator().look(T0) for _ in range(5)))

    asyncio.run(at_once())
    assert 1 == len(book.drills())


def test_a_paused_schedule_is_silent_and_makes_up_for_nothing() -> None:
    book = Book()

    def order(kind: str, now: datetime) -> None:
        asyncio.run(order_schedule(book.store, "gates", "daily", kind, Person("eve", "sale", now)))

    order("pause", BEGAN)
    book.look(T0 + timedelta(days=3))
    order("resume", T0 + timedelta(days=3, hours=1))
    book.look(T0 + timedelta(days=3, hours=2))
    assert [] == book.drills()
    book.look(T0 + timedelta(days=4))
    assert 1 == len(book.drills())
    order("remove", T0 + timedelta(days=5))
    with pytest.raises(NotFound):
        order("pause", T0 + timedelta(days=5))


def test_a_schedule_is_checked_before_it_is_written() -> None:
    store = MemoryStore()
    for wrong, error in (
        (replace(DAILY, cron="every day"), Rejected),
        (replace(DAILY, place="aws/z"), NotFound),
        (replace(DAILY, policy=DrillPolicy(("weather",))), NotFound),
        (replace(DAILY, policy=DrillPolicy()), Refused),  # I15
    ):
        with pytest.raises(error):
            asyncio.run(add_schedule(store, topology(), wrong, ("users",), BEGAN))
    assert [] == asyncio.run(store.schedules("gates"))
    assert 4 == len(asyncio.run(store.audit()))


def test_one_that_a_newer_failout_wrote_is_told_once_and_holds_up_no_other() -> None:
    book = Book()
    asyncio.run(book.store.add_schedule("gates", "alien", {"schema": 99}, BEGAN))
    orchestrator = book.orchestrator()
    for _ in range(2):
        asyncio.run(orchestrator.look(T0))
    assert 1 == len(book.drills())
    assert 1 == sum("newer Failout" in told for told in book.told)
