"""Virtual time: drives coroutines by hand, so that a whole deploy takes milliseconds and runs the same way every time.

There is no asyncio here. The one thing that blocks is `SimClock.sleep`; the scheduler wakes whoever is due next, ties
in the order in which they were asked for. A process is one carrier; killing it is what kill -9 is to a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from types import coroutine
from typing import Any, TypeVar, cast

from orchestrator.core.errors import Bug

T = TypeVar("T")
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """Unwinds a killed process. Not an Exception: no handler of the code under test may survive its own death."""


@dataclass(slots=True, eq=False)
class Process:
    """One operating system process that carries runs. `wall_skew_s` is how far its wall clock is off.

    `beside`: another task of it, as a Process of its own, with which it stops and dies.
    """

    name: str
    alive: bool = True
    done: bool = False
    result: Any = None
    failure: BaseException | None = None
    wall_skew_s: float = 0.0
    stalled_until_s: float = 0.0
    began_s: float = 0.0
    beside: Process | None = field(default=None, repr=False)
    _coroutine: Coroutine[Any, Any, Any] | None = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        return self.alive and not self.done

    def check(self) -> None:
        """Raise Killed when this process is dead: nothing it does may reach the world any more."""
        if not self.alive:
            raise Killed(self.name)

    def die(self) -> None:
        """End here and now, from the inside: what it did is done, what it knew is lost."""
        self.alive = False
        if self.beside is not None:
            self.beside.alive = False
        raise Killed(self.name)


@coroutine
def _suspend(seconds: float) -> Generator[float, None, None]:
    yield seconds


@dataclass(frozen=True, slots=True)
class SimClock:
    """The Clock port of one process."""

    scheduler: Scheduler
    process: Process

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.scheduler.now_s + self.process.wall_skew_s)

    def monotonic(self) -> float:
        return self.scheduler.now_s

    async def sleep(self, seconds: float) -> None:
        process, scheduler = self.process, self.scheduler
        if not process.alive:
            process.check()
        if process.stalled_until_s > scheduler.now_s or not scheduler.skip(seconds):
            await _suspend(seconds if seconds > 0 else 0.0)
            process.check()


class Scheduler:
    """All that happens, in order of time. `on_advance` is called right before time moves on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.on_advance: Callable[[], None] = lambda: None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0
        self._until_s = 0.0

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        """Call `act` at `when_s` (seconds since the start), or as soon as possible when that has passed."""
        self._asked += 1
        heappush(self._due, (max(when_s, self.now_s), self._asked, act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now_s + seconds, act)

    def spawn(self, process: Process, body: Coroutine[Any, Any, Any]) -> Process:
        """Start `body` as `process` at the present moment."""
        process.began_s = self.now_s
        process._coroutine = body  # noqa: SLF001 - the scheduler owns it
        self.at(self.now_s, lambda: self._resume(process))
        return process

    def kill(self, process: Process) -> None:
        """End it as kill -9 does: its clean-up code may run, but reaches nothing, because every port asks `process.check` first."""
        for task in (process, process.beside):
            if task is not None:
                _end(task)

    def stall(self, process: Process, seconds: float) -> None:
        """SIGSTOP for `seconds`: it sleeps through its own deadlines and wakes without knowing (a zombie)."""
        process.stalled_until_s = max(process.stalled_until_s, self.now_s + seconds)
        if process.beside is not None:
            process.beside.stalled_until_s = process.stalled_until_s

    def run(self, until_s: float, until: Callable[[], bool] | None = None) -> None:
        """Let time pass to `until_s`, or stop as soon as `until()` holds, or when nothing is left to happen."""
        due, self._until_s = self._due, until_s if until is None else self.now_s
        while due and due[0][0] <= until_s:
            if until is not None and until():
                return
            when_s, _, act = heappop(due)
            self._advance(when_s)
            act()
        if until is None or not until():
            self._advance(until_s)

    def skip(self, seconds: float) -> bool:
        """Let `seconds` pass at once when nothing else is due before: then a sleeper need not be put aside for it."""
        when_s = self.now_s + seconds
        if seconds <= 0.0 or when_s > self._until_s or (self._due and self._due[0][0] <= when_s):
            return False
        if when_s > self.now_s:
            self.on_advance()
            self.now_s = when_s
        return True

    def _advance(self, when_s: float) -> None:
        if when_s > self.now_s:
            self.on_advance()
            self.now_s = when_s

    def _resume(self, process: Process) -> None:
        if not process.running:
            return
        if process.stalled_until_s > self.now_s:
            self.at(process.stalled_until_s, lambda: self._resume(process))
            return
        body = process._coroutine  # noqa: SLF001
        if body is None:
            raise Bug(f"process {process.name} was never spawned")
        try:
            seconds = body.send(None)
        except StopIteration as stop:
            process.done, process.result, process._coroutine = True, stop.value, None  # noqa: SLF001
            if process.beside is not None:
                _end(process.beside)
        except Killed:
            process._coroutine = None  # noqa: SLF001
        except Exception as failure:  # noqa: BLE001 - a process may die of anything; the run's judge looks at it
            process.done, process.failure, process._coroutine = True, failure, None  # noqa: SLF001
        else:
            self.at(self.now_s + seconds, lambda: self._resume(process))


def _end(process: Process) -> None:
    process.alive = False
    body, process._coroutine = process._coroutine, None  # noqa: SLF001 - the scheduler owns it
    if body is not None:
        with suppress(Killed, RuntimeError):  # it wanted to go on: a dead process may not
            body.close()


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Run a call to the memory store, which never suspends."""
    try:
        call.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("the memory store suspended")
