"""Which executors of one PostgreSQL database are alive: each one holds its name by a lock of its own session.

The server frees the lock when the process dies. `idle_session_timeout` frees it too when the process only hangs or its
machine is gone, for a live one is heard twice a second. No pooler that shares sessions may stand in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from orchestrator.core.errors import Rejected
from orchestrator.engine.glance import database_failure
from orchestrator.engine.place import EXECUTOR, KEEPALIVE, SERVER, key_of

BEAT_S: Final = 0.5
SILENT_S: Final = 2.0  # After so long without a beat the server ends the session.
USURPED_S: Final = 2 * SILENT_S  # An earlier session of our own may hold the name a little longer than we do.


class Liveness(threading.Thread):
    """A thread, not a task: a busy event loop must not look like a death.

    `usurped` is called once, from the thread, when another process has taken the name: this one was thought dead, and
    must stop carrying runs.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        serving: bool,
        log: Callable[..., Any],
        usurped: Callable[[], None],
    ) -> None:
        """Take the name. Raise Rejected when a live process has it or its URL must be mended, StoreAway when the database is away."""
        super().__init__(name="liveness", daemon=True)
        self._url, self._executor, self._log, self._usurped = url, name, log, usurped
        self._classes = [EXECUTOR, SERVER] if serving else [EXECUTOR]
        self._ended = threading.Event()
        try:
            session = self._take()
        except psycopg.Error as error:
            raise database_failure(error, away=isinstance(error, psycopg.OperationalError)) from error
        if session is None:
            raise Rejected(f"an executor named {name!r} is running already: give this one a name of its own")
        self._session: psycopg.Connection[Any] = session

    def run(self) -> None:
        denied_since: float | None = None
        while not self._ended.wait(BEAT_S):
            try:
                if not self._session.closed:
                    self._session.execute("SELECT 1")
                    continue
                session = self._take()
            except psycopg.Error as error:
                self._session.close()
                self._log("liveness-lost", executor=self._executor, reason=str(error).splitlines()[0])
                continue
            if session is not None:
                self._session, denied_since = session, None
                self._log("liveness-regained", executor=self._executor)
                continue
            denied_since = denied_since or time.monotonic()
            if time.monotonic() - denied_since > USURPED_S:
                self._usurped()
                return

    def end(self) -> None:
        """Give the name back."""
        self._ended.set()
        if self.is_alive():
            self.join(timeout=10)
        self._session.close()

    def _take(self) -> psycopg.Connection[Any] | None:
        """Open a session that holds the name; None when another session does."""
        named: dict[str, Any] = {**KEEPALIVE, "application_name": f"failout {self._executor}"}
        session = psycopg.connect(self._url, autocommit=True, **named)
        try:
            session.execute(f"SET idle_session_timeout = '{SILENT_S:g}s'".encode())
            mine = [
                session.execute(
                    "SELECT pg_try_advisory_lock(%s, %s)", (kind, _signed(key_of(self._executor)))
                ).fetchone()
                for kind in self._classes
            ]
        except BaseException:
            session.close()
            raise
        if all(row is not None and row[0] for row in mine):
            return session
        session.close()
        return None


def _signed(key: int) -> int:
    """PostgreSQL takes the key as a signed number and shows it as an unsigned one."""
    return key - (1 << 32) if key >= 1 << 31 else key
