"""Backups of a state that is in use, and putting one back only where nobody carries it."""

from __future__ import annotations

import asyncio
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli.state import _pause_all
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.machine import Event
from orchestrator.core.traffic import OUT, DesiredTraffic
from orchestrator.engine.backup import backup, restore
from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place, Served
from orchestrator.engine.ports import Advance
from orchestrator.engine.store import SqlStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.of(tmp_path / "state")


def create(store: SqlStore, run: str, now: datetime = NOW) -> None:
    asyncio.run(store.create_run(run, "gates", "drill", {}, "active", author="ada", reason="", now=now))


def finish(store: SqlStore, run: str, now: datetime) -> None:
    end = Advance({}, "succeeded", None, True, Event("x"), None, 0.0)
    asyncio.run(store.commit(asyncio.run(store.load(run)), end, now))


def runs(place: Place) -> list[str]:
    with glance_at(place) as rows:
        return sorted(run.id for run in rows.runs())


def test_a_backup_restores_what_there_was_and_what_was_there_since_is_kept(place: Place, tmp_path: Path) -> None:
    store, copy = SqlStore(place), tmp_path / "copy"
    create(store, "r1")
    backup(place, copy)
    create(store, "r2")
    store.close()
    assert 0o600 == stat.S_IMODE(copy.stat().st_mode)
    kept = restore(place, copy)
    assert ["r1"] == runs(place)
    assert kept is not None
    assert kept != restore(place, kept), "each restore keeps a state of its own"
    assert ["r1", "r2"] == runs(place)


@pytest.mark.parametrize("under_way", [True, False])
def test_i1_i2_the_wish_for_traffic_is_not_put_back_for_the_world_has_moved_on(
    place: Place, tmp_path: Path, *, under_way: bool
) -> None:
    """Nor where no run was under way: one may have begun since, and have a zone out."""
    create(store := SqlStore(place), "r1")
    wish = DesiredTraffic(1, 0, {"aws/us-east-1a": OUT}, {"aws/us-east-1": 100})
    asyncio.run(store.save_traffic("gates", wish, 0))
    if not under_way:
        finish(store, "r1", NOW)
    store.close()
    backup(place, tmp_path / "copy")
    restore(place, tmp_path / "copy")
    with glance_at(place) as rows:
        assert DesiredTraffic(2, 0, {}, {}) == rows.load_traffic("gates")


def test_i11_the_orders_that_pause_it_are_in_the_copy_before_anybody_can_see_it(place: Place, tmp_path: Path) -> None:
    """They were posted afterwards: kill -9 between the two left a state whose runs went on with what the copy knew."""
    create(store := SqlStore(place), "r1")
    backup(place, tmp_path / "copy")
    create(store, "r2")
    store.close()

    def pause(copy: Place) -> None:
        asyncio.run(_pause_all(copy, "a test"))

    def killed(copy: Place) -> None:
        pause(copy)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(place, tmp_path / "copy", killed)
    assert ["r1", "r2"] == runs(place), "what was there is there"
    restore(place, tmp_path / "copy", pause)
    with glance_at(place) as rows:
        assert ["pause"] == [order.kind for order in rows.pending("r1").orders]
        assert ["1 unfinished runs paused"] == [entry.result for entry in rows.audit()]
    assert [] == [p.name for p in _beside(place) if p.name.startswith(".") or p.name.endswith(("-wal", "-shm"))]


def _beside(place: Place) -> list[Path]:
    assert place.folder is not None
    return list(place.folder.iterdir())


def test_a_backup_in_the_middle_of_writing_is_whole(place: Place, tmp_path: Path) -> None:
    store, ended = SqlStore(place), threading.Event()

    def write() -> None:
        for number in range(10_000):
            if ended.is_set():
                return
            create(store, f"r{number:05}")
            finish(store, f"r{number:05}", NOW)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            backup(place, tmp_path / f"copy{number}")
    finally:
        ended.set()
        writer.join()
        store.close()
    other = Place.of(tmp_path / "other")
    restore(other, tmp_path / "copy4")
    with glance_at(other) as rows:
        assert len(rows.unfinished()) <= 1, "a run and its end are two commits: at most one stands between them"


def test_what_a_killed_backup_has_left_is_in_the_way_of_none(place: Place, tmp_path: Path) -> None:
    create(store := SqlStore(place), "r1")
    store.close()
    (tmp_path / ".copy.partial").write_bytes(b"half")
    backup(place, tmp_path / "copy")
    assert [".copy.partial", "copy", "state"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("serving", [False, True])
def test_a_state_that_is_carried_is_not_replaced(place: Place, tmp_path: Path, *, serving: bool) -> None:
    create(store := SqlStore(place), "r1")
    backup(place, tmp_path / "copy")
    with place.exclusively(serving=serving), pytest.raises(Served if serving else Rejected, match="in use by process"):
        restore(place, tmp_path / "copy")
    store.close()


def test_what_cannot_be_backed_up_or_restored_is_said_in_one_line(place: Place, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        backup(place, tmp_path / "copy")
    SqlStore(place).close()
    backup(place, tmp_path / "copy")
    with pytest.raises(Rejected, match="exists"):
        backup(place, tmp_path / "copy")
    with pytest.raises(Rejected, match="cannot be written"):
        backup(place, tmp_path / "nowhere" / "copy")
    with pytest.raises(NotFound):
        restore(place, tmp_path / "none")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"rubbish" * 1000)
    with pytest.raises(Rejected, match="damaged"):
        restore(place, damaged)
    with pytest.raises(Rejected, match="pg_dump"):
        backup(Place.of("postgresql://somewhere/x"), tmp_path / "other")


def test_old_runs_are_forgotten_and_unfinished_ones_never(place: Place) -> None:
    store = SqlStore(place)
    for name in ("old", "new", "open"):
        create(store, name)
    finish(store, "old", NOW)
    finish(store, "new", NOW + timedelta(days=80))
    assert 1 == asyncio.run(store.prune(NOW + timedelta(days=1)))
    assert 0 == asyncio.run(store.prune(NOW + timedelta(days=1)))
    store.close()
    assert ["new", "open"] == runs(place)
