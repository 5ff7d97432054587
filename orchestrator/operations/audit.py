"""Every act of a person goes into the audit log, with author, reason and result, also when it was refused (I4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.core.errors import FailoutError, Refused
from orchestrator.engine import ledger
from orchestrator.engine.glance import Glance
from orchestrator.engine.ports import AuditEntry, Store


@dataclass(slots=True)
class Act:
    """What came of it, in a few words; set before the block ends."""

    result: str = "done"


@asynccontextmanager
async def recorded(store: Store, act: str, *, author: str, reason: str, now: datetime) -> AsyncIterator[Act]:
    """Append what came of the block: `Act.result`, or what it was refused with.

    The act and its line are two transactions: a crash in between leaves the act in the run's own history only.
    """
    doing = Act()
    try:
        yield doing
    except FailoutError as error:
        said = f"refused by {error.rule}: {error.reason}" if isinstance(error, Refused) else f"not done: {error}"
        await store.append_audit(author, act, reason, said, now)
        raise
    await store.append_audit(author, act, reason, doing.result, now)


def described(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "author": entry.author,
        "act": entry.act,
        "reason": entry.reason,
        "result": entry.result,
        "hash": entry.hash,
    }


def verified(rows: Glance) -> dict[str, Any]:
    """Say whether every line follows from the one before it. Lines cut off its end are seen by whoever kept the last hash."""
    entries = rows.audit()
    return {
        "schema": 1,
        "entries": len(entries),
        "broken": ledger.verify(entries),
        "last_hash": entries[-1].hash if entries else ledger.GENESIS,
    }
