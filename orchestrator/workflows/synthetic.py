"""Synthetic requests in portions: a slow zone holds up neither a person's order nor an alarm (I8, I14)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestrator.core.health import Synthetic, together
from orchestrator.ports import Agent, Clock, Peer
from orchestrator.workflows.polling import Interrupted

PORTION_S: Final = 2.0  # an order or an alarm waits for no longer than this


async def send(
    agent: Agent, peers: Sequence[Peer], wanted: int, clock: Clock, interrupted: Interrupted, *, timeout_s: float
) -> Synthetic | None:
    """Send up to `wanted` within `timeout_s`; None when the machine would do something else by now."""
    ends, parts = clock.monotonic() + timeout_s, list[Synthetic]()
    while True:
        if await interrupted():
            return None
        missing, left_s = wanted - sum(part.sent for part in parts), ends - clock.monotonic()
        part = await agent.synthesize(peers, missing, min(PORTION_S, left_s))
        parts.append(part)
        if not 0 < part.sent < missing or clock.monotonic() >= ends:
            return together(parts)
