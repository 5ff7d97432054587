"""What goes wrong between an orchestrator and the world: replies lost, delayed, doubled, stale; calls done by half.

A `Wire` belongs to one process and stands before every port. It is also where a process is killed: before a call,
inside it, and after it was done but before anybody knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import TypeVar

from orchestrator.core.errors import Denied, StoreAway, Transient
from orchestrator.ports import Fence
from orchestrator.sim.scheduler import Process, Scheduler, SimClock

T = TypeVar("T")


class Fault(StrEnum):
    LOST_REPLY = "lost-reply"  # done, but the caller is told to try again
    NOT_DONE = "not-done"
    THROTTLED = "throttled"
    DUPLICATE = "duplicate"  # a write arrives twice
    HALF_WAY = "half-way"  # a write of several parts stops in the middle
    STALE = "stale"  # a control plane's read answers what was true before; instances and agents never do
    SLOW = "slow"
    DENIED = "denied"  # a cloud says that we may not: credentials that have run out, a role that was changed
    KILL_BEFORE = "kill-before"
    KILL_INSIDE = "kill-inside"  # in the middle of a write of several parts
    KILL_AFTER = "kill-after"
    STALL = "stall"  # SIGSTOP: the process sleeps and wakes without knowing
    CLOCK_JUMP = "clock-jump"  # of the wall clock; a scenario's, like the two below
    # Never drawn: a region that is cut off from the orchestrator, for as long as the scenario says.
    CUT_OFF = "cut-off"
    ONE_WAY = "one-way"  # what is asked arrives there, no answer comes back


WRITE_FAULTS = (Fault.DUPLICATE, Fault.HALF_WAY, Fault.KILL_INSIDE)
READ_FAULTS = (Fault.STALE,)
_NO_ANSWER = frozenset({Fault.NOT_DONE, Fault.LOST_REPLY, Fault.THROTTLED, Fault.CUT_OFF, Fault.ONE_WAY, Fault.DENIED})
_NOT_ARRIVED = frozenset({Fault.NOT_DONE, Fault.THROTTLED, Fault.CUT_OFF, Fault.DENIED})
STATE = "state"  # what a cut is of where nobody reaches the store
_CLOUDS = ("fleet.", "traffic.", "dns.")
_IN_THE_MIDDLE = frozenset({Fault.HALF_WAY, Fault.KILL_INSIDE})


@dataclass(slots=True)
class Faults:
    """Decides what befalls each call. `rates`: chance per call, 0..1. `plan`: the n-th call of the run (from 1) gets this.

    `only`, when given, limits the random faults to calls whose name starts so.
    """

    random: Random
    rates: Mapping[Fault, float] = field(default_factory=dict)
    plan: Mapping[int, Fault] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    slow_s: float = 3.0
    stall_s: float = 20.0
    stale_s: float = 5.0
    calls: int = 0
    injected: dict[Fault, int] = field(default_factory=dict)
    healed: bool = False
    placed: dict[int, Fault] = field(default_factory=dict)  # what befell which call: a `plan` for the same history
    cuts: dict[str, Fault] = field(default_factory=dict)  # region id -> CUT_OFF or ONE_WAY, while it lasts

    def slowed_s(self) -> float:
        """How long calls have lasted in all because they were slow."""
        return self.injected.get(Fault.SLOW, 0) * self.slow_s

    def fate(self, name: str, about: str, *, write: bool) -> Fault | None:
        self.calls += 1
        if self.cuts and (cut := self._cut(about)) is not None:
            self.count(cut)
            return cut
        drawn = self.plan.get(self.calls)
        if drawn is None and self.rates and not self.healed and (not self.only or name.startswith(self.only)):
            drawn = self._draw()
        if drawn is None or drawn in (READ_FAULTS if write else WRITE_FAULTS):
            return None
        if drawn is Fault.STALE and name.startswith("agent."):
            return None
        if drawn is Fault.DENIED and not name.startswith(_CLOUDS):
            return None
        self.count(drawn)
        self.placed[self.calls] = drawn
        return drawn

    def count(self, fault: Fault) -> None:
        self.injected[fault] = self.injected.get(fault, 0) + 1

    def _cut(self, about: str) -> Fault | None:
        """`about` is a region, a zone of it or instances of that: a cloud's zone ids begin with its region's."""
        return next((fault for region, fault in self.cuts.items() if about.startswith(region)), None)

    def _draw(self) -> Fault | None:
        at = self.random.random()
        for fault, rate in self.rates.items():
            at -= rate
            if at < 0.0:
                return fault
        return None


@dataclass(slots=True)
class Wire:
    """The way from one process to the world. `latency_s` is what a call takes when all is well."""

    process: Process
    scheduler: Scheduler
    faults: Faults
    latency_s: float = 0.02
    writes: int = 0
    on_call: Callable[[str, str, Fault], None] = lambda _name, _about, _fault: None
    on_write: Callable[[Process, str, str], None] = lambda _process, _name, _about: None
    _seen: dict[tuple[str, str], tuple[float, object]] = field(default_factory=dict)
    _clock: SimClock = field(init=False)

    def __post_init__(self) -> None:
        self._clock = SimClock(self.scheduler, self.process)

    async def read(self, name: str, about: str, ask: Callable[[], T]) -> T:
        fault = self._enter(name, about, write=False)
        key = (name, about)
        if fault is None:  # nearly always
            await self._clock.sleep(self.latency_s)
            answer = ask()
            self._seen[key] = (self.scheduler.now_s, answer)
            return answer
        await self._travel(fault)
        if fault in _NO_ANSWER:
            raise _trouble(name, fault)
        if fault is Fault.STALE and key in self._seen:
            at_s, before = self._seen[key]
            if at_s >= self.scheduler.now_s - self.faults.stale_s:
                return before  # type: ignore[return-value]
        answer = ask()
        self._seen[key] = (self.scheduler.now_s, answer)
        self._leave(fault)
        return answer

    async def write(self, name: str, about: str, parts: Sequence[Callable[[], None]], fence: Fence | None) -> None:
        """Do `parts` in order, one call to the far side each; the fence is read right before each (I1)."""
        fault = self._enter(name, about, write=True)
        if fault is Fault.STALL:
            await self._travel(fault)
        if fault in _NOT_ARRIVED:
            raise _trouble(name, fault)
        for part in parts[: len(parts) // 2] if fault in _IN_THE_MIDDLE else parts:
            if fence is not None:
                await fence.check()
            await self._travel(fault)
            self.on_write(self.process, name, about)
            part()
            self.writes += 1
            if fault is Fault.DUPLICATE:
                part()
        self._leave(fault)
        if fault in {Fault.LOST_REPLY, Fault.HALF_WAY, Fault.ONE_WAY}:
            raise _trouble(name, fault)

    def _enter(self, name: str, about: str, *, write: bool) -> Fault | None:
        if not self.process.alive:
            self.process.check()
        fault = self.faults.fate(name, about, write=write)
        if fault is None:
            return None
        self.on_call(name, about, fault)
        if fault is Fault.KILL_BEFORE:
            self.process.die()
        if fault is Fault.STALL:
            self.scheduler.stall(self.process, self.faults.stall_s)
        return fault

    def _leave(self, fault: Fault | None) -> None:
        if fault in {Fault.KILL_AFTER, Fault.KILL_INSIDE}:
            self.process.die()

    def _travel(self, fault: Fault | None) -> Awaitable[None]:
        return self._clock.sleep(self.faults.slow_s if fault is Fault.SLOW else self.latency_s)

    async def rest(self, seconds: float) -> None:
        """Let the work itself take its time."""
        await self._clock.sleep(seconds)

    def reach_state(self) -> None:
        """Before a read of the state file, which takes no time either."""
        self.process.check()
        if STATE in self.faults.cuts:
            self.faults.count(Fault.CUT_OFF)
            raise StoreAway(f"the state cannot be reached ({Fault.CUT_OFF})")

    async def instant(self, name: str, act: Callable[[], Awaitable[T]]) -> T:
        """A call that takes no time (the state file): the process may die right before it, and right after."""
        fault = self._enter(name, STATE, write=True)
        if fault is Fault.STALL:
            await self._travel(fault)
        if fault in _NOT_ARRIVED:
            raise StoreAway(f"{name}: {fault} (injected)")
        done = await act()
        self._leave(fault)
        if fault is Fault.LOST_REPLY:
            raise StoreAway(f"{name}: {fault} (injected)")
        return done


def _trouble(name: str, fault: Fault) -> Transient | Denied:
    if fault is Fault.DENIED:
        return Denied(f"{name}: denied (injected)")
    retry_after_s = 1.0 if fault is Fault.THROTTLED else None
    return Transient(f"{name}: {fault} (injected)", retry_after_s=retry_after_s)
