"""Where the state lives: a private folder of files (embedded) or a PostgreSQL database, and what can be wrong with it.

Stdlib only, because `failout status` starts here. One process at a time carries an embedded state: the lock file says who.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.core.errors import FailoutError, Rejected, StoreAway

EXECUTOR: Final = 0x6661_696C  # The classes of our advisory locks in PostgreSQL: live executors,
SERVER: Final = 0x7365_7276  # and those of them that are `failout serve`, which new runs are left to.
# A lost server is noticed in seconds, not after the kernel's two hours.
KEEPALIVE: Final[Mapping[str, int]] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 4000,
}


def key_of(name: str) -> int:
    """A name as the object of an advisory lock, as pg_locks shows it."""
    return zlib.crc32(name.encode())


class InUse(Rejected):
    """Another process carries this state. It picks up runs that are created meanwhile."""

    next_command = "failout status"


class Served(InUse):
    """`failout serve` carries this state: leave new runs to it."""


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

    def written(self) -> bool:
        """Whether there is an embedded state with something in it. Raise Rejected when that cannot be seen."""
        if self.folder is None:
            return False
        try:
            return (self.folder / "failout.db").stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unusable(self.folder, error, "read") from error

    def carried(self) -> bool | None:
        """Whether a process holds the embedded state; None where nobody can tell, as of a database. Changes nothing."""
        if self.folder is None:
            return None
        try:
            descriptor = os.open(self.folder / "failout.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return False

    def prepare(self) -> None:
        """Create folder (0700) and files (0600) before a database library does it with wider permissions.

        A file that is there is not opened: closing it would drop the locks that SQLite holds on it for this process, and
        another could take it for unused (sqlite.org/howtocorrupt.html, 2.2).
        """
        if self.folder is None:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for file in (self.folder / "failout.db", self.folder / "dbos.db"):
                with suppress(FileExistsError):
                    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                if not os.access(file, os.R_OK | os.W_OK):
                    os.close(os.open(file, os.O_RDWR))  # which fails, and says why
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def is_free(self) -> bool:
        """True when nobody holds the embedded state right now; a database is never free to take."""
        if self.folder is None:
            return False
        try:
            with self.exclusively():
                return True
        except InUse:
            return False

    @contextmanager
    def exclusively(self, *, serving: bool = False) -> Iterator[None]:
        """Hold the embedded state for this process; the kernel lets go when the process ends, however it ends.

        Raise Rejected naming the process that holds it, Served when that is `failout serve`.
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
                holder, _, role = os.pread(descriptor, 32, 0).decode().strip().partition(" ")
                kind = Served if role else InUse
                raise kind(f"state {self.folder} is in use by process {holder or 'unknown'}") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}{' serve' if serving else ''}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _unusable(folder: Path, error: OSError, verb: str = "written") -> Rejected:
    owner = "; run it as the user that owns it" if verb == "read" and isinstance(error, PermissionError) else ""
    return Rejected(f"state {folder} cannot be {verb}: {error.strerror}{owner}")


@contextmanager
def sqlite_errors(file: Path, verb: str = "written") -> Iterator[None]:
    """Turn what SQLite says into one line and what to do about it. `verb`: what could not be done, `read` or `written`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise sqlite_failure(file, error, verb) from error


def sqlite_failure(file: Path, error: BaseException, verb: str = "written") -> FailoutError:
    """StoreAway when waiting or freeing space helps, else Rejected."""
    told = str(error)
    if "locked" in told or "busy" in told:
        return StoreAway(f"state {file} is busy: {told}")
    if "disk is full" in told or "disk I/O error" in told:
        return StoreAway(f"state {file} cannot be {verb}: {told}; free some space, then run it again")
    if "readonly" in told or "unable to open" in told:
        owner = "; run it as the user that owns it" if verb == "read" else ""
        return Rejected(f"state {file} cannot be {verb}: {told}{owner}")
    if "not a database" in told or "malformed" in told:
        return Rejected(f"state {file} is damaged: {told}; restore it from a copy, or move it away to start afresh")
    return Rejected(f"state {file} cannot be used: {told}")
