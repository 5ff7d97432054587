"""The books of a run: each request is opened once and settled once, and sent == ok + failed is asserted from both sides."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from hdrh.histogram import HdrHistogram

from orchestrator.core.errors import Bug
from orchestrator.lab.traffic.answer import Answer
from orchestrator.lab.traffic.plan import Planned
from orchestrator.lab.traffic.record import OK, RawLog, Recount, Row, Slice, rank

BOUND_S = 1.0  # a request without a correct answer this long after it was due has failed
LATENCY_MAX_US = 60_000_000


class Request:
    """One request on its way. `due` is in loop time. `give_up` frees whatever carries it when its time has passed."""

    __slots__ = ("alarm", "due", "front", "give_up", "planned")

    def __init__(self, planned: Planned, due: float) -> None:
        self.planned = planned
        self.due = due
        self.front = ""
        self.give_up: Callable[[], object] | None = None
        self.alarm: asyncio.TimerHandle | None = None


class Ledger:
    """`unix_zero` is unix time minus loop time. A request that nobody settles is settled by its alarm, as a timeout.

    That alarm is what keeps the count whole: whatever becomes of connections and tasks, no request gets lost.
    """

    def __init__(self, log: RawLog, unix_zero: float, loop: asyncio.AbstractEventLoop) -> None:
        self.sent = 0
        self.open_requests: set[Request] = set()
        self.tally = Tally()
        self._page: list[Row] = []
        self._drained: asyncio.Future[None] | None = None
        self._log = log
        self._unix_zero = unix_zero
        self._loop = loop

    def open(self, planned: Planned, due: float) -> Request:
        request = Request(planned, due)
        self.sent += 1
        self.open_requests.add(request)
        request.alarm = self._loop.call_at(due + BOUND_S, self._expire, request)
        return request

    def settle(self, request: Request, outcome: str, answer: Answer | None = None) -> None:
        """Close the books on a request; what comes after the first time is ignored. A late correct answer is a timeout."""
        if request not in self.open_requests:
            return
        self.open_requests.remove(request)
        if request.alarm is not None:
            request.alarm.cancel()
        latency_s = self._loop.time() - request.due
        if outcome == OK and latency_s > BOUND_S:
            outcome = "timeout"
        planned = request.planned
        row = Row(
            round(request.due + self._unix_zero, 6),
            planned.client,
            *((answer.zone, answer.instance, answer.version) if answer else ("", "", "")),
            outcome,
            round(latency_s * 1000, 3),
            "fresh" if planned.fresh else "keepalive",
            "long" if planned.long else "short",
            request.front,
        )
        self._log.write(row)
        if self._drained is not None and not self.open_requests:
            self._drained.set_result(None)
        self.tally.add(row)
        self._page.append(row)

    def is_open(self, request: Request) -> bool:
        return request in self.open_requests

    async def drained(self) -> None:
        """Wait until nothing is open. Every request has an alarm, so that is within the bound once no more are opened."""
        if self.open_requests:
            self._drained = self._loop.create_future()
            await self._drained

    def turn_page(self) -> list[Row]:
        """Return what was settled since the last call, publish the log, and check the books."""
        self.check()
        self._log.flush()
        page, self._page = self._page, []
        return page

    def check(self) -> None:
        settled = self.tally.total.ok + self.tally.total.failed
        if self.sent != settled + len(self.open_requests):
            raise Bug(f"{self.sent} requests sent, {settled} settled, {len(self.open_requests)} open: the count is off")

    def _expire(self, request: Request) -> None:
        self.settle(request, "timeout")
        if request.give_up is not None:
            request.give_up()


class Pile:
    """Counts and latencies of some requests in bounded memory: three significant digits, of the ok ones."""

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self._latency_us = HdrHistogram(1, LATENCY_MAX_US, 3)

    def add(self, row: Row) -> None:
        if row.outcome == OK:
            self.ok += 1
            self._latency_us.record_value(max(1, round(row.latency_ms * 1000)))
        else:
            self.failed += 1

    def counts(self) -> dict[str, int]:
        return {"ok": self.ok, "failed": self.failed}

    def slice(self) -> Slice:
        if not self.ok:
            return Slice(0, self.failed, None, None)
        return Slice(self.ok, self.failed, self._quantile_ms(0.50), self._quantile_ms(0.99))

    def _quantile_ms(self, q: float) -> float:
        percent = 100 * rank(q, self.ok) / self.ok  # the histogram rounds where a recount takes the next whole rank
        return float(self._latency_us.get_value_at_percentile(percent)) / 1000


class Tally:
    """All that was settled. `recount` costs milliseconds: it is for the end of a run, the piles' `counts` for its progress."""

    def __init__(self) -> None:
        self.total = Pile()
        self.failures: Counter[str] = Counter()
        self.zones: dict[str, Pile] = {}
        self.versions: dict[str, Pile] = {}

    def add(self, row: Row) -> None:
        self.total.add(row)
        if row.outcome != OK:
            self.failures[row.outcome] += 1
        for piles, key in ((self.zones, row.zone), (self.versions, row.version)):
            pile = piles.get(key)
            if pile is None:
                pile = piles[key] = Pile()
            pile.add(row)

    def recount(self) -> Recount:
        """Say what record.recount says of the log, but from the books: the two are compared."""
        total = self.total.slice()
        return Recount(
            total.ok + total.failed,
            *(total.ok, total.failed, total.p50_ms, total.p99_ms),
            dict(sorted(self.failures.items())),
            {key: self.zones[key].slice() for key in sorted(self.zones)},
            {key: self.versions[key].slice() for key in sorted(self.versions)},
        )
