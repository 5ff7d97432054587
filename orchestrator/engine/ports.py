"""What `carry` needs of a store, and the rows it keeps.

`SqlStore` (SQLite, PostgreSQL) and `MemoryStore` (the fake, for tests and the simulator) pass one contract suite,
tests/contract/test_store.py. Methods are async so that a slow disk or a lost database never stalls the event loop; the
SQL store runs each one in a thread, the fake never suspends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from orchestrator.core.machine import Effect, Event, Json, Order
from orchestrator.core.proof import Proof
from orchestrator.core.samples import Sample
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.ports import Peer

SwitchName = Literal["freeze", "kill"]
EVERY_SERVICE = "*"  # A switch of this service holds for all of them.


class Run(msgspec.Struct, frozen=True):
    """One run's row. `seq` counts commits, `epoch` counts carriers: both together are the compare-and-swap token.

    `effect` is intended and not committed yet; `zone` the zone whose lease the run holds; `trouble` why its last carrier
    gave up, until the next commit.
    """

    id: str
    service: str
    kind: str
    status: str
    seq: int
    epoch: int
    state: Json
    effect: Effect | None
    zone: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    author: str
    reason: str
    carrier: str | None = None
    trouble: str | None = None

    @property
    def finished(self) -> bool:
        return self.finished_at is not None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one run to have one zone out (I1). `fence` only grows, per service, over all its slots."""

    service: str
    slot: int
    zone: str
    run: str
    fence: int
    since: datetime
    expires_at: datetime | None = None


class Held(msgspec.Struct, frozen=True):
    """What a fence compares with: who carries the run now, and what lease the run holds."""

    epoch: int
    lease: Lease | None


class Pending(msgspec.Struct, frozen=True):
    """What people want of a run right now: its unconsumed orders, oldest first, and the switches of its service."""

    orders: tuple[Order, ...]
    frozen: bool
    killed: bool


class Advance(msgspec.Struct, frozen=True):
    """One commit: the event, the effect it came of (None: raised by the machine itself), and the state after it.

    `zone` is the zone whose lease this state needs, `extra` beyond the slots that there are: it is dead, or I1 is
    overridden; or the zones beside which it may go beyond them. `event.order` names the order that the event consumes.
    """

    state: Json
    status: str
    zone: str | None
    finished: bool
    event: Event
    effect: Effect | None
    duration_s: float
    extra: bool | tuple[str, ...] = False


class Record(msgspec.Struct, frozen=True):
    """One line of a run's history. `seq` is None for a carrier that gave up: nothing was folded in."""

    run: str
    seq: int | None
    at: datetime
    effect: Effect | None
    event: Event
    duration_s: float


@dataclass(frozen=True, slots=True)
class Switch:
    service: str
    name: str
    on: bool
    author: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Usual:
    """How long an effect took before, over its usual outcome only: `count` times, three of four within `p75_s`."""

    count: int
    p75_s: float


class Schedule(msgspec.Struct, frozen=True):
    """One schedule of drills. `document` says what and when; `since`: firings up to then are done or do not count.

    `last_run`: the run of its last firing, None when that was skipped; `note`: what came of it.
    """

    service: str
    id: str
    document: Json
    paused: bool
    since: datetime
    created_at: datetime
    last_fired: datetime | None = None
    last_run: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that a firing begins."""

    id: str
    kind: str
    state: Json
    status: str
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`hash` covers every field and `prev_hash`, so a changed or removed line breaks the chain after it."""

    id: int
    at: datetime
    author: str
    act: str
    reason: str
    result: str
    prev_hash: str
    hash: str


