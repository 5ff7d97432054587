"""What can be wrong with the files of the state, and what reading them costs."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text

from orchestrator.core.errors import NotFound, Rejected, Transient
from orchestrator.engine import schema
from orchestrator.engine.glance import SCHEMA_VERSION, glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.store import SqlStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def create(store: SqlStore, run: str = "r1", state: str = "x") -> None:
    made = store.create_run(run, "gates", "drill", {"state": state}, "active", author="ada", reason="", now=NOW)
    asyncio.run(made)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A state folder with one run in it."""
    place = Place.of(tmp_path / "state")
    store = SqlStore(place)
    create(store)
    store.close()
    return place


def test_every_file_is_its_owners_alone_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = Place.of(tmp_path / "deep" / "state")
        with place.exclusively():
            store = SqlStore(place)
            create(store)
            folder = place.folder
            assert folder is not None
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [*folder.iterdir()]}
            store.close()
    finally:
        os.umask(before)
    assert {"failout.db", "failout.db-wal", "failout.db-shm", "dbos.db", "failout.lock"} == set(modes)
    assert {0o600} == set(modes.values())
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


def test_a_commit_outlives_a_power_cut_and_readers_never_wait_for_a_writer(tmp_path: Path) -> None:
    store = SqlStore(Place.of(tmp_path))
    with store._engine.connect() as connection:
        assert (2, "wal") == (
            connection.execute(text("PRAGMA synchronous")).scalar(),
            connection.execute(text("PRAGMA journal_mode")).scalar(),
        )
    store.close()


def test_a_database_url_of_another_kind_is_rejected() -> None:
    with pytest.raises(Rejected, match="not mysql://"):
        Place.of("mysql://somewhere/x")


def test_reading_what_is_not_there_is_not_found_and_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing was deployed"), glance_at(Place.of(tmp_path / "state")):
        pass
    assert [] == list(tmp_path.iterdir())


def test_a_file_in_which_the_first_command_is_about_to_make_the_tables_is_no_state_yet(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "state")
    place.prepare()
    with pytest.raises(NotFound, match="nothing was deployed"), glance_at(place):
        pass


def test_whoever_asks_whether_the_state_is_free_keeps_his_own_locks_on_it(tmp_path: Path) -> None:
    """Closing any descriptor of a file ends all POSIX locks that the process has on it, SQLite's too."""
    place = Place.of(tmp_path / "state")
    place.prepare()
    other = f"import sqlite3; sqlite3.connect({str(place.file)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    with closing(sqlite3.connect(place.file, isolation_level=None)) as mine:
        mine.execute("BEGIN IMMEDIATE")
        assert place.is_free()
        told = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False).stderr
    assert "database is locked" in told


def test_a_glance_sees_what_the_store_wrote_and_cannot_write(place: Place) -> None:
    with glance_at(place) as glance:
        assert {"state": "x"} == glance.load("r1").state
        assert ["r1"] == [run.id for run in glance.runs("gates")]
    with pytest.raises(Rejected, match="readonly"), glance_at(place) as glance:
        glance._query("UPDATE runs SET status = :status", {"status": "hacked"})


def test_a_glance_works_while_the_store_is_being_written(place: Place) -> None:
    store = SqlStore(place)
    with store._transaction() as connection, glance_at(place) as glance:
        connection.execute(text("UPDATE runs SET status = 'changing'"))
        assert "active" == glance.load("r1").status
    store.close()


def test_a_glance_imports_no_database_library_and_fits_in_status_half_second(place: Place) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from orchestrator.engine.glance import glance_at
        from orchestrator.engine.place import Place
        with glance_at(Place.of(Path({str(place.folder)!r}))) as glance:
            glance.runs(), glance.load("r1"), glance.events("r1"), glance.usual("gates")
        heavy = {{"sqlalchemy", "dbos", "psycopg", "asyncio", "structlog"}} & set(sys.modules)
        print(sorted(heavy))
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "[]" == done.stdout.strip()
    # Processor time, start of Python included: nothing in it waits, and other tests may keep this machine busy.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4


