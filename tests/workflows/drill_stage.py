"""Drills over the simulated service, in virtual time, with signals that say what a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workflows.outing_stage import AWS, Service, now_

from orchestrator.core.drill import DrillPolicy, DrillState, Wish
from orchestrator.core.drill_row import DrillMachine, parse
from orchestrator.core.outing import Mode
from orchestrator.core.region_row import RegionMachine
from orchestrator.operations.drills import BoundDrills, RowsAndDoctor, start_drill
from orchestrator.ports import Finding, Reading
from orchestrator.workflows.drill import DrillPerformer
from orchestrator.workflows.drill_checks import DrillChecks
from orchestrator.workflows.region import RegionPerformer
from orchestrator.workflows.world import World

POLICY = DrillPolicy(("users",), (), duration_s=60.0, read_every_s=3.0, unknown_max_s=20.0)
Says = Literal["good", "bad", "unknown"]


@dataclass
class Said:
    """What each signal says from now on; it is good when nothing else was said."""

    says: dict[str, Says] = field(default_factory=dict)
    asked: int = 0

    async def read(self, names: Sequence[str]) -> Mapping[str, Reading]:
        self.asked += 1
        return {name: Reading(self.says.get(name, "good"), "a test says so") for name in names}


class DrillService(Service):
    def __init__(self, **given: Any) -> None:
        self.said = Said()
        self.findings: list[Finding] = []
        super().__init__(**given)

    def drill(
        self, place: str = AWS, *, mode: Mode = Mode.DRAIN, tier: Literal["zone", "region"] = "zone", **policy: Any
    ) -> str:
        """Begin one, as the command line does, and have it carried."""
        self._numbers += 1
        wish = Wish(place, tier, mode, replace(POLICY, **policy), "ada", "a test")
        known = ("users", "pages")
        run = now_(start_drill(self.store, self.topology, wish, known, f"drill-{self._numbers}", self.now()))
        self.carry(run.id)
        return run.id

    def carried(self, kind: str, ports: World) -> tuple[Any, Any]:
        if kind == "region":
            return RegionMachine(), RegionPerformer(ports)
        if kind != "drill":
            return super().carried(kind, ports)
        checks = DrillChecks(ports, self.policy, self.said, RowsAndDoctor(ports, self.store, self._doctor))
        operations = BoundDrills(ports, self.store, self.policy, self._launch)
        return DrillMachine(), DrillPerformer(ports, self.store, checks, operations)

    async def _doctor(self) -> Sequence[Finding]:
        return self.findings

    async def _launch(self, run: str) -> None:
        if run not in {carried for carried, _ in self.carriers}:
            self.carry(run)

    def state(self, run: str) -> DrillState:
        return parse(self.run(run).state)

    def ended(self, run: str, within_s: float = 900.0) -> tuple[str, str]:
        """The outcome and its reason."""
        self.until(lambda: self.run(run).finished, within_s)
        return self.run(run).status, self.state(run).reason

    def until_out(self, run: str) -> None:
        self.until(lambda: self.state(run).phase == "watching" and self.run(f"{run}.out").status == "out")
