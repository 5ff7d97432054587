"""I14: what the kill switch keeps still is told, with where it stands, by which switch, and what goes on or ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core import region_row
from orchestrator.core.machine import Event
from orchestrator.core.outing import Ask, Asker, Mode
from orchestrator.core.outing import begin as begin_outing
from orchestrator.core.outing_row import dump as dump_outing
from orchestrator.core.outing_table import Stage
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import Phase, RegionState, begin
from orchestrator.core.traffic import RampStep
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Advance
from orchestrator.engine.store import SqlStore
from orchestrator.operations.halted import AGAIN_S, Halts
from orchestrator.operations.report import collect
from orchestrator.operations.status import status
from orchestrator.operations.switches import turn
from orchestrator.ports import Notice

NOW = datetime(2030, 1, 1, tzinfo=UTC)
AWS = "aws/us-east-1"
STEPS = tuple(RampStep(share, 10.0, 100) for share in (0.1, 0.5, 1.0))
WHY = "kill is on for gates, set by bob: odd (I14)"
NEXT = (
    "failout kill-switch off --reason ...   (it goes on then; to end it instead, first: "
    f"failout region return {AWS} --reason ...)"
)


def do(act: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(act)


@dataclass
class Bench:
    store: SqlStore
    heard: list[Notice] = field(default_factory=list)

    async def notify(self, notice: Notice) -> None:
        self.heard.append(notice)

    def kill(self, *, on: bool = True, service: str = "gates") -> None:
        do(turn(self.store, service, "kill", on=on, author="bob", reason="odd", now=NOW))

    def move(self, phase: Phase, step: int = 0, status: str = "active", **more: Any) -> None:
        state = begin("move-1", "gates", (AWS,), DeployPolicy(), (), NOW)
        state = replace(state, phase=phase, steps=STEPS, step=step, **more)
        self.run("move-1", "region", region_row.dump(state), status, AWS)

    def run(self, name: str, kind: str, row: Any, status: str, zone: str | None) -> None:
        do(self.store.create_run(name, "gates", kind, row, "active", author="ada", reason="quake", now=NOW))
        do(self.store.claim(name, "me", NOW))
        advance = Advance(row, status, zone, False, Event("x"), None, 0.0)
        do(self.store.commit(do(self.store.load(name)), advance, NOW))

    def told(self) -> dict[str, Any]:
        return status(self.store.glance, "gates", NOW)["runs"][0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = SqlStore(Place.of(str(tmp_path / "state")))
    yield Bench(store)
    store.close()


@pytest.mark.parametrize(
    ("phase", "step", "stands"),
    [
        (Phase.PREPARING, 0, "at 100%"),
        (Phase.LEAVING, 0, "between 100% and 0%"),
        (Phase.EMPTYING, 0, "at 0%"),
        (Phase.VERIFYING, 0, "at 0%"),
        (Phase.RETURNING, 0, "between 0% and 10% (step 1 of 3)"),
        (Phase.RETURNING, 1, "between 10% and 50% (step 2 of 3)"),
        (Phase.SETTLING, 2, "at 100%"),
    ],
)
def test_a_move_that_stands_is_told_everywhere_with_its_share_the_switch_and_what_goes_on(
    bench: Bench, phase: Phase, step: int, stands: str
) -> None:
    bench.move(phase, step)
    bench.kill()
    evidence = f"{AWS} stands {stands} of its usual users, {phase}: {WHY}"
    assert (True, NEXT) == (bench.told()["reason"].startswith(evidence), bench.told()["next_command"])
    assert f"{evidence}; next: {NEXT}" == collect(bench.store.glance, "move-1", NOW).why
    do(Halts(bench.store, bench, "gates", "me").look(NOW))
    assert [Notice("page", "move-1", None, "stands", evidence, "I14", NEXT)] == bench.heard


def test_it_is_told_once_then_again_after_a_while_and_no_more_when_it_goes_on(bench: Bench) -> None:
    bench.move(Phase.RETURNING, 1)
    halts = Halts(bench.store, bench, "gates", "me")
    do(halts.look(NOW))
    assert (0, False) == (len(bench.heard), "kill is on" in bench.told()["reason"])
    bench.kill()
    for after_s in (0.0, 1.0, AGAIN_S - 1.0, AGAIN_S):
        do(halts.look(NOW + timedelta(seconds=after_s)))
    assert 2 == len(bench.heard)
    bench.kill(on=False)
    do(halts.look(NOW + timedelta(seconds=2 * AGAIN_S)))
    bench.kill(service="*")
    do(Halts(bench.store, bench, "gates", "another").look(NOW))
    do(halts.look(NOW + timedelta(seconds=2 * AGAIN_S + 1)))
    assert 3 == len(bench.heard)
    assert bench.heard[-1].evidence.endswith("kill is on for every service, set by bob: odd (I14)")
    assert str(bench.heard[-1].next_command).startswith("failout kill-switch off --reason ... --every-service ")


@pytest.mark.parametrize(
    ("phase", "as_"), [(Phase.OUT, "out"), (Phase.HELD_RETURNING, "held"), (Phase.EMPTYING, "paused")]
)
def test_what_waits_for_a_person_anyway_is_not_told_to_stand_for_the_switch(
    bench: Bench, phase: Phase, as_: str
) -> None:
    bench.move(phase, 0, as_, paused=as_ == "paused")
    bench.kill()
    do(Halts(bench.store, bench, "gates", "me").look(NOW))
    assert ([], False) == (bench.heard, "kill is on" in bench.told()["reason"])


@pytest.mark.parametrize(("asker", "told"), [(Asker.PERSON, 0), (Asker.DRILL, 1)])
def test_a_persons_outing_goes_on_and_a_drills_is_told_to_stay_out(bench: Bench, asker: Asker, told: int) -> None:
    ask = Ask("aws/us-east-1a", Mode.DRAIN, asker, "ada", "a test", NOW + timedelta(hours=1))
    row = dump_outing(replace(begin_outing("gates", ask, DeployPolicy(), NOW), stage=Stage.OUT))
    bench.run("outing-1", "outing", row, "out", ask.zone)
    bench.kill()
    do(Halts(bench.store, bench, "gates", "me").look(NOW))
    assert [f"{ask.zone} stands out: {WHY}"] * told == [notice.evidence for notice in bench.heard]


def test_a_move_of_both_regions_of_a_cloud_is_ended_by_its_cloud(bench: Bench) -> None:
    state: RegionState = begin("move-1", "gates", (AWS, "aws/us-west-2"), DeployPolicy(), (), NOW)
    bench.run("move-1", "region", region_row.dump(replace(state, phase=Phase.LEAVING)), "active", state.place)
    bench.kill()
    assert "failout region return --cloud aws --reason ..." in bench.told()["next_command"]