@pytest.mark.parametrize("opened", ["store", "glance"])
def test_a_newer_state_is_refused_and_not_touched(place: Place, opened: str) -> None:
    assert place.file
    with sqlite3.connect(place.file) as connection:
        connection.execute("UPDATE meta SET value = ?", (str(SCHEMA_VERSION + 1),))
    connection.close()
    before = place.file.read_bytes()
    with pytest.raises(Rejected, match=f"schema {SCHEMA_VERSION + 1}; this failout knows {SCHEMA_VERSION}"):
        _open(place, opened)
    assert before == place.file.read_bytes()


def test_an_older_state_is_upgraded_step_by_step_and_keeps_its_rows(place: Place) -> None:
    upgrades = {
        SCHEMA_VERSION: lambda connection: connection.execute(text("ALTER TABLE runs ADD COLUMN colour TEXT")),
        SCHEMA_VERSION + 1: lambda connection: connection.execute(text("UPDATE runs SET colour = 'green'")),
    }
    engine = create_engine(f"sqlite:///{place.file}")
    with engine.begin() as connection:
        schema.prepare(connection, upgrades, target=SCHEMA_VERSION + 2)
        assert ("r1", "green") == connection.execute(text("SELECT id, colour FROM runs")).one()
        assert str(SCHEMA_VERSION + 2) == connection.execute(text("SELECT value FROM meta")).scalar()
        schema.prepare(connection, upgrades, target=SCHEMA_VERSION + 2)  # Once is enough: nothing runs again.
    engine.dispose()


def _open(place: Place, opened: str) -> None:
    if opened == "store":
        SqlStore(place).close()
    else:
        with glance_at(place):
            pass


@pytest.mark.parametrize("opened", ["store", "glance"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda _: b"this is not a database, whatever its name says" * 100, "is damaged"),
        (lambda good: good[:4096] + os.urandom(8192) + good[12288:], "is damaged"),
    ],
    ids=["not a database", "overwritten in the middle"],
)
def test_a_damaged_file_is_rejected_in_one_line(place: Place, opened: str, damage, told: str) -> None:
    assert place.file
    place.file.write_bytes(damage(place.file.read_bytes()))
    with pytest.raises(Rejected, match=told) as rejected:
        _open(place, opened)
    assert 1 == len(str(rejected.value).splitlines())


def test_somebody_elses_database_is_rejected(tmp_path: Path) -> None:
    place = Place.of(tmp_path)
    assert place.file
    with sqlite3.connect(place.file) as connection:
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.close()
    with pytest.raises(Rejected, match="not written by failout"):
        SqlStore(place)


def test_a_full_disk_is_transient_says_what_to_do_and_loses_nothing(place: Place) -> None:
    store = SqlStore(place)

    @event.listens_for(store._engine, "checkout")
    def almost_full(connection: sqlite3.Connection, *_: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(Transient, match="disk is full; free some space, then run it again"):
        create(store, "r2", "x" * 100_000)
    assert ["r1"] == [run.id for run in store.glance.runs()]
    event.remove(store._engine, "checkout", almost_full)
    store.close()
    again = SqlStore(place)
    create(again, "r2", "x" * 100_000)
    again.close()


def test_a_state_that_another_process_keeps_locked_is_transient(place: Place) -> None:
    assert place.file
    store = SqlStore(place)

    @event.listens_for(store._engine, "checkout")
    def impatient(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA busy_timeout = 50")

    holder = sqlite3.connect(place.file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="is busy"):
        create(store, "r2")
    holder.execute("ROLLBACK")
    holder.close()
    create(store, "r2")
    store.close()


def _as_nobody(act: Callable[[], object]) -> str:
    """Say what `act` raises for a user without privileges: root may write anywhere, whatever the mode says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            act()
            os.write(writer, b"nothing was raised")
        except BaseException as error:  # noqa: BLE001 - what it is, is what the parent wants to know
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        return told.read()


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_cannot_be_written_is_rejected_in_one_line(tmp_path: Path, mode: int) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(mode)
    told = _as_nobody(lambda: SqlStore(Place.of(closed / "state")))
    assert f"Rejected: state {closed / 'state'} cannot be written: Permission denied" == told
    closed.chmod(0o755)
    assert [] == list(closed.iterdir())
