"""What each step of a runbook does: an operation is begun and followed, a condition is looked at until it is so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol, cast

from orchestrator.core.errors import Bug, Denied, NoCapacity, Refused, Rejected, StoreAway, Transient
from orchestrator.core.machine import Effect, Event
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.runbook import K, RunbookState, effect_kind
from orchestrator.core.script import Do, Look, Step, duration_told
from orchestrator.engine.ports import Run, Store
from orchestrator.ports import Clock, Fence, Notice
from orchestrator.workflows.looking import Looker, Seen
from orchestrator.workflows.polling import Found, Interrupted, NotYet, TimedOut, look_until
from orchestrator.workflows.world import World

USUAL_MIN: Final = 3  # A p75 of fewer says nothing.
WHEN_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`known` False: nobody could tell, which is no no (I2)."""

    ok: bool
    evidence: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """An operation that a step calls. `marker` names run, step and try: what is begun under it is begun once (I11)."""

    step: Step
    run: str
    runbook: str
    author: str
    visit: int
    began: datetime

    @property
    def marker(self) -> str:
        return f"{self.run}.{self.step.name}" + (f".{self.visit}" if self.visit > 1 else "")

    @property
    def reason(self) -> str:
        return f"runbook {self.runbook}, step {self.step.name} ({self.marker})"


class Operations(Protocol):
    """Failout's own use cases, by the words of the command line (core.script.OPERATIONS)."""

    async def begin(self, call: Call) -> Run | Outcome:
        """Do it, or begin the run that does it and return that. Asked again after a crash it begins nothing twice."""

    async def judge(self, call: Call, run: Run) -> Outcome | None:
        """What came of the run that was begun; None while it is under way."""


