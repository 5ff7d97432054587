"""Measures the service while a run is under way, and writes down what each fail-out proved.

It watches from beside the runs: it changes nothing, holds nothing up, and whatever fails here fails no run. A gap stays
a gap, and the proof over it is weaker (I2).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from orchestrator.core.errors import FailoutError
from orchestrator.core.health import window
from orchestrator.core.proof import BEFORE_S, History, Proof, Step, Worth, derive
from orchestrator.core.samples import SPAN_S, Sample, ZoneSample, peak_rps
from orchestrator.core.standing import Objective
from orchestrator.core.topology import Topology
from orchestrator.engine.carry import Log
from orchestrator.engine.glance import Glance
from orchestrator.engine.ports import Record, Run, Store
from orchestrator.operations.page import write_report
from orchestrator.operations.report import collect, report_folder
from orchestrator.workflows.gauge import Gauge, Reading, ZoneReading
from orchestrator.workflows.world import World

EVERY_S: Final = 1.0
IDLE_EVERY_S: Final = 5.0  # Between runs it only keeps the last minutes to compare with, and the day's peak.
COARSER_AFTER: Final = 1800  # samples of one run: half an hour by the second, then by two seconds, by four, ...
EVERY_MAX_S: Final = 60.0
WRITE_EVERY: Final = 5
KEEP_DAYS: Final = 30  # of samples; proofs and daily peaks stay
PEAK_DAYS: Final = 30
RECENT_RUNS: Final = 20

OnEnded = Callable[[Run], Awaitable[None]]


# A region machine's words for what it does to all of its zones at once.
_OF_REGION: Final = {"leave-region": "evacuate", "empty-region": "evacuate", "return-region": "ramp"}
_BACK_FROM_REGION: Final = ("settle-region", "settled")


def history_of(run: Run, records: Sequence[Record], topology: Topology, steady_since: datetime) -> History:
    """A run's rows as proofs are derived from them, whatever machine carried it."""
    state = cast("dict[str, Any]", run.state)
    versions: dict[str, tuple[str | None, str | None]] = {
        z["zone"]: (z.get("previous"), state.get("target")) for z in state.get("zones", ()) if isinstance(z, dict)
    }
    if isinstance(state.get("ask"), dict):
        versions = {state["ask"]["zone"]: (state.get("goal") or None, None)}
    moved = [z.id for r in topology.regions for z in r.zones if r.id in state.get("regions", ())]
    steps: list[Step] = []
    for record in records:
        if record.seq is None:
            continue
        effect, event = record.effect.kind if record.effect else None, record.event
        if not moved or effect is None:
            steps.append(Step(record.at, event.zone, effect, event.kind, event.args))
            continue
        kind = "returned" if (effect, event.kind) == _BACK_FROM_REGION else event.kind
        steps += [Step(record.at, zone, _OF_REGION.get(effect, effect), kind, event.args) for zone in moved]
    stuck = run.updated_at if run.status == "held" else None
    return History(
        run=run.id,
        service=run.service,
        kind="drill" if "drill" in (state.get("asker"), state.get("ask", {}).get("asker")) else run.kind,
        author=run.author,
        reason=run.reason,
        began=run.created_at,
        steady_since=steady_since,
        ended=run.finished_at or stuck,
        steps=steps,
        versions=versions,
    )


async def write_proofs(store: Store, topology: Topology, objective: Objective, run: Run, now: datetime) -> list[Proof]:
    """Derive a run's proofs from its rows and write them; again gives the same records."""
    since = run.created_at - timedelta(seconds=BEFORE_S)
    others = [p.returned or p.last for p in await store.proofs(run.service) if p.run != run.id]
    steady_since = max((t for t in others if t <= run.created_at), default=since)
    history = history_of(run, await store.events(run.id), topology, steady_since)
    samples = await store.samples(run.service, since, run.finished_at or now)
    peak = await store.peak_rps(run.service, now - timedelta(days=PEAK_DAYS))
    peak = max((p for p in (peak, objective.peak_rps) if p is not None), default=None)
    proofs = derive(history, samples, topology, peak, objective.failed_share_max)
    if proofs:
        await store.put_proofs(proofs)
    return proofs


def sample_of(before: Reading, after: Reading, at: datetime) -> Sample:
    """What every zone served between two readings. Only instances that were there both times count.

    Unlike a guard's load, which errs towards more (I3), these windows follow each other without a gap.
    """
    zones = {}
    for zone, now in after.items():
        then = before.get(zone)
        if then is None or not now.heard or (seconds := _middle(now) - _middle(then)) <= 0:
            continue
        both = {name: counters for name, counters in now.counters.items() if name in then.counters}
        zones[zone] = ZoneSample(now.heard, window(then.counters, both, seconds))
    return Sample(at, zones)


