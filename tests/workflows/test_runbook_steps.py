"""A runbook carried as it ships, in virtual time: killed, alarmed, asked, refused, in parallel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runbooks.places import TOPOLOGY

from orchestrator.core.errors import NotFound, Transient
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.runbook import RunbookState, begin
from orchestrator.core.runbook_row import RunbookMachine, dump, parse
from orchestrator.documents import parse_document
from orchestrator.engine.carry import carry
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Lease, Run
from orchestrator.ports import Notice
from orchestrator.workflows.runbook import Call, Outcome, RunbookPerformer

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Time passes when somebody sleeps, and for all at once."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        await asyncio.sleep(0)
        self.seconds = max(self.seconds, until)


class Notices(list[Notice]):
    async def notify(self, notice: Notice) -> None:
        self.append(notice)

    def of(self, level: str) -> list[str]:
        return [n.what for n in self if n.level == level]


class Rows(MemoryStore):
    """`dark`: nobody can say what is out."""

    dark = False

    async def leases(self, service: str) -> Sequence[Lease]:
        if self.dark:
            raise Transient("the connection was closed")
        return await super().leases(service)


@dataclass
class Operations:
    """`lasts` by the operation's words: seconds of the run that it begins; without it the operation is done at once."""

    store: Rows
    clock: Clock
    lasts: Mapping[str, float] = field(default_factory=dict)
    fails: frozenset[str] = frozenset()
    begun: Counter[str] = field(default_factory=Counter)

    async def begin(self, call: Call) -> Run | Outcome:
        words, now = call.step.text, self.clock.now()
        if words not in self.lasts:
            self.begun[call.marker] += 1
            return Outcome(words not in self.fails, f"{words}: done")
        try:
            return await self.store.load(call.marker)
        except NotFound:
            self.begun[call.marker] += 1
            return await self.store.create_run(
                call.marker, "gates", "toy", {}, "active", author=call.author, reason=call.reason, now=now
            )

    async def judge(self, call: Call, run: Run) -> Outcome | None:
        if (self.clock.now() - run.created_at).total_seconds() < self.lasts[call.step.text]:
            return None
        return Outcome(call.step.text not in self.fails, f"{call.step.text} has ended")


class Desk:
    """One service's rows, and runs of documents over them."""

    def __init__(self, lasts: Mapping[str, float] | None = None, fails: tuple[str, ...] = ()) -> None:
        self.clock, self.store, self.notices = Clock(), Rows(), Notices()
        self.operations = Operations(self.store, self.clock, lasts or {}, frozenset(fails))
        self._numbers = 0

    def start(self, *steps: str) -> str:
        head = "---\nid: mend\ntitle: Mend\ntask: Something\n---\n"
        fenced = "".join(f"```failout\n{step}\n```\n" for step in steps)
        runbook = parse_document(head + fenced, Path("mend.md"), TOPOLOGY).require()
        self._numbers += 1
        run, now = f"runbook-{self._numbers}", self.clock.now()
        state = begin(runbook, run, "gates", {}, now)
        create = self.store.create_run(
            run, "gates", "runbook", dump(state), "active", author="ada", reason="a test", now=now
        )
        asyncio.run(create)
        return run

    def carry(self, run: str, until: Callable[[], bool] | None = None, then: Callable[[], Any] | None = None) -> None:
        """Carry to the end; or kill the carrier once it is so, unless there is something to do `then`."""
        asyncio.run(self._carry(run, until, then))

    async def _carry(self, run: str, until: Callable[[], bool] | None, then: Callable[[], Any] | None) -> None:
        world: Any = type("World", (), {})()
        world.clock, world.notifier, world.topology = self.clock, self.notices, TOPOLOGY
        world.agents = world.fleets = world.traffics = {}
        performer = RunbookPerformer(world, self.store, DeployPolicy(poll_s=1.0), self.operations)
        task = asyncio.create_task(carry(run, RunbookMachine(), performer, self.store, self.clock, "me"))
        while until and not until():
            assert not task.done(), "it ended before"
            await asyncio.sleep(0)
        if until and not then:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        if then:
            await then()
        assert await task

    def order(self, run: str, kind: str) -> Callable[[], Any]:
        return lambda: self.store.post_order(run, kind, author="bob", reason="a test", now=self.clock.now())

    def state(self, run: str) -> RunbookState:
        return parse(asyncio.run(self.store.load(run)).state)

    def told(self, run: str) -> dict[str, str]:
        state = self.state(run)
        return {s.name: f"{p.state}: {p.evidence}" for s, p in zip(state.steps, state.progress, strict=True)}

    def since(self, run: str, seconds: float) -> Callable[[], bool]:
        began = self.clock.seconds
        return lambda: self.clock.seconds >= began + seconds


FREEZE = "name: freeze\ndo: freeze"
DEPLOY = "name: deploy\ndo: deploy\nversion: v2\ntimeout: 1h"
TELL = 'name: tell\nnotify: "over"'
ASK = 'name: sure\nask: "Really?"\ntimeout: 1h'


