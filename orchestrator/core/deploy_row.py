"""How a deploy's state is written into its row and read back: versioned JSON, so that code can change under a held run."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.deploy import (
    FINISHED,
    Course,
    DeployPolicy,
    DeployState,
    OnFailure,
    RunStatus,
    ZoneProgress,
    apply,
    decide,
)
from orchestrator.core.errors import Rejected
from orchestrator.core.health import GatePolicy
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.core.topology import ZoneState
from orchestrator.core.traffic import RampStep

SCHEMA: Final = 1
_IDLE: Final = frozenset({ZoneState.WAITING, ZoneState.DONE})


def dump(state: DeployState) -> Json:
    data = asdict(state)
    for zone in data["zones"]:
        zone["since"] = zone["since"].isoformat()
    return cast("Json", {"schema": SCHEMA, **_plain(data)})


def _plain(value: Any) -> Any:  # noqa: ANN401 - asdict gives anything
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


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
    )


def parse_policy(data: dict[str, Any]) -> DeployPolicy:
    known = {**data, "on_failure": OnFailure(data["on_failure"]), "gate": GatePolicy(**data["gate"])}
    known["ramp_shares"] = tuple(known["ramp_shares"])
    return DeployPolicy(**{f.name: known[f.name] for f in fields(DeployPolicy) if f.name in known})


def _zone(row: dict[str, Any]) -> ZoneProgress:
    steps = tuple(RampStep(**{**s, "merged": tuple(s["merged"])}) for s in row["steps"])
    return ZoneProgress(
        **{
            **row,
            "state": ZoneState(row["state"]),
            "since": datetime.fromisoformat(row["since"]),
            "steps": steps,
        }
    )


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
