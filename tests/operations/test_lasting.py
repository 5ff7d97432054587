"""A watcher that fails is told and begun again (I8)."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.errors import Rejected
from orchestrator.operations.lasting import AGAIN_S, lasting


class Clock:
    """Ends the test when it has been slept on twice."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 2:
            raise asyncio.CancelledError


@pytest.mark.parametrize("error", [Rejected("there is no such page"), KeyError("zone")])
def test_i8_a_watcher_that_fails_is_told_counted_and_begun_again(error: Exception) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    counts, clock = Counter[str](), Clock()

    async def forever() -> None:
        raise error

    def log(event: str, /, **fields: Any) -> None:
        told.append((event, fields))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(lasting("expiries", forever, clock, log, counts))
    line = "keeper-failed", {"keeper": "expiries", "error": repr(error), "again_in_s": AGAIN_S}
    assert ([line, line], 2, [AGAIN_S, AGAIN_S]) == (told, counts["keepers_failed"], clock.slept)
