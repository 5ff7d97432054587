"""What every store promises of the schedules of drills: a firing and its run come together, once."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta

import postgres_server
import pytest
from sqlalchemy import text
from test_store import LATER, NOW, at_once, begin

from orchestrator.core.errors import NotFound, Rejected
from orchestrator.engine.glance import SCHEMA_VERSION
from orchestrator.engine.place import Place
from orchestrator.engine.ports import NewRun
from orchestrator.engine.store import SqlStore

NIGHTLY = NewRun("drill-1", "drill", {"phase": "checking"}, "active", "ada", "schedule nightly")


@at_once
async def test_a_firing_moves_the_schedule_and_begins_its_run_in_one_transaction_and_once(make) -> None:
    """Two orchestrators that saw the same row: one of them fires."""
    one, other = make(), make()
    await one.add_schedule("gates", "nightly", {"cron": "0 3 * * *"}, NOW)
    seen, seen_too = (await one.schedules("gates"))[0], (await other.schedules("gates"))[0]
    assert (NOW, None, False) == (seen.since, seen.last_fired, seen.paused)
    assert await one.fire(seen, LATER, NIGHTLY, "aws/a", LATER)
    assert not await other.fire(seen_too, LATER, replace(NIGHTLY, id="drill-2"), "aws/b", LATER)
    after = (await other.schedules("gates"))[0]
    assert (LATER, LATER, "drill-1", "aws/a") == (after.since, after.last_fired, after.last_run, after.note)
    assert ["drill-1"] == [run.id for run in await other.runs("gates")]
    assert {"cron": "0 3 * * *"} == after.document


@at_once
async def test_a_firing_whose_run_cannot_begin_leaves_the_schedule_as_it_was(store) -> None:
    await begin(store, "drill-1", kind="drill")
    await store.add_schedule("gates", "nightly", {}, NOW)
    before = (await store.schedules("gates"))[0]
    with pytest.raises(Rejected, match="drill-1"):
        await store.fire(before, LATER, NIGHTLY, "", LATER)
    assert [before] == await store.schedules("gates")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_state_of_before_there_were_schedules_gets_them(kind: str, tmp_path, postgres) -> None:
    """Version 3 to the newest, with everything that was in it."""
    with ExitStack() as stack:
        where = tmp_path if kind == "sqlite" else stack.enter_context(postgres_server.database(postgres()))
        with closing(SqlStore(Place.of(where))) as store:
            asyncio.run(begin(store, "d1"))
            with store._transaction() as connection:
                connection.execute(text("DROP TABLE schedules"))
                connection.execute(text("DROP TABLE operations"))
                connection.execute(text("UPDATE meta SET value = '3'"))
        with closing(SqlStore(Place.of(where))) as store:
            asyncio.run(store.add_schedule("gates", "nightly", {}, NOW))
            assert ["nightly"] == [s.id for s in asyncio.run(store.schedules("gates"))]
            assert (SCHEMA_VERSION, "d1") == (store.glance.schema_version(), store.glance.runs("gates")[0].id)


@at_once
async def test_a_firing_that_is_skipped_says_why_and_begins_nothing(store) -> None:
    await store.add_schedule("gates", "nightly", {}, NOW)
    assert await store.fire((await store.schedules("gates"))[0], LATER, None, "proven an hour ago", LATER)
    after = (await store.schedules("gates"))[0]
    assert (LATER, None, "proven an hour ago") == (after.last_fired, after.last_run, after.note)
    assert [] == list(await store.runs("gates"))


@at_once
async def test_a_paused_schedule_does_not_fire_and_its_resumption_counts_anew(store) -> None:
    await store.add_schedule("gates", "nightly", {}, NOW)
    seen = (await store.schedules("gates"))[0]
    await store.pause_schedule("gates", "nightly", paused=True, now=NOW)
    await store.pause_schedule("gates", "nightly", paused=True, now=LATER)
    assert not await store.fire(seen, LATER, NIGHTLY, "", LATER)
    await store.pause_schedule("gates", "nightly", paused=False, now=LATER)
    await store.pause_schedule("gates", "nightly", paused=False, now=LATER + timedelta(hours=1))
    assert [(False, LATER)] == [(s.paused, s.since) for s in await store.schedules("gates")]


@at_once
async def test_a_schedule_has_one_name_in_its_service(store) -> None:
    await store.add_schedule("gates", "nightly", {}, NOW)
    await store.add_schedule("doors", "nightly", {}, NOW)
    with pytest.raises(Rejected, match="nightly"):
        await store.add_schedule("gates", "nightly", {}, NOW)
    await store.remove_schedule("gates", "nightly")
    assert ([], ["nightly"]) == (await store.schedules("gates"), [s.id for s in await store.schedules("doors")])
    for act in (store.remove_schedule("gates", "nightly"), store.pause_schedule("gates", "x", paused=True, now=NOW)):
        with pytest.raises(NotFound):
            await act
