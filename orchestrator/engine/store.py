"""The store on SQLite (embedded) and PostgreSQL: small transactions, each one a compare-and-swap.

Methods are written plainly and run in a thread (`_threaded`), so a slow disk or a database that is gone holds up its own
run and nothing else on the event loop. Reads are `Glance`'s.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    RowMapping,
    TextClause,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from orchestrator.core.errors import Bug, NotFound, Rejected, StoreAway
from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.proof import Proof
from orchestrator.core.proof import dump as dump_proof
from orchestrator.core.samples import Sample
from orchestrator.core.samples import dump as dump_sample
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine import agenda, ledger, schema
from orchestrator.engine.codec import day_text, effect_text, event_text, instant_text, peers_text, text_of, traffic_text
from orchestrator.engine.glance import Glance, database_failure
from orchestrator.engine.place import KEEPALIVE, Place, sqlite_failure
from orchestrator.engine.ports import Advance, AuditEntry, Lease, NewRun, Run, Schedule, SwitchName
from orchestrator.ports import Peer

_CREATION_LOCK: Final = 0x6661696C6F7574  # Two processes that find an empty PostgreSQL database take turns.
_SETUP_LOCK: Final = _CREATION_LOCK + 1

P = ParamSpec("P")
R = TypeVar("R")
_Async = Callable[P, Coroutine[Any, Any, R]]


def _threaded(method: Callable[Concatenate[SqlStore, P], R]) -> _Async[Concatenate[SqlStore, P], R]:
    @wraps(method)
    async def call(self: SqlStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self, *args, **kwargs)

    return call


def _read(method: Callable[Concatenate[Glance, P], R]) -> _Async[Concatenate[SqlStore, P], R]:
    @wraps(method)
    async def call(self: SqlStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self.glance, *args, **kwargs)

    return call


class SqlStore:
    """A `Store`. `max_zones_out` is the number of lease slots of each service (I1), `out_expires_s` how long each may be
    held before a person is told (I8). Close it when done.

    Opening creates the tables, upgrades an older state, and raises Rejected for a newer, damaged or unwritable one.
    """

    def __init__(self, place: Place, max_zones_out: int = 1, out_expires_s: float | None = None) -> None:
        self._place = place
        self._slots = max_zones_out
        self._out_expires_s = out_expires_s
        place.prepare()
        self._engine, self._opened = _engine(place), False
        self._reader = _reader(place) or self._engine
        self.glance = Glance(self._query)
        try:
            with self._transaction() as connection:
                if not place.file:
                    connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
                schema.prepare(connection)
            self._opened = True
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()
        self._reader.dispose()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process sets up this PostgreSQL database. Embedded state has its lock file for that."""
        if self._place.file:
            yield
            return
        with self._errors():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with self._errors():
                # Asked again and again: to build an index concurrently waits for every statement that waits.
                while not connection.execute(select(func.pg_try_advisory_lock(_SETUP_LOCK))).scalar():
                    time.sleep(0.1)
            yield
        finally:
            connection.invalidate()  # The session ends, and the lock with it.
            connection.close()

    load = _read(Glance.load)
    runs = _read(Glance.runs)
    unfinished = _read(Glance.unfinished)
    open_runs = _read(Glance.open_runs)
    executors = _read(Glance.executors)
    pending = _read(Glance.pending)
    held = _read(Glance.held)
    leases = _read(Glance.leases)
    load_traffic = _read(Glance.load_traffic)
    switches = _read(Glance.switches)
    events = _read(Glance.events)
    usual = _read(Glance.usual)
    audit = _read(Glance.audit)
    samples = _read(Glance.samples)
    proofs = _read(Glance.proofs)
    peak_rps = _read(Glance.peak_rps)
    peers = _read(Glance.peers)
    operation = _read(Glance.operation)
    schedules = _read(Glance.schedules)

    @_threaded
    def create_run(
        self,
        run: str,
        service: str,
        kind: str,
        state: Json,
        status: str,
        *,
        author: str,
        reason: str,
        now: datetime,
    ) -> Run:
        row = {
            "id": run,
            "service": service,
            "kind": kind,
            "status": status,
            "state": text_of(state),
            "seq": 0,
            "epoch": 0,
        }
        row |= {"author": author, "reason": reason, "created_at": instant_text(now), "updated_at": instant_text(now)}
        try:
            with self._transaction() as connection:
                connection.execute(insert(schema.runs).values(row))
        except IntegrityError as error:
            for other in self.glance.unfinished():
                if kind == "deploy" == other.kind and other.service == service and other.id != run:
                    raise ledger.refuse_second_deploy(other) from error
            raise Rejected(f"there is a run {run} already") from error
        return self.glance.load(run)

    @_threaded
    def claim(self, run: str, carrier: str, now: datetime) -> int:
        runs = schema.runs
        claim = update(runs).where(runs.c.id == run, runs.c.finished_at.is_(None))
        claim = claim.values(epoch=runs.c.epoch + 1, carrier=carrier, updated_at=instant_text(now))
        with self._transaction() as connection:
            epoch = connection.execute(claim.returning(runs.c.epoch)).scalar()
            epoch = epoch or connection.execute(select(runs.c.epoch).where(runs.c.id == run)).scalar()
        if epoch is None:
            raise NotFound(f"no run {run!r}")
        return int(epoch)

    @_threaded
    def intend(self, run: Run, effect: Effect, now: datetime) -> None:
        with self._transaction() as connection:
            self._swap(connection, run, {"effect": effect_text(effect), "updated_at": instant_text(now)})

    @_threaded
    def commit(self, run: Run, advance: Advance, now: datetime) -> None:
        at = instant_text(now)
        row = {"seq": run.seq + 1, "state": text_of(advance.state), "status": advance.status, "zone": advance.zone}
        row |= {"effect": None, "trouble": None, "updated_at": at, "finished_at": at if advance.finished else None}
        with self._transaction() as connection:
            self._swap(connection, run, row)
            _consume(connection, run.id, advance.event, at)
            self._lease(connection, run, advance.zone, at, extra=advance.extra)
            _record(connection, run.id, run.seq + 1, at, advance.effect, advance.event, advance.duration_s)

    @_threaded
    def give_up(self, run: str, epoch: int, effect: Effect | None, trouble: str, now: datetime) -> None:
        runs, at = schema.runs, instant_text(now)
        mine = (runs.c.id == run) & (runs.c.epoch == epoch)
        with self._transaction() as connection:
            noted = connection.execute(update(runs).where(mine).values(trouble=trouble, updated_at=at))
            if noted.rowcount:
                _record(connection, run, None, at, effect, Event("carrier-gave-up", evidence=trouble), 0.0)

    @_threaded
    def post_order(
        self, run: str, kind: str, *, author: str, reason: str, now: datetime, args: Mapping[str, Json] | None = None
    ) -> int:
        orders = schema.orders
        row = {"run": run, "kind": kind, "author": author, "reason": reason, "at": instant_text(now)}
        row |= {"args": text_of(dict(args or {}))}
        with self._transaction() as connection:
            # Locked, so that the run cannot finish between the look and the order.
            look = select(schema.runs.c.status, schema.runs.c.finished_at).where(schema.runs.c.id == run)
            found = connection.execute(look.with_for_update()).one_or_none()
            if found is None:
                raise NotFound(f"no run {run!r}")
            if found.finished_at is not None:
                raise ledger.reject_late_order(run, found.status, kind)
            return int(connection.execute(insert(orders).values(row).returning(orders.c.id)).scalar_one())

    @_threaded
    def save_traffic(self, service: str, desired: DesiredTraffic, expected_version: int) -> None:
        table = schema.traffic
        row = {"version": desired.version, "fence": desired.fence, "document": traffic_text(desired)}
        holding = (schema.leases.c.service == service) & schema.leases.c.run.is_not(None)
        with self._transaction() as connection:
            # Locked in this order everywhere: leases, then traffic. A lease cannot be freed in between.
            live = connection.execute(select(schema.leases.c.fence).where(holding).with_for_update()).scalars().all()
            stored = select(table.c.version).where(table.c.service == service).with_for_update()
            found = connection.execute(stored).scalar()
            ledger.check_traffic(service, desired, expected_version, found or 0, live)
            if found:
                connection.execute(update(table).where(table.c.service == service).values(row))
                return
            try:
                connection.execute(insert(table).values(service=service, **row))
            except IntegrityError as error:
                raise StoreAway(f"traffic of {service} was just written by another process: read it again") from error

    @_threaded
    def set_switch(self, service: str, name: SwitchName, *, on: bool, author: str, reason: str, now: datetime) -> None:
        put = text(
            "INSERT INTO switches (service, name, is_on, author, reason, at) "
            "VALUES (:service, :name, :is_on, :author, :reason, :at) ON CONFLICT (service, name) DO UPDATE SET "
            "is_on = excluded.is_on, author = excluded.author, reason = excluded.reason, at = excluded.at"
        )
        row = {"service": service, "name": name, "is_on": on, "author": author, "reason": reason}
        with self._transaction() as connection:
            connection.execute(put, row | {"at": instant_text(now)})

    @_threaded
    def prune(self, before: datetime) -> int:
        """Forget the runs that ended before a moment, with their history and orders. The audit log stays whole."""
        runs, at = schema.runs, instant_text(before)
        old = select(runs.c.id).where(runs.c.finished_at < at)
        with self._transaction() as connection:
            for table in (schema.events, schema.orders):
                connection.execute(delete(table).where(table.c.run.in_(old)))
            return connection.execute(delete(runs).where(runs.c.finished_at < at)).rowcount

    @_threaded
    def append_audit(self, author: str, act: str, reason: str, result: str, now: datetime) -> AuditEntry:
        table = schema.audit
        with self._transaction() as connection:
            # One writer at a time, or two entries would follow the same one.
            connection.execute(select(schema.meta).with_for_update())
            last = connection.execute(select(table).order_by(table.c.id.desc()).limit(1)).mappings().one_or_none()
            entry = ledger.seal(_entry(last) if last else None, author, act, reason, result, now)
            row = {
                name: getattr(entry, name) for name in ("id", "author", "act", "reason", "result", "prev_hash", "hash")
            }
            connection.execute(insert(table).values(at=instant_text(entry.at), **row))
        return entry

    @_threaded
    def add_samples(self, service: str, samples: Sequence[Sample]) -> None:
        rows = [{"service": service, "at": instant_text(s.at), "zones": text_of(dump_sample(s))} for s in samples]
        with self._transaction() as connection:
            connection.execute(insert(schema.samples), rows)

    @_threaded
    def forget_samples(self, service: str, before: datetime) -> None:
        old = (schema.samples.c.service == service) & (schema.samples.c.at < instant_text(before))
        with self._transaction() as connection:
            connection.execute(delete(schema.samples).where(old))

    @_threaded
    def put_proofs(self, proofs: Sequence[Proof]) -> None:
        put = text(
            "INSERT INTO proofs (id, service, at, proof) VALUES (:id, :service, :at, :proof) "
            "ON CONFLICT (id) DO UPDATE SET at = excluded.at, proof = excluded.proof"
        )
        rows = [{"id": p.id, "service": p.service, "at": instant_text(p.last)} for p in proofs]
        with self._transaction() as connection:
            connection.execute(put, [r | {"proof": text_of(dump_proof(p))} for r, p in zip(rows, proofs, strict=True)])

    @_threaded
    def save_peers(self, service: str, zone: str, peers: Sequence[Peer]) -> None:
        put = text(
            "INSERT INTO peers (service, zone, peers) VALUES (:service, :zone, :peers) "
            "ON CONFLICT (service, zone) DO UPDATE SET peers = excluded.peers"
        )
        with self._transaction() as connection:
            connection.execute(put, {"service": service, "zone": zone, "peers": peers_text(peers)})

    @_threaded
    def keep_operation(self, service: str, key: str, token: str | None) -> None:
        forget = text("DELETE FROM operations WHERE service = :service AND operation = :operation")
        put = text("INSERT INTO operations (service, operation, token) VALUES (:service, :operation, :token)")
        row = {"service": service, "operation": key}
        with self._transaction() as connection:
            connection.execute(forget, row)
            if token is not None:
                connection.execute(put, row | {"token": token})

    @_threaded
    def add_schedule(self, service: str, schedule: str, document: Json, now: datetime) -> None:
        try:
            with self._transaction() as connection:
                agenda.add(connection, service, schedule, document, now)
        except IntegrityError as error:
            raise Rejected(f"there is a schedule {schedule} already") from error

    @_threaded
    def remove_schedule(self, service: str, schedule: str) -> None:
        with self._transaction() as connection:
            agenda.remove(connection, service, schedule)

    @_threaded
    def pause_schedule(self, service: str, schedule: str, *, paused: bool, now: datetime) -> None:
        with self._transaction() as connection:
            agenda.pause(connection, service, schedule, now, paused=paused)

    @_threaded
    def fire(self, schedule: Schedule, nominal: datetime, run: NewRun | None, note: str, now: datetime) -> bool:
        try:
            with self._transaction() as connection:
                return agenda.fire(connection, schedule, nominal, run, note, now)
        except IntegrityError as error:
            raise Rejected(f"there is a run {run.id if run else None} already") from error

    @_threaded
    def note_peak(self, service: str, rps: float, now: datetime) -> None:
        put = text(
            "INSERT INTO peaks (service, day, rps) VALUES (:service, :day, :rps) ON CONFLICT (service, day) "
            "DO UPDATE SET rps = excluded.rps WHERE excluded.rps > peaks.rps"
        )
        with self._transaction() as connection:
            connection.execute(put, {"service": service, "day": day_text(now), "rps": rps})

    def _swap(self, connection: Connection, run: Run, values: Mapping[str, Any]) -> None:
        runs = schema.runs
        token = (runs.c.id == run.id) & (runs.c.seq == run.seq) & (runs.c.epoch == run.epoch)
        if connection.execute(update(runs).where(token).values(**values)).rowcount == 1:
            return
        now = connection.execute(
            select(runs.c.seq, runs.c.epoch, runs.c.carrier).where(runs.c.id == run.id)
        ).one_or_none()
        raise ledger.stale(run, *now) if now else NotFound(f"no run {run.id!r}")

    def _lease(
        self, connection: Connection, run: Run, zone: str | None, at: str, *, extra: bool | tuple[str, ...]
    ) -> None:
        """Take, keep or free the run's lease (I1). Rows of the service are locked while one is taken."""
        table = schema.leases
        put = text("INSERT INTO lease (service, slot, fence) VALUES (:service, :slot, 0) ON CONFLICT DO NOTHING")
        if zone is not None:
            for slot in range(self._slots):
                connection.execute(put, {"service": run.service, "slot": slot})
        rows = (
            connection.execute(select(table).where(table.c.service == run.service).with_for_update()).mappings().all()
        )
        if zone is not None and any(row["run"] == run.id and row["zone"] == zone for row in rows):
            return
        free = {"run": None, "zone": None, "since": None, "expires_at": None}
        connection.execute(update(table).where(table.c.run == run.id).values(**free))
        if zone is None:
            return
        others = [_lease(row) for row in rows if row["run"] not in (None, run.id)]
        slot = ledger.slot_for(run.id, run.service, zone, others, self._slots, extra)
        if slot >= self._slots:
            connection.execute(put, {"service": run.service, "slot": slot})
        fence = 1 + max(row["fence"] for row in rows)
        mine = (table.c.service == run.service) & (table.c.slot == slot)
        expires = ledger.expiry(datetime.fromisoformat(at), self._out_expires_s)
        taken = {"run": run.id, "zone": zone, "since": at, "fence": fence}
        taken |= {"expires_at": instant_text(expires) if expires else None}
        connection.execute(update(table).where(mine).values(**taken))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._errors(), self._engine.connect() as connection:
            if self._place.file:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def _query(self, sql: str, given: Mapping[str, Any]) -> Sequence[Any]:
        with self._errors():
            try:
                return self._ask(sql, given)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return self._ask(sql, given)  # The server was restarted since: a reader is not asked before each use.

    def _ask(self, sql: str, given: Mapping[str, Any]) -> Sequence[Any]:
        with self._reader.connect() as connection:
            return connection.execute(_text(sql), given).all()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, sqlite3.DatabaseError) as error:
            origin = error.orig if isinstance(error, DBAPIError) and error.orig else error
            if self._place.file:
                raise sqlite_failure(self._place.file, origin) from error
            if not self._opened:  # A password or a name that no waiting mends is told as to whoever only reads.
                raise database_failure(origin, away=isinstance(error, OperationalError | InterfaceError)) from error
            if isinstance(error, OperationalError | InterfaceError):  # Under a run also those: a carrier waits for it.
                raise StoreAway(f"state database: {str(origin).splitlines()[0]}") from error
            raise
        except PoolTimeout as error:
            raise StoreAway("state database: every connection is in use") from error