def test_killed_while_a_step_is_under_way_it_goes_on_and_begins_nothing_twice() -> None:
    desk = Desk(lasts={"deploy": 100.0})
    run = desk.start(FREEZE, DEPLOY, TELL)
    for seconds in (10.0, 20.0, 30.0):
        desk.carry(run, until=desk.since(run, seconds))
    desk.carry(run)
    assert {"runbook-1.freeze": 1, "runbook-1.deploy": 1} == dict(desk.operations.begun)
    assert "succeeded" == str(desk.state(run).status)
    assert 100.0 <= desk.clock.seconds < 105.0, "the deploy itself went on meanwhile"
    assert ["over"] == desk.notices.of("info")


def test_a_wait_for_time_counts_from_the_step_not_from_the_last_restart() -> None:
    desk = Desk()
    run = desk.start("name: pass\nwait: seconds-passed\nfor: 100s\ntimeout: 1h")
    desk.carry(run, until=desk.since(run, 90.0))
    desk.carry(run)
    assert 100.0 <= desk.clock.seconds < 105.0


def test_a_step_that_takes_longer_than_three_of_four_did_is_told_once() -> None:
    desk = Desk(lasts={"deploy": 10.0})
    for _ in range(3):
        desk.carry(desk.start(DEPLOY))
    assert [] == desk.notices.of("warning")
    desk.operations.lasts = {"deploy": 40.0}
    run = desk.start(DEPLOY)
    desk.carry(run)
    assert 1 == len(desk.notices.of("warning"))
    assert "step deploy takes longer than usual" in desk.notices.of("warning")[0]
    assert "longer than usual" in desk.told(run)["deploy"]


def test_before_there_is_a_usual_the_document_says_what_is_late() -> None:
    desk = Desk(lasts={"deploy": 40.0})
    desk.carry(desk.start(DEPLOY + "\nalarm_after: 20s"))
    assert 1 == len(desk.notices.of("warning"))


def test_a_question_waits_for_a_person_and_begins_nothing_meanwhile() -> None:
    desk = Desk()
    run = desk.start(ASK, FREEZE)
    desk.carry(run, until=desk.since(run, 600.0))
    assert ("waiting", {}) == (str(desk.state(run).status), dict(desk.operations.begun))
    assert ["runbook mend: Really?"] == desk.notices.of("page")
    desk.carry(run, until=desk.since(run, 60.0), then=desk.order(run, "approve"))
    assert {"runbook-1.freeze": 1} == dict(desk.operations.begun)
    assert "done: approve by bob: a test" == desk.told(run)["sure"]


def test_a_refused_question_ends_it_and_an_unanswered_one_too() -> None:
    for answer, evidence in (("deny", "deny by bob"), (None, "no answer within 1h")):
        desk = Desk()
        run = desk.start(ASK, FREEZE)
        if answer:
            desk.carry(run, until=desk.since(run, 60.0), then=desk.order(run, answer))
        else:
            desk.carry(run)
        assert "failed" == str(desk.state(run).status)
        assert evidence in desk.told(run)["sure"]
        assert {} == dict(desk.operations.begun)


def test_a_question_that_is_not_needed_is_not_asked() -> None:
    desk = Desk()
    run = desk.start(ASK + "\nwhen: frozen", FREEZE)
    desk.carry(run)
    assert "skipped: not needed: nothing is frozen" == desk.told(run)["sure"]
    assert [] == desk.notices.of("page")


def test_i2_a_when_that_nobody_could_tell_is_a_failure_and_skips_nothing() -> None:
    desk = Desk()
    desk.store.dark = True
    run = desk.start(f"{FREEZE}\nwhen: not lease-free\non_failure: continue", TELL)
    desk.carry(run)
    assert desk.told(run)["freeze"].startswith("failed: nobody could tell not lease-free"), desk.told(run)
    assert {} == dict(desk.operations.begun)


BOTH = """name: both
parallel:
  - name: left
    do: deploy
    version: v2
  - name: right
    do: zone drain
    zone: aws/us-east-1a
  - name: unneeded
    do: unfreeze
    when: frozen
on_failure: continue"""


def test_branches_run_at_the_same_time_and_each_to_its_own_end() -> None:
    desk = Desk(lasts={"deploy": 60.0, "zone drain": 50.0}, fails=("zone drain",))
    run = desk.start(BOTH, TELL)
    desk.carry(run)
    assert 60.0 <= desk.clock.seconds < 70.0, "not one after the other"
    assert {"runbook-1.left": 1, "runbook-1.right": 1} == dict(desk.operations.begun)
    told = desk.told(run)["both"]
    assert told.startswith("failed: ")
    for part in ("left: deploy has ended", "right: zone drain has ended", "unneeded: not needed: nothing is frozen"):
        assert part in told
    assert "succeeded" == str(desk.state(run).status), "what follows a failure is said of the whole"
