"""The raw log of requests, and how to recount it. What the generator claims must follow from this file alone."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

from orchestrator.core.errors import Rejected

OK = "ok"


class Row(NamedTuple):
    """One request. `t`: unix seconds at which it was due. Zone, instance and version as far as an answer told them.

    `outcome`: ok, status-N, reset (closed before a whole answer), refused, timeout (no whole answer within the bound),
    dns, wrong-body, unsent. `connection`: fresh or keepalive. `length`: short or long. `front`: the address asked.
    """

    t: float
    client: int
    zone: str
    instance: str
    version: str
    outcome: str
    latency_ms: float
    connection: str
    length: str
    front: str


class RawLog:
    """Writes rows to a new private file (0600); an existing one is never mixed with another run. Flush to publish."""

    def __init__(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise Rejected(f"{path} exists; a log holds one run: name a new file") from error
        except OSError as error:
            raise Rejected(f"cannot write {path}: {error.strerror}") from error
        self._file = os.fdopen(descriptor, "w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(Row._fields)
        self.flush = self._file.flush
        self.close = self._file.close

    def write(self, row: Row) -> None:
        self._writer.writerow(row)


@dataclass(frozen=True, slots=True)
class Slice:
    """Requests of one zone or version. Percentiles are of the ok ones, None without any."""

    ok: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Recount:
    """`by_zone` and `by_version` use "" for requests that no answer came to. `failures`: outcome -> count, without ok."""

    sent: int
    ok: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    failures: dict[str, int]
    by_zone: dict[str, Slice]
    by_version: dict[str, Slice]


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a raw log. A last line that is still being written is left out; any other damage is Rejected."""
    with path.open(newline="") as file:
        whole = (line for line in file if line.endswith("\n"))
        reader = csv.reader(whole)
        if tuple(next(reader, ())) != Row._fields:
            raise Rejected(f"{path} is not a log of requests: its first line must be {','.join(Row._fields)}")
        for cells in reader:
            try:
                t, client, zone, instance, version, outcome, latency_ms, *how = cells
                connection, length, front = how
                seen = (float(t), int(client), zone, instance, version, outcome, float(latency_ms))
                yield Row(*seen, connection, length, front)
            except ValueError as error:
                raise Rejected(f"{path} line {reader.line_num} is not a request: {error}") from error


def recount(rows: Iterable[Row], since: float | None = None, until: float | None = None) -> Recount:
    """Count the requests that were due in [since, until), unix seconds; no bound where None."""
    outcomes: Counter[str] = Counter()
    latencies: list[float] = []
    zones: dict[str, _Pile] = {}
    versions: dict[str, _Pile] = {}
    for row in rows:
        if (since is not None and row.t < since) or (until is not None and row.t >= until):
            continue
        outcomes[row.outcome] += 1
        if row.outcome == OK:
            latencies.append(row.latency_ms)
        for piles, key in ((zones, row.zone), (versions, row.version)):
            piles.setdefault(key, _Pile()).add(row)
    sent, ok = outcomes.total(), outcomes.pop(OK, 0)
    latencies.sort()
    return Recount(
        sent,
        ok,
        sent - ok,
        percentile(latencies, 0.50),
        percentile(latencies, 0.99),
        dict(sorted(outcomes.items())),
        {key: zones[key].slice() for key in sorted(zones)},
        {key: versions[key].slice() for key in sorted(versions)},
    )


def percentile(ordered: list[float], q: float) -> float | None:
    """Return the smallest value that at least the share `q` of `ordered` does not exceed."""
    return ordered[rank(q, len(ordered)) - 1] if ordered else None


def rank(q: float, count: int) -> int:
    """Return which of `count` ordered values, counted from 1, is the quantile `q`."""
    return max(1, ceil(q * count))


class _Pile:
    def __init__(self) -> None:
        self.failed = 0
        self.latencies: list[float] = []

    def add(self, row: Row) -> None:
        if row.outcome == OK:
            self.latencies.append(row.latency_ms)
        else:
            self.failed += 1

    def slice(self) -> Slice:
        ordered = sorted(self.latencies)
        return Slice(len(ordered), self.failed, percentile(ordered, 0.50), percentile(ordered, 0.99))
