"""How a region's state is written into its row and read back: versioned JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.errors import Rejected
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.core.policy import dump_policy, parse_policy
from orchestrator.core.region import FINISHED, Phase, RegionState, apply, decide, leased_place, status
from orchestrator.core.traffic import dump_steps, parse_steps

SCHEMA: Final = 1


def dump(state: RegionState) -> Json:
    return {
        "schema": SCHEMA,
        "run": state.run,
        "service": state.service,
        "regions": list(state.regions),
        "policy": dump_policy(state.policy),
        "since": state.since.isoformat(),
        "overrides": list(state.overrides),
        "phase": str(state.phase),
        "weights": dict(state.weights),
        "scaled": dict(state.scaled),
        "steps": dump_steps(state.steps),
        "step": state.step,
        "calling_off": state.calling_off,
        "unasked": state.unasked,
        "asker": state.asker,
        "paused": state.paused,
        "alarms": state.alarms,
        "behind": state.behind,
        "inside": list(state.inside),
        "contested": state.contested,
        "note": state.note,
        "reason": state.reason,
    }


def parse(data: Json) -> RegionState:
    """Read a row back. A row of a newer schema is Rejected: the run belongs to a newer Failout."""
    row = cast("dict[str, Any]", data)
    if row.get("schema") != SCHEMA:
        raise Rejected(f"this run was written by schema {row.get('schema')}; this Failout reads schema {SCHEMA}")
    return RegionState(
        run=row["run"],
        service=row["service"],
        regions=tuple(row["regions"]),
        policy=parse_policy(row["policy"]),
        since=datetime.fromisoformat(row["since"]),
        overrides=tuple(row["overrides"]),
        phase=Phase(row["phase"]),
        weights=row["weights"],
        scaled=row["scaled"],
        steps=parse_steps(row["steps"]),
        step=row["step"],
        calling_off=row["calling_off"],
        unasked=row.get("unasked", False),
        asker=row.get("asker", "person"),  # Rows of before there were drills have none.
        paused=row.get("paused", False),
        alarms=row.get("alarms", 0),
        behind=row.get("behind", False),
        inside=tuple(row.get("inside", ())),
        contested=row.get("contested", ""),
        note=row["note"],
        reason=row["reason"],
    )


class RegionMachine:
    """The move of a region as the engine carries it (core.machine.Machine)."""

    kind = "region"

    def parse(self, data: Json) -> RegionState:
        return parse(data)

    def dump(self, state: RegionState) -> Json:
        return dump(state)

    def decide(self, state: RegionState, facts: Facts) -> Effect | Event | None:
        return decide(state, facts)

    def apply(self, state: RegionState, event: Event, now: datetime) -> RegionState:
        return apply(state, event, now)

    def finished(self, state: RegionState) -> bool:
        return state.phase in FINISHED

    def status(self, state: RegionState) -> str:
        return status(state)

    def leased_zone(self, state: RegionState) -> str | None:
        return leased_place(state)

    def extra_slot(self, state: RegionState) -> bool | tuple[str, ...]:
        """I1 overridden by name: the region leaves although a zone elsewhere is out and cannot come back.

        Or a person has a zone of it out already, which nobody brings back for it.
        """
        return "I1" in state.overrides or state.inside