class Store(Protocol):
    """Rows of runs, leases, orders, traffic. `now` is always given: the store reads no clock.

    Any method may raise StoreAway (busy, connection lost, disk full) or Rejected (unreadable, read-only).
    """

    async def create_run(
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
        """Raise Refused when the service already has an unfinished deploy, naming it; Rejected when the id is taken."""

    async def claim(self, run: str, carrier: str, now: datetime) -> int:
        """Make `carrier` the one that carries the run and return its epoch. Every earlier carrier is a zombie now.

        A run that has ended stays as it is: who looked for runs to carry may have looked before its end.
        """

    async def load(self, run: str) -> Run:
        """Raise NotFound."""

    async def pending(self, run: str) -> Pending: ...

    async def held(self, run: str) -> Held: ...

    async def intend(self, run: Run, effect: Effect, now: datetime) -> None:
        """Record the intent (I11). Raise StaleCarrier when the row is no longer at `run.seq` and `run.epoch`."""

    async def commit(self, run: Run, advance: Advance, now: datetime) -> None:
        """Fold one event in: state, lease, order and history in one transaction, or nothing.

        Raise StaleCarrier as `intend` does; Refused (I1) when the lease is another run's, naming holder, zone and since.
        """

    async def give_up(self, run: str, epoch: int, effect: Effect | None, trouble: str, now: datetime) -> None:
        """Note why this carrier stops without an end. Changes no state; a zombie's note is dropped."""

    async def post_order(
        self, run: str, kind: str, *, author: str, reason: str, now: datetime, args: Mapping[str, Json] | None = None
    ) -> int:
        """Return the order's id. Raise Rejected when the run has finished."""

    async def leases(self, service: str) -> Sequence[Lease]:
        """Held leases only."""

    async def load_traffic(self, service: str) -> DesiredTraffic | None: ...

    async def save_traffic(self, service: str, desired: DesiredTraffic, expected_version: int) -> None:
        """Write the document if it still is at `expected_version` (0: there is none).

        Raise StoreAway when it moved on (read again), StaleCarrier unless `desired.fence` is a lease's that is held now
        (the first document is free).
        """

    async def set_switch(
        self, service: str, name: SwitchName, *, on: bool, author: str, reason: str, now: datetime
    ) -> None: ...

    async def switches(self) -> Sequence[Switch]:
        """Every switch that was ever set, with its present value."""

    async def events(self, run: str) -> Sequence[Record]:
        """Oldest first."""

    async def runs(self, service: str | None = None, limit: int = 50) -> Sequence[Run]:
        """Newest first: what is unfinished may be older than `limit` that have ended since."""

    async def unfinished(self, service: str | None = None) -> Sequence[Run]:
        """Every run that has not ended, of one service or all, oldest first."""

    async def open_runs(self, service: str | None = None) -> Mapping[str, int]:
        """Return each run that has not ended, of one service or all, with its epoch, oldest first."""

    async def usual(self, service: str) -> Mapping[str, Usual]:
        """How long each kind of effect takes, from the last 200 of it."""

    async def add_samples(self, service: str, samples: Sequence[Sample]) -> None: ...

    async def samples(self, service: str, since: datetime, until: datetime) -> Sequence[Sample]:
        """What was measured in (since, until], oldest first, no second twice."""

    async def forget_samples(self, service: str, before: datetime) -> None: ...

    async def put_proofs(self, proofs: Sequence[Proof]) -> None:
        """Write proofs, over those of the same id."""

    async def proofs(self, service: str, limit: int = 2000) -> Sequence[Proof]:
        """Newest first."""

    async def save_peers(self, service: str, zone: str, peers: Sequence[Peer]) -> None:
        """Remember where the instances of a zone are, for the day when its cloud does not answer (I10)."""

    async def peers(self, service: str, zone: str) -> Sequence[Peer]: ...

    async def keep_operation(self, service: str, key: str, token: str | None) -> None:
        """Remember where a cloud tells of a long-running operation; None: forget it."""

    async def operation(self, service: str, key: str) -> str | None: ...

    async def add_schedule(self, service: str, schedule: str, document: Json, now: datetime) -> None:
        """Raise Rejected when the service has one of that id."""

    async def remove_schedule(self, service: str, schedule: str) -> None:
        """Raise NotFound."""

    async def pause_schedule(self, service: str, schedule: str, *, paused: bool, now: datetime) -> None:
        """What was missed meanwhile is not made up for: from its resumption on, firings count anew. Raise NotFound."""

    async def schedules(self, service: str) -> Sequence[Schedule]:
        """By id."""

    async def fire(self, schedule: Schedule, nominal: datetime, run: NewRun | None, note: str, now: datetime) -> bool:
        """Note a firing and begin its run, in one transaction; False when somebody else fired, paused or removed it.

        `run` None: it was due and is skipped, and `note` says why.
        """

    async def note_peak(self, service: str, rps: float, now: datetime) -> None:
        """Remember the most requests a second of each day."""

    async def peak_rps(self, service: str, since: datetime) -> float | None: ...

    async def append_audit(self, author: str, act: str, reason: str, result: str, now: datetime) -> AuditEntry: ...

    async def audit(self) -> Sequence[AuditEntry]:
        """Oldest first. `ledger.verify` checks the chain."""
