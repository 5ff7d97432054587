"""What a process does beside its runs for as long as it lives. One that fails is told and begun again: nobody else would miss it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from orchestrator.engine.carry import Log
from orchestrator.ports import Clock

AGAIN_S: Final = 5.0


async def lasting(
    what: str, forever: Callable[[], Awaitable[None]], clock: Clock, log: Log, counts: Counter[str]
) -> None:
    while True:
        try:
            await forever()
        except Exception as error:  # noqa: BLE001 - a defect of one may not end the watch over zones that are out (I8)
            counts["keepers_failed"] += 1
            log("keeper-failed", keeper=what, error=repr(error), again_in_s=AGAIN_S)
        await clock.sleep(AGAIN_S)
