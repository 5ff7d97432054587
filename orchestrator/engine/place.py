"""Where the state lives: a private folder of files (embedded) or a PostgreSQL database, and what can be wrong with it.

Stdlib only, because `failout status` starts here. One process at a time carries an embedded state: the lock file says who.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.errors import FailoutError, Rejected, Transient


@dataclass(frozen=True, slots=True)
class Place:
    """`folder` for the embedded files, or `url` of a PostgreSQL database; use `Place.of`."""

    folder: Path | None
    url: str

    @classmethod
    def of(cls, where: str | Path) -> Place:
        """A `postgresql://` URL, or a folder."""
        text = str(where)
        if text.startswith(("postgresql://", "postgres://")):
            return cls(None, text)
        if "://" in text:
            raise Rejected(f"state must be a folder or a postgresql:// URL, not {text.split('://', maxsplit=1)[0]}://")
        return cls(Path(text).absolute(), "")

    @property
    def file(self) -> Path | None:
        return self.folder / "failout.db" if self.folder else None

    def prepare(self) -> None:
        """Create folder (0700) and files (0600) before a database library does it with wider permissions."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("failout.db", "dbos.db"):
                os.close(os.open(self.folder / name, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise _unusable(self.folder, error) from error

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the embedded state for this process; the kernel lets go when the process ends, however it ends.

        Raise Rejected naming the process that holds it.
        """
        if self.folder is None:
            yield
            return
        self.prepare()
        path = self.folder / "failout.lock"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
                raise Rejected(f"state {self.folder} is in use by process {holder}") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> Rejected:
    return Rejected(f"state {folder} cannot be written: {error.strerror}")


@contextmanager
def sqlite_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite says into one line and what to do about it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise sqlite_failure(file, error) from error


def sqlite_failure(file: Path, error: BaseException) -> FailoutError:
    """Transient when waiting or freeing space helps, else Rejected."""
    told = str(error)
    if "locked" in told or "busy" in told:
        return Transient(f"state {file} is busy: {told}")
    if "disk is full" in told or "disk I/O error" in told:
        return Transient(f"state {file} cannot be written: {told}; free some space, then run again with --resume")
    if "readonly" in told or "unable to open" in told:
        return Rejected(f"state {file} cannot be written: {told}")
    if "not a database" in told or "malformed" in told:
        return Rejected(f"state {file} is damaged: {told}; restore it from a copy, or move it away to start afresh")
    return Rejected(f"state {file} cannot be used: {told}")
