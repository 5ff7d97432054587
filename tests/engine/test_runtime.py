"""The engine in real processes, on real files: kill -9 anywhere, one process at a time, no pickle."""

from __future__ import annotations

import asyncio
import base64
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS
from toy import STEPS, FileWorld, Toy, ToyMachine

from orchestrator.core.errors import Bug, Rejected
from orchestrator.core.machine import Effect, Event
from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.runtime import Carried, Engine, open_engine
from orchestrator.ports import Fence

TOY = Path(__file__).parent / "toy.py"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
RESUME_S = 5.0  # From the start of a process to a run that moves again.


def toy(state: Path, world: Path, die: str | None = None) -> tuple[int, str, float]:
    """Run the toy's process; return its exit code, its last word and how long it took."""
    began = time.monotonic()
    command = [sys.executable, str(TOY), str(state), str(world), "r1", *(["--die", die] if die else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not die or done.returncode == -signal.SIGKILL, done.stderr
    return done.returncode, done.stdout, time.monotonic() - began


def test_killed_at_any_point_and_started_again_the_run_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    world = tmp_path / "world"
    world.mkdir()
    deaths = [
        "intended-drain",
        "committed-drain",
        "during-upgrade",
        "after-upgrade",
        "committed-restore",
    ]
    took_s = [toy(tmp_path / "state", world, die)[2] for die in deaths]
    code, last_word, last_s = toy(tmp_path / "state", world)
    assert (0, "succeeded") == (code, last_word)
    assert min(*took_s[1:], last_s) < RESUME_S, "the quickest counts: other tests may be keeping this machine busy"
    assert {*STEPS, "log"} == {path.name for path in world.iterdir()}
    performed = [line.split()[0] for line in (world / "log").read_text().splitlines()]
    assert ["drain"] + ["upgrade"] * 3 + ["restore"] == performed, "again where it was cut off, and nowhere else"
    with glance_at(Place.of(tmp_path / "state")) as glance:
        run = glance.load("r1")
        assert [f"{step}-done" for step in STEPS] == [record.event.kind for record in glance.events("r1")]
        assert ("succeeded", 3, []) == (run.status, run.seq, list(glance.leases("gates")))
        assert len(deaths) == run.epoch


class Hands:
    """Performs at once; `upgrade` waits for a signal, or fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def perform(self, state: Toy, effect: Effect, fence: Fence, interrupted: Any) -> Event:
        if effect.kind == "upgrade":
            self.reached.set()
            if self.failures:
                self.failures -= 1
                raise ZeroDivisionError("oops")
            await self.go.wait()
        return Event(f"{effect.kind}-done", effect.zone)


async def start(engine: Engine, run: str = "r1") -> None:
    state = ToyMachine().dump(Toy())
    await engine.store.create_run(run, "gates", "toy", state, "active", author="ada", reason="", now=NOW)
    await engine.start_run(run)


def test_a_second_process_on_one_state_is_told_who_holds_it(tmp_path: Path) -> None:
    async def main() -> None:
        hands = Hands()
        async with open_engine(Place.of(tmp_path), lambda _: {"toy": Carried(ToyMachine(), hands)}) as engine:
            await start(engine)
            await hands.reached.wait()
            second = await asyncio.to_thread(
                subprocess.run, [sys.executable, TOY, tmp_path, tmp_path, "r1"], capture_output=True, text=True
            )
            assert f"is in use by process {engine.carrier.split(':')[1]}" in second.stderr
            assert second.returncode != 0
            hands.go.set()
            assert "succeeded" == (await engine.await_run("r1")).status
            assert 1 == (await engine.store.load("r1")).epoch, "the second process has not touched the run"

    asyncio.run(main())


def test_a_closed_engine_leaves_the_run_to_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = Hands(), Hands()
        said: list[str] = []

        def log(event: str, /, **_: Any) -> None:
            said.append(event)

        async with open_engine(Place.of(tmp_path), lambda _: {"toy": Carried(ToyMachine(), first)}, log=log) as engine:
            await start(engine)
            await first.reached.wait()
            await engine.start_run("r1")  # Carried already: nothing happens.
        assert await asyncio.to_thread(lambda: True), "the loop's threads work after DBOS is gone"
        assert "dbos" not in said, "a stop that was asked for is nothing to warn of"
        second.go.set()
        async with open_engine(Place.of(tmp_path), lambda _: {"toy": Carried(ToyMachine(), second)}) as engine:
            assert "succeeded" == (await engine.await_run("r1")).status
            assert 2 == (await engine.store.load("r1")).epoch

    asyncio.run(main())


def test_what_a_carrier_gave_up_with_is_raised_and_starting_again_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        hands = Hands(failures=1)
        hands.go.set()
        async with open_engine(Place.of(tmp_path), lambda _: {"toy": Carried(ToyMachine(), hands)}) as engine:
            await start(engine)
            with pytest.raises(ZeroDivisionError):
                await engine.await_run("r1")
            assert "ZeroDivisionError('oops')" == (await engine.store.load("r1")).trouble
            await _until_ended("r1/1")
            await engine.start_run("r1")
            assert "succeeded" == (await engine.await_run("r1")).status

    asyncio.run(main())


async def _until_ended(workflow: str) -> None:
    deadline = time.monotonic() + 5
    while (await DBOS.list_workflows_async(workflow_ids=[workflow]))[0].status == "PENDING":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_kind_of_run_that_nothing_can_carry_is_said_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_engine(Place.of(tmp_path), lambda _: {}) as engine:
            await start(engine)
            with pytest.raises(Bug, match="r1 is a toy"):
                await engine.await_run("r1")

    asyncio.run(main())


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_planted_in_the_database_is_not_unpickled(tmp_path: Path) -> None:
    """DBOS unpickles whatever row says py_pickle, whatever serializer is configured; ours must not."""
    exploded = tmp_path / "exploded"
    bomb = base64.b64encode(pickle.dumps(Bomb(exploded))).decode()
    state, logged = tmp_path / "state", []

    def log(event: str, /, **fields: Any) -> None:
        logged.append((event, fields))

    async def main() -> None:
        hands = Hands()
        async with open_engine(Place.of(state), lambda _: {"toy": Carried(ToyMachine(), hands)}) as engine:
            await start(engine)
            await hands.reached.wait()
        with sqlite3.connect(state / "dbos.db") as database:
            planted = database.execute("UPDATE workflow_status SET inputs = ?, serialization = 'py_pickle'", (bomb,))
            assert 1 == planted.rowcount
            database.execute("UPDATE workflow_input SET inputs = ?", (bomb,))
        database.close()
        async with open_engine(Place.of(state), lambda _: {"toy": Carried(ToyMachine(), hands)}, log=log):
            deadline = time.monotonic() + 5
            while not any("pickle" in str(fields) for _, fields in logged):
                assert time.monotonic() < deadline, "nobody read the planted row: this test proves nothing"
                await asyncio.sleep(0.05)

    asyncio.run(main())
    assert not exploded.exists()


def test_ended_workflows_are_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        world = FileWorld(tmp_path)
        for number in range(2):
            async with open_engine(Place.of(tmp_path), lambda _: {"toy": Carried(ToyMachine(), world)}) as engine:
                await start(engine, f"r{number}")
                await engine.await_run(f"r{number}")
        with sqlite3.connect(tmp_path / "dbos.db") as database:
            kept = database.execute("SELECT workflow_uuid, status FROM workflow_status").fetchall()
        database.close()
        assert [("r1/1", "SUCCESS")] == kept, "a stop waits until what has ended is written down"

    asyncio.run(main())


def test_only_one_process_may_have_an_executors_place(tmp_path: Path) -> None:
    with Place.of(tmp_path).exclusively(), pytest.raises(Rejected, match="in use"), Place.of(tmp_path).exclusively():
        pass
    with Place.of(tmp_path).exclusively():
        pass
