"""How an outing's state is written into its row and read back."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.errors import Rejected
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.core.outing import Ask, Asker, Mode, OutingState, apply, decide
from orchestrator.core.outing_table import FINISHED, HELD, Stage
from orchestrator.core.policy import OnExpiry, dump_policy, parse_policy
from orchestrator.core.traffic import dump_steps, parse_steps

SCHEMA: Final = 1
_PLAIN: Final = (
    "service", "goal", "sound", "dead", "contested", "paused", "calling_off", "sick", "warned", "alarms", "step",
    "note", "reason",
)  # fmt: skip


def dump(state: OutingState) -> Json:
    ask = state.ask
    row: dict[str, Json] = {name: getattr(state, name) for name in _PLAIN}
    row |= {"schema": SCHEMA, "stage": str(state.stage), "policy": dump_policy(state.policy), "undo": dict(state.undo)}
    row |= {"began": state.began.isoformat(), "since": state.since.isoformat()}
    row["steps"] = dump_steps(state.steps)
    row["ask"] = {
        "zone": ask.zone,
        "mode": str(ask.mode),
        "asker": str(ask.asker),
        "author": ask.author,
        "reason": ask.reason,
        "expires_at": ask.expires_at.isoformat(),
        "on_expiry": str(ask.on_expiry),
        "due_at": ask.due_at.isoformat() if ask.due_at else None,
        "overrides": list(ask.overrides),
    }
    return row


def parse(data: Json) -> OutingState:
    """Read a row back. A row of a newer schema is Rejected: the run belongs to a newer Failout."""
    row = cast("dict[str, Any]", data)
    if row.get("schema") != SCHEMA:
        raise Rejected(f"this run was written by schema {row.get('schema')}; this Failout reads schema {SCHEMA}")
    ask = row["ask"]
    return OutingState(
        ask=Ask(
            zone=ask["zone"],
            mode=Mode(ask["mode"]),
            asker=Asker(ask["asker"]),
            author=ask["author"],
            reason=ask["reason"],
            expires_at=datetime.fromisoformat(ask["expires_at"]),
            on_expiry=OnExpiry(ask["on_expiry"]),
            due_at=datetime.fromisoformat(ask["due_at"]) if ask["due_at"] else None,
            overrides=tuple(ask["overrides"]),
        ),
        policy=parse_policy(row["policy"]),
        began=datetime.fromisoformat(row["began"]),
        since=datetime.fromisoformat(row["since"]),
        stage=Stage(row["stage"]),
        steps=parse_steps(row["steps"]),
        undo=row["undo"],
        **{name: row[name] for name in _PLAIN},
    )


class OutingMachine:
    """An outing as the engine carries it (core.machine.Machine)."""

    kind = "outing"

    def parse(self, data: Json) -> OutingState:
        return parse(data)

    def dump(self, state: OutingState) -> Json:
        return dump(state)

    def decide(self, state: OutingState, facts: Facts) -> Effect | Event | None:
        return decide(state, facts)

    def apply(self, state: OutingState, event: Event, now: datetime) -> OutingState:
        return apply(state, event, now)

    def finished(self, state: OutingState) -> bool:
        return state.stage in FINISHED

    def status(self, state: OutingState) -> str:
        """`restored`, `refused`, `withdrawn` at the end; before that `active`, `paused`, `out`, or `held` for a person."""
        if state.stage in FINISHED:
            return str(state.stage)
        if state.paused:
            return "paused"
        out = state.stage is Stage.OUT
        if state.stage in HELD or (out and (state.sick or state.lapsed)):
            return "held"
        return "out" if out else "active"

    def leased_zone(self, state: OutingState) -> str | None:
        """I1: from the moment the zone is admitted until its return is verified and its preparations are undone.

        Not while it is lent to a deploy, whose lease it is then.
        """
        return None if state.stage in {Stage.WAITING, Stage.LENT} or state.stage in FINISHED else state.zone

    def extra_slot(self, state: OutingState) -> bool:
        """A dead zone serves nobody: it leaves whoever else is out. Or a person has overridden I1 (I4)."""
        return state.dead or "I1" in state.ask.overrides
