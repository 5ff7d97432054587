"""Reading the rows, quickly and without harm: what `failout status` and `show` run on.

The queries are plain text with `:name` parameters, understood by sqlite3, by SQLAlchemy and (rewritten) by psycopg.
This module imports neither SQLAlchemy (0.36 s measured) nor dbos (0.9 s): status has 0.5 s in all.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, Final

from orchestrator.core.errors import FailoutError, NotFound, Rejected, StoreAway
from orchestrator.core.machine import Order
from orchestrator.core.proof import Proof
from orchestrator.core.proof import parse as parse_proof
from orchestrator.core.samples import Sample, disjoint
from orchestrator.core.samples import parse as parse_sample
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine import ledger
from orchestrator.engine.codec import day_text, effect_of, event_of, instant_text, peers_of, traffic_of
from orchestrator.engine.place import Place, sqlite_errors
from orchestrator.engine.ports import (
    EVERY_SERVICE,
    AuditEntry,
    Held,
    Lease,
    Pending,
    Record,
    Run,
    Schedule,
    Switch,
    Usual,
)
from orchestrator.ports import Peer

SCHEMA_VERSION: Final = 6
# What libpq and the server say when no waiting helps.
_TO_MEND: Final = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|does not exist|permission denied|invalid |"
    r"(resolve|translate) host|does not support SSL|certificate"
)
Row = Sequence[Any]
Query = Callable[[str, Mapping[str, Any]], Sequence[Row]]

_RUN: Final = (
    "SELECT id, service, kind, status, seq, epoch, state, effect, zone, created_at, updated_at, finished_at, "
    "author, reason, carrier, trouble FROM runs"
)
_LEASE: Final = "SELECT service, slot, zone, run, fence, since, expires_at FROM lease"


class NoState(NotFound):
    """Nothing was begun from here yet, or its first command is about to make the tables."""


class Glance:
    """Every read of the store, synchronous, over one function that runs a query."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def load(self, run: str) -> Run:
        rows = self._query(f"{_RUN} WHERE id = :run", {"run": run})
        if not rows:
            raise NotFound(f"no run {run!r}")
        return _run(rows[0])

    def runs(self, service: str | None = None, limit: int = 50) -> Sequence[Run]:
        where = "" if service is None else " WHERE service = :service"
        sql = f"{_RUN}{where} ORDER BY created_at DESC, id DESC LIMIT :limit"
        return [_run(row) for row in self._query(sql, {"service": service, "limit": limit})]

    def unfinished(self, service: str | None = None) -> Sequence[Run]:
        """Every run that has not ended, of one service or all, oldest first."""
        mine = "" if service is None else " AND service = :service"
        sql = f"{_RUN} WHERE finished_at IS NULL{mine} ORDER BY created_at, id"
        return [_run(row) for row in self._query(sql, {"service": service})]

    def finished_counts(self, service: str) -> Sequence[tuple[str, str, int]]:
        """Return how many runs have ended, by kind and status."""
        sql = "SELECT kind, status, count(*) FROM runs WHERE service = :service AND finished_at IS NOT NULL"
        rows = self._query(f"{sql} GROUP BY kind, status ORDER BY kind, status", {"service": service})
        return [(kind, status, int(count)) for kind, status, count in rows]

    def open_runs(self, service: str | None = None) -> Mapping[str, int]:
        """Return each run that has not ended, of one service or all, with its epoch: cheap enough to ask twice a second."""
        sql = "SELECT id, epoch, service FROM runs WHERE finished_at IS NULL ORDER BY created_at, id"
        return {run: epoch for run, epoch, of in self._query(sql, {}) if service in (None, of)}

    def executors(self, kind: int) -> frozenset[int]:
        """Return the keys of the executors of a kind (`place.EXECUTOR`, `SERVER`) that live. PostgreSQL only."""
        sql = (
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :kind "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return frozenset(key for (key,) in self._query(sql, {"kind": kind}))

    def pending(self, run: str) -> Pending:
        """In one query: every effect asks this once a second."""
        rows = self._query(
            "SELECT id, kind, author, reason, at, args FROM orders WHERE run = :run AND consumed_at IS NULL UNION ALL "
            "SELECT 0, s.name, '', '', '', '' FROM switches s JOIN runs r ON s.service IN (r.service, :every) "
            "WHERE r.id = :run AND s.is_on",
            {"run": run, "every": EVERY_SERVICE},
        )
        names = {row[1] for row in rows if row[0] == 0}
        orders = sorted((_order(row) for row in rows if row[0] != 0), key=lambda order: order.id)
        return Pending(tuple(orders), frozen="freeze" in names, killed="kill" in names)

    def held(self, run: str) -> Held:
        rows = self._query(
            "SELECT r.epoch, l.service, l.slot, l.zone, l.run, l.fence, l.since, l.expires_at "
            "FROM runs r LEFT JOIN lease l ON l.run = r.id WHERE r.id = :run",
            {"run": run},
        )
        if not rows:
            raise NotFound(f"no run {run!r}")
        epoch, *lease = rows[0]
        return Held(epoch, _lease(lease) if lease[0] is not None else None)

    def leases(self, service: str) -> Sequence[Lease]:
        sql = f"{_LEASE} WHERE service = :service AND run IS NOT NULL ORDER BY slot"
        return [_lease(row) for row in self._query(sql, {"service": service})]

    def load_traffic(self, service: str) -> DesiredTraffic | None:
        sql = "SELECT document, version, fence FROM traffic WHERE service = :service"
        rows = self._query(sql, {"service": service})
        return traffic_of(*rows[0]) if rows else None

    def switches(self) -> Sequence[Switch]:
        rows = self._query("SELECT service, name, is_on, author, reason, at FROM switches ORDER BY service, name", {})
        return [Switch(s, name, bool(on), author, reason, _at(at)) for s, name, on, author, reason, at in rows]

    def events(self, run: str) -> Sequence[Record]:
        self.load(run)
        sql = "SELECT run, seq, at, effect, event, duration_s FROM events WHERE run = :run ORDER BY id"
        return [
            Record(run, seq, _at(at), effect_of(effect) if effect else None, event_of(event), duration_s)
            for run, seq, at, effect, event, duration_s in self._query(sql, {"run": run})
        ]

    def usual(self, service: str) -> Mapping[str, Usual]:
        rows = self._query(
            "SELECT effect_kind, event_kind, duration_s FROM (SELECT e.effect_kind, e.event_kind, e.duration_s, "
            "row_number() OVER (PARTITION BY e.effect_kind ORDER BY e.id DESC) AS age FROM events e "
            "JOIN runs r ON r.id = e.run WHERE r.service = :service AND e.effect_kind IS NOT NULL AND e.seq IS NOT NULL"
            ") AS recent WHERE age <= 200",
            {"service": service},
        )
        return ledger.usual((effect, event, seconds) for effect, event, seconds in rows)

    def audit(self) -> Sequence[AuditEntry]:
        rows = self._query("SELECT id, at, author, act, reason, result, prev_hash, hash FROM audit ORDER BY id", {})
        return [AuditEntry(number, _at(at), *rest) for number, at, *rest in rows]

    def samples(self, service: str, since: datetime, until: datetime) -> Sequence[Sample]:
        """Oldest first; where two processes measured the same seconds, one of them."""
        sql = "SELECT at, zones FROM samples WHERE service = :service AND at > :since AND at <= :until ORDER BY at, id"
        given = {"service": service, "since": instant_text(since), "until": instant_text(until)}
        return disjoint(parse_sample(_at(at), json.loads(zones)) for at, zones in self._query(sql, given))

    def proofs(self, service: str, limit: int = 2000) -> Sequence[Proof]:
        """Newest first."""
        sql = "SELECT proof FROM proofs WHERE service = :service ORDER BY at DESC, id DESC LIMIT :limit"
        return [parse_proof(json.loads(text)) for (text,) in self._query(sql, {"service": service, "limit": limit})]

    def peers(self, service: str, zone: str) -> Sequence[Peer]:
        sql = "SELECT peers FROM peers WHERE service = :service AND zone = :zone"
        rows = self._query(sql, {"service": service, "zone": zone})
        return peers_of(rows[0][0]) if rows else []

    def operation(self, service: str, key: str) -> str | None:
        sql = "SELECT token FROM operations WHERE service = :service AND operation = :operation"
        rows = self._query(sql, {"service": service, "operation": key})
        return rows[0][0] if rows else None

    def schedules(self, service: str) -> Sequence[Schedule]:
        sql = (
            "SELECT service, id, document, paused, since, created_at, last_fired, last_run, note FROM schedules "
            "WHERE service = :service ORDER BY id"
        )
        return [_schedule(row) for row in self._query(sql, {"service": service})]

    def peak_rps(self, service: str, since: datetime) -> float | None:
        """The most requests a second since that day."""
        sql = "SELECT max(rps) FROM peaks WHERE service = :service AND day >= :day"
        rows = self._query(sql, {"service": service, "day": day_text(since)})
        return float(rows[0][0]) if rows[0][0] is not None else None

    def schema_version(self) -> int:
        rows = self._query("SELECT value FROM meta WHERE key = :key", {"key": "schema_version"})
        return int(rows[0][0])


def reject_version(found: int, known: int = SCHEMA_VERSION) -> None:
    if found > known:
        raise Rejected(f"the state has schema {found}; this failout knows {known}: use the newer failout that wrote it")


@contextmanager
def glance_at(place: Place) -> Iterator[Glance]:
    """Open for reading only. Raise NoState when there is none yet, Rejected when it cannot be read."""
    if place.file is None:
        with _postgres(place.url) as query:
            yield _checked(Glance(query))
        return
    nothing = NoState(f"no state in {place.file.parent}: nothing was deployed from here yet")
    if not place.written():
        raise nothing
    with (
        sqlite_errors(place.file, "read"),
        closing(sqlite3.connect(f"{place.file.as_uri()}?mode=ro", uri=True)) as connection,
    ):
        connection.execute("PRAGMA busy_timeout = 2000")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise nothing  # Its first command has made the file, and is about to make the tables.
        yield _checked(Glance(lambda sql, given: connection.execute(sql, given).fetchall()))


def _checked(glance: Glance) -> Glance:
    reject_version(glance.schema_version())
    return glance


@contextmanager
def _postgres(url: str) -> Iterator[Query]:
    import psycopg  # noqa: PLC0415 - an extra, and 0.17 s that embedded users do not pay

    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
            yield lambda sql, given: connection.execute(re.sub(r":(\w+)", r"%(\1)s", sql).encode(), given).fetchall()
    except psycopg.Error as error:
        raise database_failure(error, away=isinstance(error, psycopg.OperationalError)) from error


def database_failure(error: Exception, *, away: bool) -> FailoutError:
    """StoreAway when waiting may help (refused, timed out, starting up), Rejected when a person must mend the URL or rights."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if away and not _TO_MEND.search(str(error)):
        return StoreAway(f"state database: {first}; run it again once the database answers")
    return Rejected(f"state database: {first}")


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _run(row: Row) -> Run:
    (run, service, kind, status, seq, epoch, state, effect, zone, created, updated, finished, author, reason, *last) = (
        row
    )
    return Run(
        run,
        service,
        kind,
        status,
        seq,
        epoch,
        json.loads(state),
        effect_of(effect) if effect else None,
        zone,
        _at(created),
        _at(updated),
        _at(finished) if finished else None,
        author,
        reason,
        *last,
    )


def _schedule(row: Row) -> Schedule:
    service, name, document, paused, since, created, fired, *last = row
    at = _at(fired) if fired else None
    return Schedule(service, name, json.loads(document), bool(paused), _at(since), _at(created), at, *last)


def _order(row: Row) -> Order:
    number, kind, author, reason, at, args = row
    return Order(number, kind, author, reason, _at(at), json.loads(args))


def _lease(row: Row) -> Lease:
    service, slot, zone, run, fence, since, expires_at = row
    return Lease(service, slot, zone, run, fence, _at(since), _at(expires_at) if expires_at else None)
