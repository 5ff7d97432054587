"""The open loop: every request is started when it is due, whatever became of the ones before."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from orchestrator.lab.traffic.client import Budget, Client, Manners
from orchestrator.lab.traffic.ledger import BOUND_S, Ledger
from orchestrator.lab.traffic.plan import Planned, Rate, plan
from orchestrator.lab.traffic.record import RawLog, Recount, Row, recount
from orchestrator.lab.traffic.resolver import Cache, Resolver

PAGE_S = 1.0
PAGES_SHOWN = 3  # the seconds that progress speaks of: enough requests per zone for a p99 worth looking at


@dataclass(frozen=True, slots=True)
class Settings:
    """`seconds` None: until stopped. `sockets`: how many connections may be open at once."""

    resolver: tuple[str, int]
    name: str
    port: int
    log: Path
    rate: Rate
    clients: int = 60
    seconds: float | None = None
    fresh_share: float = 0.3
    long_share: float = 0.1
    long_ms: int = 300
    seed: int = 0
    sockets: int = 2000


@dataclass(frozen=True, slots=True)
class Summary:
    """`started`, `ended`: unix seconds."""

    started: float
    ended: float
    seed: int
    log: str
    dns_queries: int
    cpu_s: float
    requests: Recount


Progress = Callable[[dict[str, Any]], None]


async def generate(settings: Settings, stop: asyncio.Event, progress: Progress | None = None) -> Summary:
    """Run until `seconds` have passed or `stop` is set, let what is out come back, and return the counts.

    Raises Rejected when the log cannot be written, Bug when sent != ok + failed.
    """
    loop = asyncio.get_running_loop()
    log = RawLog(settings.log)
    resolver = Resolver(settings.name, Random(f"dns {settings.seed}"))
    started, cpu_s = time.time(), time.process_time()
    ledger = Ledger(log, started - loop.time(), loop)
    manners = Manners(settings.port, settings.name.rstrip("."), settings.long_ms)
    sockets = Budget(settings.sockets)
    caches = [Cache(resolver, Random(f"{settings.seed} {i}"), loop.time) for i in range(settings.clients)]
    clients = [Client(cache, manners, ledger, sockets) for cache in caches]
    planned = plan(
        *(settings.rate, settings.clients),
        fresh_share=settings.fresh_share,
        long_share=settings.long_share,
        seed=settings.seed,
    )
    try:
        await resolver.open(*settings.resolver)
        pages = loop.create_task(_turn_pages(ledger, started, progress, stop))
        await _fire(planned, clients, ledger, settings.seconds, stop)
        await ledger.drained()
        pages.cancel()
        with suppress(asyncio.CancelledError):
            await pages
        ledger.check()
    finally:
        for client in clients:
            client.close()
        resolver.close()
        log.close()
    counts = ledger.tally.recount()
    used_s = time.process_time() - cpu_s
    return Summary(started, time.time(), settings.seed, str(settings.log), resolver.queries, used_s, counts)


async def _fire(
    planned: Iterator[Planned], clients: list[Client], ledger: Ledger, seconds: float | None, stop: asyncio.Event
) -> None:
    loop = asyncio.get_running_loop()
    stopped = loop.create_task(stop.wait())
    zero = loop.time()
    for request in planned:
        if seconds is not None and request.due_s >= seconds - 1e-9:  # the plan's sums are not exact
            break
        due = zero + request.due_s
        if due > loop.time():
            await asyncio.wait((stopped,), timeout=due - loop.time())
        if stop.is_set():
            break
        opened = ledger.open(request, due)
        if loop.time() - due > BOUND_S:  # The generator itself was held up: the request was never made.
            ledger.settle(opened, "unsent")
        else:
            clients[request.client].start(opened)
    stopped.cancel()


async def _turn_pages(ledger: Ledger, started: float, progress: Progress | None, stop: asyncio.Event) -> None:
    """Check the books each second and tell what the last seconds were like; ends only by an error, and then all does."""
    shown: deque[list[Row]] = deque(maxlen=PAGES_SHOWN)
    try:
        while True:
            await asyncio.sleep(PAGE_S)
            shown.append(ledger.turn_page())
            if progress is not None:
                progress(_page(ledger, started, shown))
    except Exception:
        stop.set()
        raise


def _page(ledger: Ledger, started: float, shown: deque[list[Row]]) -> dict[str, Any]:
    now, tally = time.time(), ledger.tally
    return {
        "kind": "progress",
        "t": round(now, 3),
        "seconds": round(now - started, 3),
        "sent": ledger.sent,
        "open": len(ledger.open_requests),
        **tally.total.counts(),
        "failures": dict(sorted(tally.failures.items())),
        "by_zone": {key: tally.zones[key].counts() for key in sorted(tally.zones)},
        "by_version": {key: tally.versions[key].counts() for key in sorted(tally.versions)},
        "last": {"seconds": PAGE_S * len(shown), **asdict(recount(chain.from_iterable(shown)))},
    }
