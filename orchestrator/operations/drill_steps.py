"""A drill as a step of a runbook: begun under the step's own marker, and judged by how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.drill import DrillPolicy, Wish
from orchestrator.core.drill_row import parse
from orchestrator.core.errors import NotFound
from orchestrator.core.outing import Mode
from orchestrator.core.script import duration_s
from orchestrator.engine.ports import Run, Store
from orchestrator.operations.drills import start_drill
from orchestrator.workflows.runbook import Call, Outcome
from orchestrator.workflows.world import World


@dataclass(frozen=True, slots=True)
class DrillSteps:
    """`policy`: `drills:` of failout.yaml, which a step may narrow. `known`: the signals that there are."""

    world: World
    store: Store
    policy: DrillPolicy
    known: Sequence[str]

    def bound(self) -> Mapping[str, Callable[[Call], Awaitable[Run]]]:
        return {"drill run --zone": self._run, "drill run --region": self._run}

    async def _run(self, call: Call) -> Run:
        try:
            return await self.store.load(call.marker)
        except NotFound:
            topology, now = self.world.topology, self.world.clock.now()
            return await start_drill(self.store, topology, self._wish(call), self.known, call.marker, now)

    def _wish(self, call: Call) -> Wish:
        args, policy = call.step.args, self.policy
        if "duration" in args:
            policy = replace(policy, duration_s=duration_s(args["duration"]))
        if "signal" in args:
            policy = replace(policy, outcome_signals=(args["signal"],))
        if "zone" in args:
            return Wish(args["zone"], "zone", Mode.DRAIN, policy, call.author, call.reason)
        return Wish(args["region"], "region", Mode.DRAIN, policy, call.author, call.reason)


def outcome_of_drill(run: Run) -> Outcome | None:
    """None while it is under way. An interrupted drill says nothing about its place, and is no success."""
    state = parse(run.state)
    told = f"drill of {state.wish.place} {run.status}: {state.reason or state.note}"
    return Outcome(run.status == "succeeded", told) if run.finished else None
