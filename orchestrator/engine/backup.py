"""Copies of the embedded state, made while it is in use, and put back only where nobody carries it.

DBOS's file is not copied: every run starts again from its row.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from orchestrator.core.errors import NotFound, Rejected
from orchestrator.engine.glance import Glance, glance_at, reject_version
from orchestrator.engine.place import Place, sqlite_errors

# It names nothing: what is not named is left as its cloud has it. The version says that it has changed.
_FORGET: Final = """UPDATE traffic SET version = version + 1, document = '{"zones": {}, "region_weights": {}}'"""


def backup(place: Place, target: Path) -> None:
    """Write a consistent copy (0600) to a new file. Raise NotFound when there is no state, Rejected when `target` exists."""
    source = _file(place)
    with glance_at(place):
        pass  # It is there, it can be read, and we know its schema.
    if target.exists():
        raise Rejected(f"{target} exists: name a new file")
    try:  # A name of its own, for a kill -9 may have left another's; 0600.
        descriptor, name = tempfile.mkstemp(".partial", f".{target.name}.", target.parent)
    except OSError as error:
        raise Rejected(f"{target} cannot be written: {error.strerror}") from error
    os.close(descriptor)
    partial = Path(name)
    try:
        with (
            sqlite_errors(partial),
            closing(sqlite3.connect(source)) as live,
            closing(sqlite3.connect(partial)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # One file, whole without a log beside it.
        check(partial)
        _persist(partial)
        partial.rename(target)
        _persist(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def check(copy: Path) -> None:
    """Raise NotFound, or Rejected when the file is damaged, no state, or newer than this Failout."""
    if not copy.is_file():
        raise NotFound(f"there is no file {copy}")
    with sqlite_errors(copy), closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (told,) = connection.execute("PRAGMA integrity_check").fetchone()
        if told != "ok":
            raise Rejected(f"{copy} is damaged: {told}")
        reject_version(Glance(lambda sql, given: connection.execute(sql, given).fetchall()).schema_version())


def restore(place: Place, copy: Path, amend: Callable[[Place], None] = lambda _: None) -> Path | None:
    """Put the copy in the state's place; return where the state that was there is kept. Raise Rejected while it is in use.

    `amend` changes the copy before anybody can see it: kill -9 leaves what was there, or the copy with all that was to be
    written into it, such as the orders that pause its runs.
    The copy's wish for traffic is of its moment and is not put back: it would take a zone out again that has come back
    since, beside one that has left (I1), or give one that has left since all of its users (I2). What no run has asked for
    anew stays as the clouds have it.
    """
    state = _file(place)
    check(copy)
    with place.exclusively():
        apart = state.with_name(".restored")
        shutil.rmtree(apart, ignore_errors=True)  # A kill -9 may have left it.
        made = Place.of(apart)
        made.prepare()
        fresh = _file(made)
        with sqlite_errors(fresh), closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(fresh)) as target:
            source.backup(target)
            target.execute(_FORGET)
            target.commit()
        amend(made)
        with sqlite_errors(fresh), closing(sqlite3.connect(fresh)) as target:
            target.execute("PRAGMA journal_mode = DELETE")  # One file, whole without a log beside it.
        _persist(fresh)
        kept = _set_aside(state)
        for name in ("failout.db-wal", "failout.db-shm", "dbos.db", "dbos.db-wal", "dbos.db-shm"):
            state.with_name(name).unlink(missing_ok=True)
        fresh.rename(state)
        shutil.rmtree(apart, ignore_errors=True)
        _persist(state.parent)
        return kept


def _set_aside(state: Path) -> Path | None:
    """Keep what is there, its log folded in, under the first free name. A damaged state is kept as it is."""
    if not state.exists() or state.stat().st_size == 0:
        return None
    with contextlib.suppress(sqlite3.DatabaseError), closing(sqlite3.connect(state)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    number = 1
    while (kept := state.with_name(f"failout.db.before-restore-{number}")).exists():
        number += 1
    os.link(state, kept)
    return kept


def _file(place: Place) -> Path:
    if place.file is None:
        raise Rejected("this state is in PostgreSQL: back it up with pg_dump or the server's own archiving")
    return place.file


def _persist(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