def _middle(reading: ZoneReading) -> float:
    return (reading.asked + reading.answered) / 2


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of a run decides whether there is something new to derive."""

    seq: int
    zone: str | None
    held: bool
    finished: bool


class Recorder:
    """One per process and service. `turn` is one look; `close` writes what is left."""

    def __init__(self, store: Store, world: World, objective: Objective, log: Log, on_ended: OnEnded | None) -> None:
        self._store = store
        self._world = world
        self._objective = objective
        self._log = log
        self._on_ended = on_ended
        self._gauge = Gauge(world)  # Its own: what guards remember of the load is theirs alone.
        self._service = world.topology.service
        self._reading: Reading | None = None
        self._seen: dict[str, _Seen] = {}
        self._idle: deque[Sample] = deque(maxlen=int(BEFORE_S / IDLE_EVERY_S))
        self._unwritten: list[Sample] = []
        self._latest: deque[Sample] = deque(maxlen=int(SPAN_S / EVERY_S) + 2)
        self._peak = 0.0
        self._taken = 0
        self._wrong = ""
        self._told: set[tuple[str, Worth]] = set()

    async def begin(self) -> None:
        """Catch up with runs that ended while nobody was there to write their proofs down."""
        now = self._world.clock.now()
        await self._store.forget_samples(self._service, now - timedelta(days=KEEP_DAYS))
        proven = {p.run for p in await self._store.proofs(self._service)}
        for run in await self._store.runs(self._service, RECENT_RUNS):
            if run.finished and run.id not in proven:
                await write_proofs(self._store, self._world.topology, self._objective, run, now)

    async def turn(self) -> float:
        """Look once, and say in how many seconds to look again."""
        open_ = await self._store.open_runs(self._service)
        runs = [await self._store.load(run) for run in {**dict.fromkeys(self._seen), **dict.fromkeys(open_)}]
        self._forget_changed(runs)
        await self._measure(busy=bool(open_))
        for run in runs:
            await self._settle(run)
        if not open_:
            self._taken = 0
            return IDLE_EVERY_S if self._latest else EVERY_S  # What is about to begin is compared with what was before.
        self._taken += 1
        return float(min(EVERY_MAX_S, EVERY_S * 2 ** (self._taken // COARSER_AFTER)))

    async def close(self) -> None:
        """Look a last time: a run that has just ended gets its proofs and its report."""
        with contextlib.suppress(FailoutError):
            await self.turn()
        await self._write()

    def _forget_changed(self, runs: Sequence[Run]) -> None:
        """Whatever a run has just done may have changed its zone's instances, and its neighbours' before the zone leaves."""
        for run in runs:
            known = self._seen.get(run.id)
            if known is not None and known.seq == run.seq:
                continue
            leaving = run.effect is not None and run.effect.kind in {"drain", "evacuate", "leave-region"}
            scaled = leaving or known is None or known.zone != run.zone
            for place in {run.zone, known.zone if known else None} - {None}:
                mine = {z.id for z in self._world.topology.zones_at(cast("str", place))}
                near = {r.id for r in self._world.topology.regions if mine & {z.id for z in r.zones}}
                for zone in self._world.topology.zones():
                    if zone.id in mine or (scaled and zone.region in near):
                        self._gauge.forget(zone)

    async def _measure(self, *, busy: bool) -> None:
        try:
            reading = await self._gauge.tick()
        except FailoutError as error:
            self.tell(f"not measured: {error}")
            return
        before, self._reading = self._reading, reading
        if before is None:
            return
        sample = sample_of(before, reading, self._world.clock.now())
        self._latest.append(sample)
        if not busy:
            self._idle.append(sample)
        else:
            self._unwritten += [*self._idle, sample]
            self._idle.clear()
        if len(self._unwritten) >= WRITE_EVERY or not busy:
            await self._write()

    async def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if unwritten:
            await self._store.add_samples(self._service, unwritten)
        rps = peak_rps(list(self._latest))
        if rps is not None and rps > self._peak:
            await self._store.note_peak(self._service, rps, self._world.clock.now())
            self._peak = rps

    async def _settle(self, run: Run) -> None:
        """Write proofs when a zone came back, when a run waits for a person, and when it ended."""
        seen = _Seen(run.seq, run.zone, run.status == "held", run.finished)
        known = self._seen.get(run.id)
        self._seen[run.id] = seen
        if known is not None and replace(known, seq=seen.seq) != seen:
            await self._write()
            proofs = await write_proofs(
                self._store, self._world.topology, self._objective, run, self._world.clock.now()
            )
            for proof in proofs:
                if (proof.id, proof.worth) not in self._told:
                    self._log("proof", run=run.id, zone=proof.zone, evidence=f"{proof.worth}: {proof.evidence}")
                    self._told.add((proof.id, proof.worth))
        if run.finished:
            if self._on_ended is not None:
                await self._on_ended(run)
            del self._seen[run.id]

    def tell(self, wrong: str) -> None:
        """Once, until it changes."""
        if wrong != self._wrong:
            self._log("recorder", evidence=wrong)
            self._wrong = wrong


def reporting(glance: Glance, state: Path) -> OnEnded:
    """Write the report of each run that has ended, where a zone was out or a deploy was tried."""

    async def write(run: Run) -> None:
        def gather() -> None:
            report = collect(glance, run.id, run.updated_at)
            if report.proofs or report.kind == "deploy":
                write_report(report, report_folder(state, run.id))

        await asyncio.to_thread(gather)

    return write


@asynccontextmanager
async def recording(
    store: Store, world: World, objective: Objective, log: Log, on_ended: OnEnded | None = None
) -> AsyncIterator[None]:
    """Measure beside whatever the body does, and write proofs and reports of the runs that end meanwhile."""
    recorder = Recorder(store, world, objective, log, on_ended)

    async def watch() -> None:
        with contextlib.suppress(FailoutError):
            await recorder.begin()
        while True:
            began, wait_s = world.clock.monotonic(), EVERY_S
            try:
                wait_s = await recorder.turn()
            except Exception as error:  # noqa: BLE001 - what fails here fails no run
                recorder.tell(f"{type(error).__name__}: {error}")
            await world.clock.sleep(max(0.05, wait_s - (world.clock.monotonic() - began)))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        try:
            await asyncio.wait_for(recorder.close(), 10.0)
        except Exception as error:  # noqa: BLE001 - the run's own end matters more
            log("recorder", evidence=f"the last records are missing: {type(error).__name__}: {error}")
