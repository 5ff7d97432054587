"""Schedules of drills: adding and telling them, and firing what is due, exactly once over however many orchestrators."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestrator.core.drill import begin, choose, proof_age_s
from orchestrator.core.drill_row import dump as dump_drill
from orchestrator.core.errors import Rejected, Transient
from orchestrator.core.schedule import DrillSchedule, due, dump, parse, require_schedule
from orchestrator.core.script import duration_told
from orchestrator.core.standing import Objective, RegionStanding, Standing, standings
from orchestrator.core.topology import Topology
from orchestrator.engine.carry import Log
from orchestrator.engine.ports import NewRun, Schedule, Store
from orchestrator.operations.audit import recorded
from orchestrator.operations.drills import require_wish
from orchestrator.operations.outings import Person
from orchestrator.operations.recording import PEAK_DAYS
from orchestrator.ports import Clock

LOOK_S = 1.0


async def add_schedule(
    store: Store, topology: Topology, schedule: DrillSchedule, signals: Sequence[str], now: datetime
) -> None:
    """Raises Rejected (cron, time zone, hours, a name that is taken), NotFound (place, signal), Refused (I15)."""
    act = f"drill schedule add {schedule.id}: {schedule.cron} {schedule.time_zone}"
    async with recorded(store, act, author=schedule.author, reason=schedule.reason, now=now):
        require_schedule(schedule)
        some = topology.regions[0]
        place = schedule.place or (some.id if schedule.tier == "region" else some.zones[0].id)
        require_wish(topology, schedule.wish(place), signals, f"drill schedule add {schedule.id}")
        await store.add_schedule(topology.service, schedule.id, dump(schedule), now)


async def order_schedule(store: Store, service: str, schedule: str, kind: str, who: Person) -> None:
    """remove, pause, resume. What was missed while it was paused is not made up for. Raises NotFound."""
    act = f"drill schedule {kind} {schedule}"
    async with recorded(store, act, author=who.author, reason=who.reason, now=who.now):
        if kind == "remove":
            await store.remove_schedule(service, schedule)
        else:
            await store.pause_schedule(service, schedule, paused=kind == "pause", now=who.now)


class DrillSchedules:
    """Fires what is due. Call `look` every second or so, in every orchestrator that serves."""

    def __init__(self, store: Store, topology: Topology, objective: Objective, log: Log) -> None:
        self._store, self._topology, self._objective, self._log = store, topology, objective, log
        self._wrong = ""

    async def forever(self, clock: Clock) -> None:
        while True:
            with contextlib.suppress(Transient):  # The store is not there: look again.
                await self.look(clock.now())
            await clock.sleep(LOOK_S)

    async def look(self, now: datetime) -> None:
        for row in await self._store.schedules(self._topology.service):
            if row.paused:
                continue
            try:
                schedule = parse(row.document)
                nominal = due(schedule, now, row.since)
                if nominal is not None:
                    await self._fire(row, schedule, nominal, now)
            except Rejected as wrong:  # A newer Failout's, or its place is gone: the others go on.
                self._tell(f"{row.id}: {wrong}")

    async def _fire(self, row: Schedule, schedule: DrillSchedule, nominal: datetime, now: datetime) -> None:
        place, why = await self._place(schedule, now)
        run = None
        if place is not None:
            name = f"drill-{schedule.id}-{nominal:%Y%m%d-%H%M}"
            wish = schedule.wish(place)
            state = dump_drill(begin(name, row.service, wish, now))
            run = NewRun(name, "drill", state, "active", wish.author, wish.reason)
        if not await self._store.fire(row, nominal, run, why, now):
            return  # Another orchestrator was quicker.
        late_s = (now - nominal).total_seconds()
        self._log("drill-due", run=run.id if run else None, zone=place, evidence=f"{schedule.id}: {why}", late_s=late_s)
        act = f"drill schedule {schedule.id} fired for {nominal:%Y-%m-%d %H:%M} UTC"
        result = f"run {run.id} started: {why}" if run else f"skipped: {why}"
        await self._store.append_audit(schedule.author, act, schedule.reason, result, now)

    async def _place(self, schedule: DrillSchedule, now: datetime) -> tuple[str | None, str]:
        """Which place, and why that one; None: it is not needed now, or a person goes first."""
        stands = await self._standings(schedule, now)
        place = schedule.place or choose(stands.values(), schedule.choice)
        if place is None:
            return None, f"the last fail-out of every {schedule.tier} did harm: a person drills first"
        if place not in stands:
            return place, f"{place} as scheduled"  # Its topology has changed; the drill itself refuses and says so.
        age_s = proof_age_s(stands[place])
        told = "has no good proof" if age_s is None else f"was proven {duration_told(round(age_s))} ago"
        if schedule.fresh_s is not None and age_s is not None and age_s < schedule.fresh_s:
            return None, f"{place} {told}; a drill is due after {duration_told(schedule.fresh_s)}"
        how = "as scheduled" if schedule.place else f"has the {schedule.choice} proof"
        return place, f"{place} {how}: it {told}"

    async def _standings(self, schedule: DrillSchedule, now: datetime) -> dict[str, Standing | RegionStanding]:
        service = self._topology.service
        proofs = await self._store.proofs(service)
        peak = await self._store.peak_rps(service, now - timedelta(days=PEAK_DAYS))
        zones, regions = standings(self._topology, proofs, peak, self._objective, now)
        return {s.place: s for s in (regions if schedule.tier == "region" else zones)}

    def _tell(self, wrong: str) -> None:
        """Once, until it changes."""
        if wrong != self._wrong:
            self._log("schedule-wrong", evidence=wrong)
            self._wrong = wrong
