"""The lab's own users as a signal: the share that failed, from the raw log of their requests."""

from __future__ import annotations

import asyncio
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.core.signal import LabTraffic
from orchestrator.ports import Reading

LATE_S: Final = 1.0  # A request may be a second under way before it has failed; its line comes after that.
TAIL_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TrafficSignal:
    spec: LabTraffic

    async def read(self) -> Reading:
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._read, time.time()), self.spec.timeout_s)
        except TimeoutError:
            return Reading("unknown", f"{self.spec.folder} could not be read within {self.spec.timeout_s:g} s")
        except (OSError, ValueError, KeyError, csv.Error) as error:
            return Reading("unknown", f"{self.spec.folder}: {error}")

    def _read(self, now: float) -> Reading:
        spec = self.spec
        logs = sorted(Path(spec.folder).glob("requests*.csv"), key=lambda path: path.stat().st_mtime)
        if not logs:
            return Reading("unknown", f"no log of requests is in {spec.folder}")
        since = now - spec.window_s - LATE_S
        outcomes = [outcome for t, outcome in _tail(logs[-1]) if since <= t]
        failed = sum(outcome != "ok" for outcome in outcomes)
        if not outcomes:
            return Reading("unknown", f"{logs[-1].name}: no user asked in the last {spec.window_s:g} s")
        told = f"{logs[-1].name}: {failed} of {len(outcomes)} requests of the last {spec.window_s:g} s failed"
        return Reading("bad" if failed > spec.failed_share_max * len(outcomes) else "good", told)


def _tail(log: Path) -> list[tuple[float, str]]:
    """When each of the last requests was due, and what came of it; a line that is still being written is left out."""
    with log.open("rb") as file:
        columns = file.readline().decode().strip().split(",")
        start = max(file.tell(), log.stat().st_size - TAIL_BYTES)
        cut = start > file.tell()
        file.seek(start)
        lines = file.read().decode().split("\n")[1 if cut else 0 : -1]
    return [(float(row["t"]), row["outcome"]) for row in csv.DictReader(lines, columns)]
