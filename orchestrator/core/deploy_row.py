"""How a deploy's state is written into its row and read back: versioned JSON, so that code can change under a held run."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.deploy import DeployState, ZoneProgress, apply, decide
from orchestrator.core.deploy_table import FINISHED, Course, RunStatus
from orchestrator.core.errors import Rejected
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.core.policy import dump_policy, parse_policy
from orchestrator.core.topology import ZoneState
from orchestrator.core.traffic import dump_steps, parse_steps

SCHEMA: Final = 1
_IDLE: Final = frozenset({ZoneState.WAITING, ZoneState.DONE})


def dump(state: DeployState) -> Json:
    """Written out by hand: `asdict` copies deeply and was a third of a simulated history's time."""
    return {
        "schema": SCHEMA,
        "service": state.service,
        "target": state.target,
        "policy": dump_policy(state.policy),
        "zones": [_dump_zone(zone) for zone in state.zones],
        "status": str(state.status),
        "course": str(state.course),
        "reason": state.reason,
        "suspended": state.suspended,
        "ahead": state.ahead,
        "overrides": list(state.overrides),
        "behind": list(state.behind),
    }


def _dump_zone(zone: ZoneProgress) -> Json:
    return {
        "zone": zone.zone,
        "state": str(zone.state),
        "goal": zone.goal,
        "previous": zone.previous,
        "since": zone.since.isoformat(),
        "step": zone.step,
        "steps": dump_steps(zone.steps),
        "reverting": zone.reverting,
        "withdrawing": zone.withdrawing,
        "touched": zone.touched,
        "changed": zone.changed,
        "sound": zone.sound,
        "first": zone.first,
        "undo": dict(zone.undo),
        "note": zone.note,
    }


def parse(data: Json) -> DeployState:
    """Read a row back. A row of a newer schema is Rejected: the run belongs to a newer Failout."""
    row = cast("dict[str, Any]", data)
    if row.get("schema") != SCHEMA:
        raise Rejected(f"this run was written by schema {row.get('schema')}; this Failout reads schema {SCHEMA}")
    return DeployState(
        service=row["service"],
        target=row["target"],
        policy=parse_policy(row["policy"]),
        zones=tuple(_zone(z) for z in row["zones"]),
        status=RunStatus(row["status"]),
        course=Course(row["course"]),
        reason=row["reason"],
        suspended=row.get("suspended", False),
        ahead=row.get("ahead", ""),
        overrides=tuple(row.get("overrides", ())),
        behind=tuple(row.get("behind", ())),
    )


def _zone(row: dict[str, Any]) -> ZoneProgress:
    since = datetime.fromisoformat(row["since"])
    return ZoneProgress(**{**row, "state": ZoneState(row["state"]), "since": since, "steps": parse_steps(row["steps"])})


class DeployMachine:
    """The deploy as the engine carries it (core.machine.Machine)."""

    kind = "deploy"

    def parse(self, data: Json) -> DeployState:
        return parse(data)

    def dump(self, state: DeployState) -> Json:
        return dump(state)

    def decide(self, state: DeployState, facts: Facts) -> Effect | Event | None:
        return decide(state, facts)

    def apply(self, state: DeployState, event: Event, now: datetime) -> DeployState:
        return apply(state, event, now)

    def finished(self, state: DeployState) -> bool:
        return state.status in FINISHED

    def status(self, state: DeployState) -> str:
        return str(state.status)

    def leased_zone(self, state: DeployState) -> str | None:
        """I1: from the moment a zone is admitted until its return is verified and its preparations are undone."""
        zone = state.active_zone()
        return zone.zone if zone else None

    def extra_slot(self, state: DeployState) -> bool:  # noqa: ARG002
        """A deploy never takes a zone out beyond `max_zones_out`."""
        return False
