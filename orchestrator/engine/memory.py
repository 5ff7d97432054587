"""The store's fake: dictionaries, the same contract. For tests, and for the simulator's many short lives.

Rows are kept as JSON text where the database keeps text, so that what is not JSON fails here too. A row is parsed once
for every writing, not for every reading: who reads a state must not change it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from orchestrator.core.errors import Bug, NotFound, Rejected
from orchestrator.core.machine import Effect, Event, Json, Order
from orchestrator.core.proof import Proof, newest_first
from orchestrator.core.proof import dump as dump_proof
from orchestrator.core.proof import parse as parse_proof
from orchestrator.core.samples import Sample, disjoint
from orchestrator.core.samples import dump as dump_sample
from orchestrator.core.samples import parse as parse_sample
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine import ledger
from orchestrator.engine.codec import (
    as_kept,
    day_text,
    peers_of,
    peers_text,
    text_of,
    traffic_of,
    traffic_text,
)
from orchestrator.engine.ports import (
    EVERY_SERVICE,
    Advance,
    AuditEntry,
    Held,
    Lease,
    NewRun,
    Pending,
    Record,
    Run,
    Schedule,
    Switch,
    SwitchName,
    Usual,
)
from orchestrator.ports import Peer

T = TypeVar("T", Effect, Event)


@dataclass(slots=True)
class _Posted:
    run: str
    order: Order
    consumed: bool = False


class MemoryStore:
    """A `Store` without a disk. `max_zones_out` is the number of lease slots of each service, `out_expires_s` their time."""

    def __init__(self, max_zones_out: int = 1, out_expires_s: float | None = None) -> None:
        self._slots = max_zones_out
        self._out_expires_s = out_expires_s
        self._runs: dict[str, Run] = {}
        self._orders: list[_Posted] = []
        self._leases: dict[str, Lease] = {}
        self._fences: dict[str, int] = {}
        self._traffic: dict[str, DesiredTraffic] = {}
        self._switches: dict[tuple[str, str], Switch] = {}
        self._records: dict[str, list[Record]] = {}
        self._audit: list[AuditEntry] = []
        self._samples: list[tuple[str, datetime, str]] = []
        self._proofs: dict[str, tuple[str, datetime, str]] = {}
        self._peers: dict[tuple[str, str], str] = {}
        self._operations: dict[tuple[str, str], str | None] = {}
        self._peaks: dict[tuple[str, str], float] = {}
        self._schedules: dict[tuple[str, str], Schedule] = {}

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
        if run in self._runs:
            raise Rejected(f"there is a run {run} already")
        for other in self._runs.values():
            if kind == "deploy" == other.kind and other.service == service and not other.finished:
                raise ledger.refuse_second_deploy(other)
        kept = as_kept(state)
        self._runs[run] = Run(run, service, kind, status, 0, 0, kept, None, None, now, now, None, author, reason)
        self._records[run] = []
        return self._runs[run]

    async def claim(self, run: str, carrier: str, now: datetime) -> int:
        row = self._row(run)
        if row.finished:
            return row.epoch
        self._runs[run] = replace(row, epoch=row.epoch + 1, carrier=carrier, updated_at=now)
        return row.epoch + 1

    async def load(self, run: str) -> Run:
        return self._row(run)

    async def pending(self, run: str) -> Pending:
        service = self._row(run).service
        orders = tuple([p.order for p in self._orders if p.run == run and not p.consumed]) if self._orders else ()
        return Pending(orders, frozen=self._is_on(service, "freeze"), killed=self._is_on(service, "kill"))

    async def held(self, run: str) -> Held:
        return Held(self._row(run).epoch, self._leases.get(run))

    async def intend(self, run: Run, effect: Effect, now: datetime) -> None:
        row = self._current(run)
        self._runs[run.id] = replace(row, effect=_kept(effect), updated_at=now)

    async def commit(self, run: Run, advance: Advance, now: datetime) -> None:
        row = self._current(run)
        state = as_kept(advance.state)
        record = Record(
            run.id,
            row.seq + 1,
            now,
            _kept(advance.effect) if advance.effect else None,
            _kept(advance.event),
            advance.duration_s,
        )
        posted = self._unconsumed(run.id, advance.event)
        self._lease(
            row, advance.zone, now, extra=advance.extra
        )  # The last that can refuse: from here on nothing fails.
        if posted:
            posted.consumed = True
        self._records[run.id].append(record)
        self._runs[run.id] = replace(
            row,
            state=state,
            seq=row.seq + 1,
            status=advance.status,
            effect=None,
            zone=advance.zone,
            updated_at=now,
            finished_at=now if advance.finished else None,
            trouble=None,
        )

    async def give_up(self, run: str, epoch: int, effect: Effect | None, trouble: str, now: datetime) -> None:
        row = self._row(run)
        if row.epoch != epoch:
            return
        self._runs[run] = replace(row, trouble=trouble, updated_at=now)
        self._records[run].append(Record(run, None, now, effect, Event("carrier-gave-up", evidence=trouble), 0.0))

    async def post_order(
        self, run: str, kind: str, *, author: str, reason: str, now: datetime, args: Mapping[str, Json] | None = None
    ) -> int:
        row = self._row(run)
        if row.finished:
            raise ledger.reject_late_order(run, row.status, kind)
        order = Order(len(self._orders) + 1, kind, author, reason, now, as_kept(args or {}))
        self._orders.append(_Posted(run, order))
        return order.id

    async def leases(self, service: str) -> Sequence[Lease]:
        found = [lease for lease in self._leases.values() if lease.service == service]
        return sorted(found, key=lambda lease: lease.slot)

    async def load_traffic(self, service: str) -> DesiredTraffic | None:
        return self._traffic.get(service)

    async def save_traffic(self, service: str, desired: DesiredTraffic, expected_version: int) -> None:
        version = self._traffic[service].version if service in self._traffic else 0
        live = [lease.fence for lease in self._leases.values() if lease.service == service]
        ledger.check_traffic(service, desired, expected_version, version, live)
        self._traffic[service] = traffic_of(traffic_text(desired), desired.version, desired.fence)

    async def set_switch(
        self, service: str, name: SwitchName, *, on: bool, author: str, reason: str, now: datetime
    ) -> None:
        self._switches[service, name] = Switch(service, name, on, author, reason, now)

    async def switches(self) -> Sequence[Switch]:
        return [self._switches[key] for key in sorted(self._switches)]

    async def events(self, run: str) -> Sequence[Record]:
        self._row(run)
        return list(self._records[run])

    async def runs(self, service: str | None = None, limit: int = 50) -> Sequence[Run]:
        found = [await self.load(run) for run, row in self._runs.items() if service in (None, row.service)]
        return sorted(found, key=lambda row: (row.created_at, row.id), reverse=True)[:limit]

    async def unfinished(self, service: str | None = None) -> Sequence[Run]:
        return [await self.load(run) for run in await self.open_runs(service)]

    async def open_runs(self, service: str | None = None) -> Mapping[str, int]:
        rows = sorted(self._runs.values(), key=lambda row: (row.created_at, row.id))
        return {row.id: row.epoch for row in rows if not row.finished and service in (None, row.service)}

    async def usual(self, service: str) -> Mapping[str, Usual]:
        records = [
            (record.effect.kind, record.event.kind, record.duration_s)
            for run, records in self._records.items()
            if self._runs[run].service == service
            for record in records
            if record.effect and record.seq is not None
        ]
        return ledger.usual(records)

    async def append_audit(self, author: str, act: str, reason: str, result: str, now: datetime) -> AuditEntry:
        entry = ledger.seal(self._audit[-1] if self._audit else None, author, act, reason, result, now)
        self._audit.append(entry)
        return entry

    async def audit(self) -> Sequence[AuditEntry]:
        return list(self._audit)

    async def add_samples(self, service: str, samples: Sequence[Sample]) -> None:
        self._samples += [(service, s.at, text_of(dump_sample(s))) for s in samples]

    async def samples(self, service: str, since: datetime, until: datetime) -> Sequence[Sample]:
        found = sorted((at, text) for s, at, text in self._samples if s == service and since < at <= until)
        return disjoint(parse_sample(at, json.loads(text)) for at, text in found)

    async def forget_samples(self, service: str, before: datetime) -> None:
        self._samples = [row for row in self._samples if row[0] != service or row[1] >= before]

    async def put_proofs(self, proofs: Sequence[Proof]) -> None:
        self._proofs |= {p.id: (p.service, p.last, text_of(dump_proof(p))) for p in proofs}

    async def proofs(self, service: str, limit: int = 2000) -> Sequence[Proof]:
        found = [parse_proof(json.loads(text)) for s, _, text in self._proofs.values() if s == service]
        return newest_first(found)[:limit]

    async def save_peers(self, service: str, zone: str, peers: Sequence[Peer]) -> None:
        self._peers[service, zone] = peers_text(peers)

    async def peers(self, service: str, zone: str) -> Sequence[Peer]:
        return peers_of(self._peers[service, zone]) if (service, zone) in self._peers else []

    async def keep_operation(self, service: str, key: str, token: str | None) -> None:
        self._operations[service, key] = token

    async def operation(self, service: str, key: str) -> str | None:
        return self._operations.get((service, key))

    async def add_schedule(self, service: str, schedule: str, document: Json, now: datetime) -> None:
        if (service, schedule) in self._schedules:
            raise Rejected(f"there is a schedule {schedule} already")
        made = Schedule(service, schedule, as_kept(document), False, now, now)
        self._schedules[service, schedule] = made

    async def remove_schedule(self, service: str, schedule: str) -> None:
        if self._schedules.pop((service, schedule), None) is None:
            raise NotFound(f"no schedule {schedule!r}")

    async def pause_schedule(self, service: str, schedule: str, *, paused: bool, now: datetime) -> None:
        row = self._schedules.get((service, schedule))
        if row is None:
            raise NotFound(f"no schedule {schedule!r}")
        if row.paused is not paused:
            since = row.since if paused else now
            self._schedules[service, schedule] = replace(row, paused=paused, since=since)

    async def schedules(self, service: str) -> Sequence[Schedule]:
        return [row for (of, _), row in sorted(self._schedules.items()) if of == service]

    async def fire(self, schedule: Schedule, nominal: datetime, run: NewRun | None, note: str, now: datetime) -> bool:
        row = self._schedules.get((schedule.service, schedule.id))
        if row is None or row.paused or row.since != schedule.since:
            return False
        if run is not None:
            await self.create_run(
                run.id,
                schedule.service,
                run.kind,
                run.state,
                run.status,
                author=run.author,
                reason=run.reason,
                now=now,
            )
        fired = replace(row, since=nominal, last_fired=now, last_run=run.id if run else None, note=note)
        self._schedules[schedule.service, schedule.id] = fired
        return True

    async def note_peak(self, service: str, rps: float, now: datetime) -> None:
        key = service, day_text(now)
        self._peaks[key] = max(rps, self._peaks.get(key, 0.0))

    async def peak_rps(self, service: str, since: datetime) -> float | None:
        return max(
            (rps for (s, day), rps in self._peaks.items() if s == service and day >= day_text(since)), default=None
        )

    def _row(self, run: str) -> Run:
        try:
            return self._runs[run]
        except KeyError:
            raise NotFound(f"no run {run!r}") from None

    def _current(self, run: Run) -> Run:
        row = self._row(run.id)
        if (row.seq, row.epoch) != (run.seq, run.epoch):
            raise ledger.stale(run, row.seq, row.epoch, row.carrier)
        return row

    def _is_on(self, service: str, name: str) -> bool:
        if not self._switches:
            return False
        return any((s, name) in self._switches and self._switches[s, name].on for s in (service, EVERY_SERVICE))

    def _unconsumed(self, run: str, event: Event) -> _Posted | None:
        if event.order is None:
            return None
        for posted in self._orders:
            if posted.run == run and posted.order.id == event.order and not posted.consumed:
                return posted
        raise Bug(f"run {run} consumes order {event.order}, which is not pending")

    def _lease(self, row: Run, zone: str | None, now: datetime, *, extra: bool | tuple[str, ...]) -> None:
        mine = self._leases.get(row.id)
        if zone is None:
            self._leases.pop(row.id, None)
            return
        if mine and mine.zone == zone:
            return
        others = [lease for lease in self._leases.values() if lease.service == row.service and lease.run != row.id]
        slot = ledger.slot_for(row.id, row.service, zone, others, self._slots, extra)
        fence = self._fences[row.service] = self._fences.get(row.service, 0) + 1
        self._leases[row.id] = Lease(
            row.service, slot, zone, row.id, fence, now, ledger.expiry(now, self._out_expires_s)
        )


def _kept(told: T) -> T:
    """As a row gives it back: what it carries is JSON, and nobody else's to change."""
    return replace(told, args=as_kept(told.args)) if told.args else told