def _url(place: Place) -> URL:
    try:
        return make_url(place.url).set(drivername="postgresql+psycopg")
    except (ValueError, ArgumentError):  # What it says may quote a password.
        why = "state database: its URL cannot be read: is the port a number, is the host well-formed?"
        raise Rejected(why) from None


def _reader(place: Place) -> Engine | None:
    """Connections to read PostgreSQL with: one round trip a query, where a transaction takes four."""
    if place.file is not None:
        return None
    return create_engine(_url(place), isolation_level="AUTOCOMMIT", connect_args=KEEPALIVE)


def _engine(place: Place) -> Engine:
    if place.file is None:
        # A lost server is noticed in seconds, not after the kernel's two hours.
        return create_engine(_url(place), pool_pre_ping=True, connect_args=KEEPALIVE)
    engine = create_engine(f"sqlite:///{place.file}")

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # Transactions begin where we say, and IMMEDIATE, or two readers deadlock.
        # FULL: a lease that was taken is still taken after a power cut, as the zone is still out.
        for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


@lru_cache(maxsize=64)
def _text(sql: str) -> TextClause:
    return text(sql)


def _consume(connection: Connection, run: str, event: Event, at: str) -> None:
    if event.order is None:
        return
    orders = schema.orders
    mine = (orders.c.id == event.order) & (orders.c.run == run) & orders.c.consumed_at.is_(None)
    if connection.execute(update(orders).where(mine).values(consumed_at=at)).rowcount != 1:
        raise Bug(f"run {run} consumes order {event.order}, which is not pending")


def _record(
    connection: Connection, run: str, seq: int | None, at: str, effect: Effect | None, event: Event, duration_s: float
) -> None:
    row = {"run": run, "seq": seq, "at": at, "event_kind": event.kind, "event": event_text(event)}
    row |= {"effect_kind": effect.kind if effect else None, "effect": effect_text(effect) if effect else None}
    connection.execute(insert(schema.events).values(duration_s=duration_s, **row))


def _lease(row: RowMapping) -> Lease:
    since = datetime.fromisoformat(row["since"])
    return Lease(row["service"], row["slot"], row["zone"], row["run"], row["fence"], since)


def _entry(row: RowMapping) -> AuditEntry:
    return AuditEntry(**{**row, "at": datetime.fromisoformat(row["at"])})