class RunbookPerformer:
    """Performs effects for runs of kind `runbook`."""

    def __init__(self, world: World, store: Store, policy: DeployPolicy, operations: Operations) -> None:
        self._world, self._store, self._policy, self._operations = world, store, policy, operations

    async def perform(self, state: RunbookState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:  # noqa: ARG002
        """Perform the step. Failures are events; only StaleCarrier and Bug are raised."""
        index = cast("int", effect.args["index"])
        step, entered = state.steps[index], state.progress[index].since
        row, clock = await self._store.load(state.run), self._world.clock
        call = Call(step, state.run, state.runbook, row.author, cast("int", effect.args["visit"]), row.created_at)

        async def alarm(told: str) -> None:
            what = f"step {step.name} takes longer than usual ({told})"
            await self._tell(state, "warning", what, f"failout runbook progress {state.run}")

        before_s = max(0.0, (clock.now() - entered).total_seconds()) if entered else 0.0
        watch = _Watch(clock, before_s, await self._alarm_s(state, step), alarm, interrupted)
        act = _Act(self._world, self._store, self._operations, Looker(self._world, self._store, self._policy), watch)
        # A question that is open already stays open: it was asked because `when` held.
        wanted = await act.wanted(step) if effect.kind == "ask" or step.kind is not Do.ASK else Outcome(True, "")
        if wanted is None:
            return Event(K.INTERRUPTED, evidence=f"{step.name} was interrupted")
        if not wanted.ok and wanted.known:
            return Event(K.STEP_SKIPPED, evidence=f"not needed: {wanted.evidence}")
        if effect.kind == "ask" and wanted.ok:
            await self._tell(state, "page", step.text, f"failout runbook approve {state.run}   (or: deny)")
            return Event(K.ASKED, evidence=step.text)
        outcome = await act.step(call) if wanted.ok else wanted
        if outcome is None:
            return Event(K.INTERRUPTED, evidence=f"{step.name} was interrupted; what it began goes on by itself")
        late = f" (longer than usual: {watch.alarmed})" if watch.alarmed else ""
        if not outcome.ok:
            await self._tell(
                state, "page", f"{step.name} failed: {outcome.evidence}", f"failout runbook progress {state.run}"
            )
        return Event(K.STEP_DONE if outcome.ok else K.STEP_FAILED, evidence=outcome.evidence + late)

    async def _alarm_s(self, state: RunbookState, step: Step) -> float | None:
        """What three of four runs of this very step took; before there are any, what the document says."""
        usual = (await self._store.usual(state.service)).get(effect_kind(state.runbook, step.name))
        return usual.p75_s if usual and usual.count >= USUAL_MIN else step.alarm_s

    async def _tell(self, state: RunbookState, level: str, what: str, next_command: str) -> None:
        notice = Notice(level, state.run, None, f"runbook {state.runbook}: {what}", state.title, None, next_command)
        await self._world.notifier.notify(notice)


class _Watch:
    """Tells once when a step takes longer than its alarm, whenever the step asks whether it is interrupted.

    `before_s`: how long ago the step was entered, by a process that may have died since.
    """

    def __init__(
        self,
        clock: Clock,
        before_s: float,
        alarm_s: float | None,
        alarm: Callable[[str], Awaitable[None]],
        asked: Interrupted,
    ) -> None:
        self._clock, self._alarm_s, self._alarm, self._asked = clock, alarm_s, alarm, asked
        self._began = clock.monotonic() - before_s
        self.alarmed = ""

    @property
    def elapsed_s(self) -> float:
        return self._clock.monotonic() - self._began

    async def interrupted(self) -> bool:
        if self._alarm_s is not None and not self.alarmed and self.elapsed_s > self._alarm_s:
            self.alarmed = f"{self.elapsed_s:.1f} s, p75 {self._alarm_s:.1f} s"
            await self._alarm(self.alarmed)
        return await self._asked()


class _Act:
    """One performance of one step; None from its methods means that a person's order waits."""

    def __init__(self, world: World, store: Store, operations: Operations, looker: Looker, watch: _Watch) -> None:
        self._world, self._store, self._operations = world, store, operations
        self._looker, self._watch = looker, watch
        self._every_s = looker.every_s

    async def wanted(self, step: Step) -> Outcome | None:
        """What its `when` says."""
        return await self.once(step.when, WHEN_TIMEOUT_S) if step.when else Outcome(True, "")

    async def step(self, call: Call) -> Outcome | None:
        step = call.step
        match step.kind:
            case Do.DO:
                return await self._do(call)
            case Do.NOTIFY:
                notice = Notice(step.level, call.run, None, step.text, f"runbook {call.runbook}", None, None)
                await self._world.notifier.notify(notice)
                return Outcome(True, step.text)
            case Do.ASK:
                return await self._answer(step)
            case Do.PARALLEL:
                return await self._all(call)
            case Do.WAIT | Do.VERIFY if step.look is not None:
                return await (self.wait if step.kind is Do.WAIT else self.once)(step.look, step.timeout_s)
            case _:
                raise Bug(f"step {step.name} is a {step.kind} without a condition")

    async def wait(self, look: Look, timeout_s: float) -> Outcome | None:
        """Look until it is so."""

        async def asked() -> Seen | NotYet:
            seen = await self._looker.look(look, self._watch.elapsed_s)
            return seen if seen.so else NotYet(seen.evidence)

        return await self._until(asked, timeout_s, f"{look.told()} not within {duration_told(timeout_s)}")

    async def once(self, look: Look, timeout_s: float) -> Outcome | None:
        """Look until somebody can tell, and take the answer as it is."""

        async def asked() -> Seen | NotYet:
            return await self._looker.look(look, self._watch.elapsed_s)

        return await self._until(asked, timeout_s, f"nobody could tell {look.told()} for {duration_told(timeout_s)}")

    async def _until(
        self, asked: Callable[[], Awaitable[Seen | NotYet]], timeout_s: float, late: str
    ) -> Outcome | None:
        try:
            result = await look_until(
                asked, self._world.clock, self._watch.interrupted, every_s=self._every_s, timeout_s=timeout_s
            )
        except (Denied, Rejected) as error:
            return Outcome(False, f"{type(error).__name__.lower()}: {error}", known=False)
        except StoreAway as away:
            return Outcome(False, f"{late}: {away}", known=False)
        if isinstance(result, Found):
            return Outcome(result.value.so, result.value.evidence)
        return Outcome(False, f"{late}: {result.last}", known=False) if isinstance(result, TimedOut) else None

    async def _answer(self, step: Step) -> Outcome | None:
        async def asked() -> NotYet:
            return NotYet("nobody has answered")

        return await self._until(asked, step.timeout_s, f"no answer within {duration_told(step.timeout_s)}")

    async def _do(self, call: Call) -> Outcome | None:
        begun: list[Run] = []

        async def asked() -> Seen | NotYet:
            if not begun:
                came = await self._operations.begin(call)
                if isinstance(came, Outcome):
                    return Seen(came.ok, came.evidence)
                begun.append(came)
            run = await self._store.load(begun[0].id)
            outcome = await self._operations.judge(call, run)
            return Seen(outcome.ok, outcome.evidence) if outcome else NotYet(f"run {run.id} is {run.status}")

        late = f"{call.step.text} took more than {duration_told(call.step.timeout_s)}"
        try:
            return await self._until(asked, call.step.timeout_s, late)
        except Refused as refused:
            return Outcome(False, f"refused by {refused.rule}: {refused.reason}")
        except (NoCapacity, Transient) as error:
            return Outcome(False, f"{type(error).__name__.lower()}: {error}")

    async def _all(self, call: Call) -> Outcome | None:
        """Every branch to its own end: one that fails does not stop the others half-way."""
        calls = [replace(call, step=branch) for branch in call.step.branches]
        outcomes = await asyncio.gather(*(self._branch(c) for c in calls))
        if any(outcome is None for outcome in outcomes):
            return None
        told = [f"{c.step.name}: {o.evidence}" for c, o in zip(calls, outcomes, strict=True) if o]
        return Outcome(all(o.ok for o in outcomes if o), "; ".join(told))

    async def _branch(self, call: Call) -> Outcome | None:
        wanted = await self.wanted(call.step)
        if wanted is None or (not wanted.ok and not wanted.known):
            return wanted
        return await self.step(call) if wanted.ok else Outcome(True, f"not needed: {wanted.evidence}")
