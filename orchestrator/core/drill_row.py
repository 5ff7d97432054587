"""How a drill's state is written into its row and read back, and the drill as the engine carries it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.drill import FINISHED, DrillPolicy, DrillState, Phase, Wish, apply, decide
from orchestrator.core.errors import Rejected
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.core.outing import Mode

SCHEMA: Final = 1


def dump(state: DrillState) -> Json:
    return {
        "schema": SCHEMA,
        "run": state.run,
        "service": state.service,
        "wish": dump_wish(state.wish),
        "outing": state.outing,
        "since": state.since.isoformat(),
        "phase": str(state.phase),
        "verdict": str(state.verdict),
        "checks": list(state.checks),
        "note": state.note,
        "reason": state.reason,
        "paused": state.paused,
    }


def parse(data: Json) -> DrillState:
    """Read a row back. A row of a newer schema is Rejected: the run belongs to a newer Failout."""
    row = cast("dict[str, Any]", data)
    if row.get("schema") != SCHEMA:
        raise Rejected(f"this run was written by schema {row.get('schema')}; this Failout reads schema {SCHEMA}")
    return DrillState(
        run=row["run"],
        service=row["service"],
        wish=parse_wish(row["wish"]),
        since=datetime.fromisoformat(row["since"]),
        phase=Phase(row["phase"]),
        verdict=Phase(row["verdict"]),
        checks=tuple(row["checks"]),
        note=row["note"],
        reason=row["reason"],
        paused=row.get("paused", False),  # Rows written before drills could be paused have none.
    )


def dump_wish(wish: Wish) -> dict[str, Json]:
    return {**asdict(wish), "mode": str(wish.mode), "policy": dump_policy(wish.policy)}


def parse_wish(row: dict[str, Any]) -> Wish:
    return Wish(**{**row, "mode": Mode(row["mode"]), "policy": parse_policy(row["policy"])})


def dump_policy(policy: DrillPolicy) -> dict[str, Json]:
    signals = {name: list(getattr(policy, name)) for name in ("outcome_signals", "blocking_signals")}
    return {**asdict(policy), **signals}


def parse_policy(row: dict[str, Any]) -> DrillPolicy:
    signals = {name: tuple(row[name]) for name in ("outcome_signals", "blocking_signals")}
    return DrillPolicy(**{**row, **signals})


class DrillMachine:
    """A drill as the engine carries it (core.machine.Machine). It holds no lease: the run that it begins does."""

    kind = "drill"

    def parse(self, data: Json) -> DrillState:
        return parse(data)

    def dump(self, state: DrillState) -> Json:
        return dump(state)

    def decide(self, state: DrillState, facts: Facts) -> Effect | Event | None:
        return decide(state, facts)

    def apply(self, state: DrillState, event: Event, now: datetime) -> DrillState:
        return apply(state, event, now)

    def finished(self, state: DrillState) -> bool:
        return state.phase in FINISHED

    def status(self, state: DrillState) -> str:
        """`succeeded`, `failed`, `interrupted` or `refused` at the end; `active` or `paused` before that."""
        if state.phase in FINISHED:
            return str(state.phase)
        return "paused" if state.paused else "active"

    def leased_zone(self, state: DrillState) -> str | None:  # noqa: ARG002
        return None

    def extra_slot(self, state: DrillState) -> bool:  # noqa: ARG002
        return False
