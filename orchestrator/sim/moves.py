"""People who move the users of a whole region elsewhere and back, beside the deploy of a simulated history.

What they say goes through `operations.regions`, and the region machine carries it out, both as shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import Phase, RegionState
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Run
from orchestrator.operations.regions import order_return, start_evacuation, unfinished_move
from orchestrator.sim.coverage import WatchedMoves
from orchestrator.sim.outings import Clocks, keep_carried
from orchestrator.sim.scheduler import EPOCH, Process, at_once
from orchestrator.sim.world import World

LEAVING = frozenset({Phase.ASKING, Phase.PREPARING, Phase.LEAVING, Phase.EMPTYING, Phase.OUT, Phase.HELD_LEAVING})


@dataclass(frozen=True, slots=True)
class RegionOrder:
    """A person evacuates a region, has it return, resumes what is held, or asks for a drill of half `lasts_s`."""

    at_s: float
    kind: str
    region: str
    overrides: tuple[str, ...] = ()
    lasts_s: float = 60.0


@dataclass(slots=True)
class Moves:
    """All moves of a history. `carry` starts a process for a run."""

    world: World
    store: MemoryStore
    policy: DeployPolicy
    carry: Callable[[str, int], Process]
    machine: WatchedMoves = field(default_factory=WatchedMoves)
    carriers: dict[str, list[Process]] = field(default_factory=dict)
    _clocks: Clocks = field(default_factory=Clocks)
    _out: dict[str, datetime] = field(default_factory=dict)  # run -> since when its regions are out

    def __post_init__(self) -> None:
        self.machine.on_evacuation = self._disturbed

    def _disturbed(self) -> None:
        """Whoever is overloaded by a region that a person evacuates unasked, or that fell sick again, has no run to blame."""
        for region in self.world.regions.values():
            region.disturbed_at_s = self.world.now_s

    def order(self, order: RegionOrder) -> None:
        """Say it as the command line does; what is refused is noted, and changes nothing."""
        told = {"overrides": order.overrides} if order.overrides else {}
        self.world.note("order", f"{order.kind} {order.region}", **told)
        try:
            self._obey(order, EPOCH + timedelta(seconds=self.world.now_s))
        except (Refused, Rejected, NotFound) as refused:
            self.world.note("order refused", str(refused))

    def _obey(self, order: RegionOrder, now: datetime) -> None:
        topology, regions = self.world.topology, [order.region]
        if order.kind == "evacuate":
            run, overrides = f"move-{len(self.carriers) + 1}", order.overrides
            asked = start_evacuation(
                self.store, topology, self.policy, regions, run=run, author="person", reason="sim", now=now, overrides=overrides
            )  # fmt: skip
            self.adopt(at_once(asked).id)
        elif order.kind == "return":
            at_once(order_return(self.store, topology, regions, author="person", reason="sim", now=now))
        elif (held := at_once(unfinished_move(self.store, topology.service))) is not None:
            at_once(self.store.post_order(held.id, order.kind, author="person", reason="sim", now=now))

    def adopt(self, run: str) -> None:
        """Carry the run, unless it is carried already."""
        if run not in self.carriers:
            self.carriers[run] = [self.carry(run, 1)]

    def supervise(self, failed: Callable[[Process], None]) -> None:
        if self.carriers:
            keep_carried(self.unfinished(), self.carriers, self.carry, failed, self.world.now_s)

    def bring_back(self) -> None:
        """What people do once all is healed."""
        for run in self.unfinished():
            self.order(RegionOrder(0.0, "return", self.state(run).regions[0]))

    def unfinished(self) -> list[Run]:
        rows = (at_once(self.store.load(name)) for name in self.carriers)
        return [row for row in rows if not row.finished]

    def state(self, run: Run) -> RegionState:
        return self.machine.parse(run.state)

    def drilled(self) -> list[str]:
        """Regions that a drill takes out or has out, of which nobody has called it back or taken it over."""
        told = [run for run in self.unfinished() if run.id not in self.machine.called_back]
        states = [self.state(run) for run in told if not at_once(self.store.pending(run.id)).orders]
        return [r for state in states if state.asker == "drill" and state.phase in LEAVING for r in state.regions]

    def expires_s(self, region: str) -> tuple[float, float] | None:
        """When it first is out for longer than it may be silently, by its carrier's clock, and when that first was so."""
        for run in self.unfinished():
            state = self.state(run)
            if state.phase is not Phase.OUT:
                self._out.pop(run.id, None)
            elif region in state.regions:
                since = self._out.setdefault(run.id, state.since)  # Each time it expires it begins anew.
                until_s = (since - EPOCH).total_seconds() + state.policy.out_expires_s
                return self._clocks.reaches_s(run.id, until_s, self.carriers[run.id][-1], self.world.now_s)
        return None

    def waives(self, rule: str, region: str) -> bool:
        """A person has overridden the rule for this region (I4)."""
        states = map(self.state, self.unfinished())
        return any(region in state.regions and rule in state.overrides for state in states)
