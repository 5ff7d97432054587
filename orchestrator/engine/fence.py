"""I1 and I11 at the edge: the right to write is read from the rows right before every write.

No cloud checks a number of ours. What a zombie could still send between this check and its write is reverted by the
traffic reconciler, and its commit is lost.
"""

from __future__ import annotations

from orchestrator.core.errors import StaleCarrier
from orchestrator.engine.ports import Lease, Store


class RunFence:
    """A `ports.Fence` of one carrier of one run. `number` is the lease's fence, 0 while the run holds no lease."""

    def __init__(self, store: Store, run: str, epoch: int, lease: Lease | None) -> None:
        self._store = store
        self._run = run
        self._epoch = epoch
        self._number = lease.fence if lease else 0

    @property
    def number(self) -> int:
        return self._number

    async def check(self) -> None:
        held = await self._store.held(self._run)
        if held.epoch != self._epoch:
            raise StaleCarrier(f"run {self._run} is carried by another process now (epoch {held.epoch})")
        number = held.lease.fence if held.lease else 0
        if number != self._number:
            raise StaleCarrier(f"run {self._run} no longer holds lease number {self._number}")
