"""Our tables, once for SQLite and PostgreSQL, and how an older file becomes a newer one.

Instants are UTC text of one width, documents are JSON text: both databases sort and compare them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
    update,
)

from orchestrator.core.errors import Rejected
from orchestrator.engine.glance import SCHEMA_VERSION, reject_version

_metadata = MetaData()
_serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in a column of exactly this type.

meta = Table("meta", _metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

runs = Table(
    "runs",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("service", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("effect", Text),
    Column("zone", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("finished_at", Text),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("carrier", Text),
    Column("trouble", Text),
)
Index("runs_by_service", runs.c.service, runs.c.created_at)
_unfinished_deploy = (runs.c.finished_at.is_(None)) & (runs.c.kind == "deploy")
Index(
    "one_unfinished_deploy_per_service",
    runs.c.service,
    unique=True,
    sqlite_where=_unfinished_deploy,
    postgresql_where=_unfinished_deploy,
)

_unfinished_runs = Index(  # Asked every second; rows that have ended are many, and large.
    "unfinished_runs",
    runs.c.service,
    runs.c.created_at,
    sqlite_where=runs.c.finished_at.is_(None),
    postgresql_where=runs.c.finished_at.is_(None),
)

events = Table(
    "events",
    _metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("run", Text, ForeignKey("runs.id"), nullable=False),
    Column("seq", BigInteger),
    Column("at", Text, nullable=False),
    Column("effect_kind", Text),
    Column("effect", Text),
    Column("event_kind", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("duration_s", Float, nullable=False),
    UniqueConstraint("run", "seq"),
)
Index("events_by_effect", events.c.effect_kind, events.c.id)

orders = Table(
    "orders",
    _metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("run", Text, ForeignKey("runs.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("consumed_at", Text),
)
Index("orders_by_run", orders.c.run, orders.c.id)

# A free slot keeps its row, so that the fence outlives every lease.
leases = Table(
    "lease",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("zone", Text),
    Column("run", Text, ForeignKey("runs.id"), unique=True),
    Column("fence", BigInteger, nullable=False),
    Column("since", Text),
    Column("expires_at", Text),
)

traffic = Table(
    "traffic",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)

switches = Table(
    "switches",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("is_on", Boolean, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Text, nullable=False),
)

audit = Table(
    "audit",
    _metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

# What was measured during runs, one row about a second; a proof of each fail-out; the busiest ten seconds of each day.
samples = Table(
    "samples",
    _metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("service", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("zones", Text, nullable=False),
)
Index("samples_by_time", samples.c.service, samples.c.at)

proofs = Table(
    "proofs",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("service", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("proof", Text, nullable=False),
)
Index("proofs_by_time", proofs.c.service, proofs.c.at)

peaks = Table(
    "peaks",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("rps", Float, nullable=False),
)

# Where the instances of each zone were seen last: an evacuation asks no cloud for them (I10).
peers = Table(
    "peers",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("zone", Text, primary_key=True),
    Column("peers", Text, nullable=False),
)

# When drills are due, and how far each schedule has come: a firing moves `since` and begins its run, or neither.
schedules = Table(
    "schedules",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("since", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("last_fired", Text),
    Column("last_run", Text),
    Column("note", Text, nullable=False),
)

# Where to ask a cloud after a long-running operation, for whoever carries on.
operations = Table(
    "operations",
    _metadata,
    Column("service", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("token", Text, nullable=False),
)

Upgrade = Callable[[Connection], None]


def _add_measures(connection: Connection) -> None:
    _metadata.create_all(connection, tables=[samples, proofs, peaks])


def _add_peers(connection: Connection) -> None:
    _metadata.create_all(connection, tables=[peers])


def _add_schedules(connection: Connection) -> None:
    _metadata.create_all(connection, tables=[schedules])


def _add_operations(connection: Connection) -> None:
    _metadata.create_all(connection, tables=[operations])


def _index_unfinished(connection: Connection) -> None:
    _unfinished_runs.create(connection, checkfirst=True)


# From version N to N + 1.
UPGRADES: Final[Mapping[int, Upgrade]] = {
    1: _add_measures,
    2: _add_peers,
    3: _add_schedules,
    4: _add_operations,
    5: _index_unfinished,
}


def prepare(connection: Connection, upgrades: Mapping[int, Upgrade] = UPGRADES, target: int = SCHEMA_VERSION) -> None:
    """Create the tables in an empty database, upgrade an older one, refuse a newer one (Rejected), inside one transaction."""
    if not inspect(connection).has_table("meta"):
        _metadata.create_all(connection)
        connection.execute(insert(meta).values(key="schema_version", value=str(target)))
        return
    row = select(meta.c.value).where(meta.c.key == "schema_version").with_for_update()
    text = connection.execute(row).scalar()
    if text is None or not text.isdigit():
        raise Rejected("the state has no schema version: it was not written by failout")
    for version in range(int(text), target):
        upgrades[version](connection)
    reject_version(max(int(text), target), target)
    connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(target)))
