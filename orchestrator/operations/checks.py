"""What a runbook's step may look at beyond clouds and rows: what `failout doctor`, `proof` and `state backup` say by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.errors import FailoutError
from orchestrator.core.standing import Objective
from orchestrator.core.topology import Topology
from orchestrator.engine.backup import backup
from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place
from orchestrator.operations import doctor
from orchestrator.operations.proof import Ledger, read_ledger
from orchestrator.ports import Finding, Inspector
from orchestrator.workflows.runbook import Call, Outcome
from orchestrator.workflows.world import World


@dataclass(frozen=True, slots=True)
class Checks:
    """`inspectors` are made when they are asked: they hold clients of every cloud."""

    world: World
    place: Place
    objective: Objective
    inspectors: Callable[[Topology], Mapping[str, Inspector]]
    versions: Callable[[], Sequence[str]]

    def bound(self) -> Mapping[str, Callable[[Call], Awaitable[Outcome]]]:
        return {"doctor": self._doctor, "proof": self._proof, "state backup": self._backup}

    async def findings(self) -> list[Finding]:
        """All that `failout doctor` finds."""
        topology = self.world.topology
        found = await asyncio.to_thread(doctor.state, self.place, topology.service)
        return found + await doctor.examine(self.world, self.inspectors(topology), self.versions())

    async def _doctor(self, _: Call) -> Outcome:
        """Unchecked is not wrong, as by hand, but it is told (I2)."""
        found = await self.findings()
        wrong = [f"{f.what}: {f.evidence}" for f in found if f.verdict == "failed"]
        unchecked = sum(f.verdict == "unchecked" for f in found)
        told = f"{len(found)} checks, {len(wrong)} failed, {unchecked} could not be made"
        return Outcome(not wrong, "; ".join([told, *wrong]))

    async def _proof(self, _: Call) -> Outcome:
        ledger = await asyncio.to_thread(self._ledger)
        short = [f"{z.place} is {z.state}: {z.why}" for z in ledger.zones if not z.met]
        return Outcome(ledger.met, "; ".join(short) or f"all {len(ledger.zones)} zones meet the objective")

    def _ledger(self) -> Ledger:
        with glance_at(self.place) as rows:
            return read_ledger(rows, self.world.topology, self.objective, self.world.clock.now())

    async def _backup(self, call: Call) -> Outcome:
        try:
            return Outcome(True, await asyncio.to_thread(self._copy, call))
        except (FailoutError, OSError) as error:
            return Outcome(False, str(error))

    def _copy(self, call: Call) -> str:
        """A copy that this step made before a crash is its result."""
        target = Path(call.step.args["file"])
        if not target.exists() or target.stat().st_mtime < call.began.timestamp():
            backup(self.place, target)
        return f"state copied to {target} ({target.stat().st_size} bytes)"
