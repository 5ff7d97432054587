"""I11 lives here: the loop that carries a run from its row to its end, one intended, performed and committed effect at a time.

The row is the only checkpoint: after kill -9 another `carry` starts from it, and an effect that was intended but not
committed is performed again. Nothing is awaited but the store, the performer and `clock.sleep`, so the simulator drives
this very code under virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from orchestrator.core.errors import IllegalTransition, Refused, StaleCarrier, Transient
from orchestrator.core.machine import Effect, Event, Facts, Machine
from orchestrator.engine.fence import RunFence
from orchestrator.engine.ports import Advance, Pending, Run, Store
from orchestrator.ports import Clock, Fence

POLL_S: Final = 0.15  # How often a run that waits for a person looks for an order.
LEASE_WAIT_S: Final = 1.0  # How often a run that waits for another run's lease asks again.
STORE_PATIENCE_S: Final = 60.0  # How long a store may be unreachable before the carrier gives up.
REFUSED: Final = "refused"  # The event a machine gets when the store refuses the lease that its next state needs.

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
Interrupted = Callable[[], Awaitable[bool]]


class Performer(Protocol[S_contra]):
    """Does what a machine's effects say, on ports."""

    async def perform(self, state: S_contra, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        """Perform `effect` (idempotent) and return what came of it.

        A failure is an event too: Denied, Rejected, NoCapacity, Refused and a Transient beyond its budget are returned
        as events the machine knows. StoreAway is raised: the loop waits, and performs the effect again. A long effect
        asks `interrupted()` between its steps (it costs one small read), stops early when the machine would do something
        else by now (an order, a switch, a time), and returns the event that says so. `fence.check()` comes right before
        each write; its StaleCarrier is not caught.
        """


class Log(Protocol):
    """One line of what happened: structlog's `info`, or nothing."""

    def __call__(self, event: str, /, **fields: Any) -> Any: ...  # noqa: ANN401 - structlog's own signature


def silent(event: str, /, **fields: object) -> None:
    """Log nothing."""


async def carry(
    run_id: str,
    machine: Machine[S],
    performer: Performer[S],
    store: Store,
    clock: Clock,
    carrier: str,
    log: Log = silent,
) -> bool:
    """Carry a run to its end and return True; False when another carrier has taken it over.

    An error of the code itself is written into the run's history and raised again, and so is a store that stays
    unreachable: the row is whole, and the next `carry` goes on from it.
    """
    loop = _Loop(run_id, machine, performer, store, clock, log)
    try:
        loop.epoch = await loop.patiently(lambda: store.claim(run_id, carrier, clock.now()))
        log("run-claimed", run=run_id, carrier=carrier, epoch=loop.epoch)
        while not await loop.patiently(loop.advance):
            pass
    except StaleCarrier as stale:
        if await loop.overtaken():
            log("carrier-stale", run=run_id, carrier=carrier, reason=str(stale))
            return False
        await loop.give_up(stale)  # Its lease is gone though nobody took the run over: nothing stays out silently (I8).
        raise
    except Exception as error:
        await loop.give_up(error)
        raise
    return True


T = TypeVar("T")


@dataclass(slots=True)
class _Loop(Generic[S]):
    run_id: str
    machine: Machine[S]
    performer: Performer[S]
    store: Store
    clock: Clock
    log: Log
    epoch: int = 0
    effect: Effect | None = None
    parsed: tuple[int, S] | None = None
    refused: str = ""  # the lease, lately, and why

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Repeat `act` while the store is unreachable. Safe at any point: the row says where to go on."""
        deadline: float | None = None
        wait_s = 0.1
        while True:
            try:
                return await act()
            except Transient as error:
                deadline = deadline or self.clock.monotonic() + STORE_PATIENCE_S
                if self.clock.monotonic() >= deadline:
                    raise
                self.log("retrying", run=self.run_id, reason=str(error), in_s=wait_s)
                await self.clock.sleep(wait_s)
                wait_s = min(2 * wait_s, 5.0)

    async def advance(self) -> bool:
        """Fold one event in, or wait a moment; True when the run has finished."""
        self.effect = None
        run = await self.store.load(self.run_id)
        if run.epoch != self.epoch:
            raise StaleCarrier(f"run {run.id} is carried by {run.carrier} now")
        if run.finished:
            return True
        state = self._state(run)
        pending = await self.store.pending(run.id)
        chosen = self.machine.decide(state, self._facts(pending))
        if chosen is None:
            await self.clock.sleep(POLL_S)
            return False
        if isinstance(chosen, Event):
            return await self._commit(run, state, chosen, None, 0.0)
        return await self._act(run, state, chosen)

    def _state(self, run: Run) -> S:
        """Parse a row once: a run that waits is read many times a minute, and only commits change its state."""
        if self.parsed is None or self.parsed[0] != run.seq:
            self.parsed = (run.seq, self.machine.parse(run.state))
        return self.parsed[1]

    async def _act(self, run: Run, state: S, effect: Effect) -> bool:
        self.effect = effect
        await self.store.intend(run, effect, self.clock.now())
        self.log("effect-began", run=run.id, zone=effect.zone, step=effect.kind)
        held = await self.store.held(run.id)
        fence = RunFence(self.store, run.id, self.epoch, held.lease)
        began_s = self.clock.monotonic()

        async def interrupted() -> bool:
            """Ask the machine: an order, a switch or a time that has come may want something else by now."""
            try:
                pending = await self.store.pending(run.id)
            except Transient:
                return False  # Nobody can be heard now. Whatever writes asks the fence, and that says so.
            return self.machine.decide(state, self._facts(pending)) != effect

        event = await self.performer.perform(state, effect, fence, interrupted)
        return await self._commit(run, state, event, effect, self.clock.monotonic() - began_s)

    def _facts(self, pending: Pending) -> Facts:
        return Facts(self.clock.now(), pending.orders, frozen=pending.frozen, killed=pending.killed)

    async def _commit(self, run: Run, state: S, event: Event, effect: Effect | None, duration_s: float) -> bool:
        try:
            return await self._fold(run, state, event, effect, duration_s)
        except Refused as refused:
            if refused.reason != self.refused:  # It is asked for again and again, for as long as another run has it.
                self.log("lease-refused", run=run.id, zone=refused.zone, rule=refused.rule, reason=refused.reason)
            self.refused = refused.reason
            told = Event(REFUSED, event.zone or refused.zone, refused.reason, {"rule": refused.rule}, event.order)
        try:
            return await self._fold(run, state, told, effect, duration_s)
        except IllegalTransition:
            # The machine has no word for it: wait until the lease is free, and decide again on fresh facts.
            await self.clock.sleep(LEASE_WAIT_S)
            return False

    async def _fold(self, run: Run, state: S, event: Event, effect: Effect | None, duration_s: float) -> bool:
        now = self.clock.now()
        after = self.machine.apply(state, event, now)
        finished = self.machine.finished(after)
        advance = Advance(
            state=self.machine.dump(after),
            status=self.machine.status(after),
            zone=None if finished else self.machine.leased_zone(after),
            finished=finished,
            event=event,
            effect=effect,
            duration_s=duration_s,
            extra=self.machine.extra_slot(after),
        )
        await self.store.commit(run, advance, now)
        self.parsed, self.refused = (run.seq + 1, after), ""
        self.log(
            event.kind,
            run=run.id,
            zone=event.zone,
            step=effect.kind if effect else None,
            duration_s=round(duration_s, 3),
            evidence=event.evidence,
            status=advance.status,
        )
        return finished

    async def overtaken(self) -> bool:
        held = await self.patiently(lambda: self.store.held(self.run_id))
        return held.epoch != self.epoch

    async def give_up(self, error: Exception) -> None:
        self.log("carrier-gave-up", run=self.run_id, error=repr(error))
        try:
            await self.store.give_up(self.run_id, self.epoch, self.effect, repr(error), self.clock.now())
        except Exception as unwritten:  # noqa: BLE001 - the first error is the one to raise
            self.log("give-up-unwritten", run=self.run_id, error=repr(unwritten))
