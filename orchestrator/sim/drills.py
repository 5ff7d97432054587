"""Drills beside the deploy of a simulated history: asked for by people or fired by a schedule, and carried as shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.core.drill import DrillState, Wish
from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.outing import Mode
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.schedule import DrillSchedule
from orchestrator.core.standing import Objective
from orchestrator.engine.carry import Log
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Run, Store
from orchestrator.operations.drills import BoundDrills, RowsAndDoctor, start_drill
from orchestrator.operations.schedules import DrillSchedules, add_schedule
from orchestrator.ports import Finding
from orchestrator.sim.coverage import WatchedDrills
from orchestrator.sim.faults import Wire
from orchestrator.sim.moves import Moves, RegionOrder
from orchestrator.sim.outings import Outings, ZoneOrder, keep_carried
from orchestrator.sim.scheduler import Process, at_once
from orchestrator.sim.signals import SIGNALS, WATCHED, Outlook, SimSignals
from orchestrator.workflows.drill import DrillPerformer
from orchestrator.workflows.drill_checks import DrillChecks
from orchestrator.workflows.world import World as Ports

LOOK_S = 5.0  # between two looks at the schedules
JITTER_S = 20.0


@dataclass(slots=True)
class Drills:
    """All drills of a history. `carry` starts a process for a run."""

    outings: Outings
    moves: Moves
    outlook: Outlook
    policy: DeployPolicy
    carry: Callable[[str, int], Process]
    log: Log
    machine: WatchedDrills = field(default_factory=WatchedDrills)
    carriers: dict[str, list[Process]] = field(default_factory=dict)
    asked: bool = False
    over: bool = False  # all is healed: schedules fire no more
    _schedules: DrillSchedules | None = None
    _looked_s: float = float("-inf")

    @property
    def store(self) -> MemoryStore:
        return self.outings.store

    def order(self, order: ZoneOrder, now: datetime) -> None:
        """A person asks for a drill, calls one off, or has one made every minute; what is refused changes nothing."""
        self.outings.world.note("order", f"{order.kind} drill of {order.zone}")
        try:
            self._obey(order, now)
        except (Refused, Rejected, NotFound) as refused:
            self.outings.world.note("order refused", str(refused))

    def _obey(self, order: ZoneOrder, now: datetime) -> None:
        topology, self.asked = self.outings.world.topology, True
        policy = replace(WATCHED, duration_s=order.lasts_s / 2)
        if order.kind == "schedule":
            given = (Mode.DRAIN, policy, "person", "sim")
            schedule = DrillSchedule("often", "* * * * *", "UTC", *given, place=order.zone, jitter_s=JITTER_S)
            at_once(add_schedule(self.store, topology, schedule, SIGNALS, now))
            self._schedules = DrillSchedules(self.store, topology, Objective(), self.log)
            return
        self._start(Wish(order.zone, "zone", Mode(order.kind), policy, "person", "sim"), now)

    def order_region(self, order: RegionOrder, now: datetime) -> None:
        self.outings.world.note("order", f"drill of {order.region}")
        policy = replace(WATCHED, duration_s=order.lasts_s / 2)
        self._start(Wish(order.region, "region", Mode.EVACUATE, policy, "person", "sim"), now)

    def _start(self, wish: Wish, now: datetime) -> None:
        self.asked, run = True, f"drill-{len(self.carriers) + 1}"
        self._adopt(at_once(start_drill(self.store, self.outings.world.topology, wish, SIGNALS, run, now)))

    def abort(self, zone: str, now: datetime) -> bool:
        """Tell the drill of the zone, when there is one."""
        for run in self.unfinished():
            if self.state(run).wish.place == zone:
                at_once(self.store.post_order(run.id, "abort", author="person", reason="sim", now=now))
                return True
        return False

    def supervise(self, now: datetime, failed: Callable[[Process], None]) -> None:
        """Fire what is due, take up what nobody carries yet, and start carriers anew as for outings."""
        self.outlook.passes()
        if self._schedules is not None and not self.over and self.outings.world.now_s >= self._looked_s + LOOK_S:
            self._looked_s = self.outings.world.now_s
            at_once(self._schedules.look(now))
        for run in at_once(self.store.runs(self.outings.world.topology.service, 500)):
            if run.kind == "drill":
                self._adopt(run)
            elif run.kind == "outing" and not run.finished:  # Its drill's carrier died when it had just begun it.
                self.outings.adopt(run.id)
            elif run.kind == "region" and not run.finished:
                self.moves.adopt(run.id)
        keep_carried(self.unfinished(), self.carriers, self.carry, failed, self.outings.world.now_s)

    def _adopt(self, run: Run) -> None:
        if not run.finished and run.id not in self.carriers:
            self.carriers[run.id] = [self.carry(run.id, 1)]

    def performer(self, ports: Ports, store: Store, wire: Wire) -> DrillPerformer:
        checks = DrillChecks(ports, self.policy, SimSignals(self.outlook, wire), RowsAndDoctor(ports, store, _nothing))
        return DrillPerformer(ports, store, checks, BoundDrills(ports, store, self.policy, self._launch))

    async def _launch(self, run: str) -> None:
        kind = (await self.store.load(run)).kind
        (self.moves if kind == "region" else self.outings).adopt(run)

    def unfinished(self) -> list[Run]:
        rows = (at_once(self.store.load(name)) for name in self.carriers)
        return [row for row in rows if not row.finished]

    def state(self, run: Run) -> DrillState:
        return self.machine.parse(run.state)


async def _nothing() -> Sequence[Finding]:
    """The doctor's findings are about clouds' settings, which this world has none of."""
    return ()
