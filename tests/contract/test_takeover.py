"""Several executors on one PostgreSQL: one dies, hangs, or the database goes away, and each run is carried by one of them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import postgres_server
import pytest
from engine.toy import STEPS, Toy, ToyMachine
from postgres_server import Server

from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Run
from orchestrator.engine.store import SqlStore

TESTS = Path(__file__).parents[1]
DONE = [f"{step}-done" for step in STEPS]
TAKEOVER_S = 5.0
BUSY_S = 2.0  # Other tests may be keeping this machine busy.


class Site:
    """Executors of one database and the world of files that they act on."""

    def __init__(self, url: str, world: Path) -> None:
        self.url, self.world = url, world
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """All at once: they find an empty database, and set it up in turns."""
        toy = [sys.executable, str(TESTS / "engine" / "toy.py"), self.url, str(self.world), "-", "--slow", "upgrade"]
        for name in names:
            self.processes[name] = subprocess.Popen([*toy, "--serve", name])
        self.until(lambda: all((self.world / f"{name}.up").exists() for name in names), 30, f"{names} are up")

    def create(self, run: str = "r1") -> None:
        """What a client does: it writes the row, and leaves the run to whoever serves."""

        async def create() -> None:
            store, state = SqlStore(Place.of(self.url)), ToyMachine().dump(Toy())
            now = datetime.now(UTC)
            await store.create_run(run, "gates", "toy", state, "active", author="a", reason="", now=now)
            store.close()

        asyncio.run(create())

    def until(self, so: Callable[[], bool], seconds: float, what: str) -> float:
        """Poll; return how long it took."""
        began = time.monotonic()
        while not so():
            assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}; {self.told()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def told(self) -> str:
        return "".join(f"\n{p.name}:\n{p.read_text()[-2000:]}" for p in sorted(self.world.glob("*log")))

    def performed(self) -> list[str]:
        log = self.world / "log"
        return log.read_text().splitlines() if log.exists() else []

    def who_upgrades(self) -> str:
        self.until(lambda: any(line.startswith("upgrade") for line in self.performed()), 20, "somebody upgrades")
        return self.performed()[-1].split()[2]

    def run(self, run: str = "r1") -> Run:
        with glance_at(Place.of(self.url)) as glance:
            return glance.load(run)

    def history(self, run: str = "r1") -> list[str]:
        with glance_at(Place.of(self.url)) as glance:
            return [record.event.kind for record in glance.events(run)]

    def go_to_the_end(self) -> None:
        (self.world / "go").touch()
        self.until(lambda: self.run().finished, 20, "the run ends")


@contextmanager
def site(url: str, world: Path) -> Iterator[Site]:
    made = Site(url, world)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server.server() as url:
        yield url


@pytest.fixture
def pair(server: str, tmp_path: Path) -> Iterator[Site]:
    with postgres_server.database(server) as url, site(url, tmp_path) as made:
        made.start("east", "west")
        made.create()
        yield made


def test_when_the_process_that_carries_a_run_is_killed_another_takes_over_within_five_seconds(pair: Site) -> None:
    first = pair.who_upgrades()
    other = {"east": "west", "west": "east"}[first]
    pair.processes[first].kill()
    taken_s = pair.until(lambda: f"upgrade 1 {other}" in pair.performed(), 20, "the other takes over")
    pair.go_to_the_end()
    assert DONE == pair.history()
    assert [f"drain 0 {first}", f"upgrade 1 {first}", f"upgrade 1 {other}", f"restore 1 {other}"] == pair.performed()
    assert ("succeeded", 2) == (pair.run().status, pair.run().epoch)
    assert 3.0 <= taken_s <= TAKEOVER_S + BUSY_S, f"taken over after {taken_s:.1f} s"


def test_a_process_that_hangs_is_taken_over_and_harms_nothing_when_it_wakes(pair: Site) -> None:
    first = pair.who_upgrades()
    other = {"east": "west", "west": "east"}[first]
    pair.processes[first].send_signal(signal.SIGSTOP)
    pair.until(lambda: f"upgrade 1 {other}" in pair.performed(), 20, "the other takes over")
    pair.processes[first].send_signal(signal.SIGCONT)
    pair.go_to_the_end()
    log = pair.world / f"{first}.log"
    pair.until(lambda: "carrier-stale" in log.read_text(), 10, "the zombie learns that it is one")
    assert DONE == pair.history()
    assert [f"restore 1 {other}"] == [line for line in pair.performed() if line.startswith("restore")]
    assert pair.processes[first].poll() is None, "it lives on, as an executor that may carry other runs"
    pair.create("r2")
    pair.until(lambda: pair.run("r2").finished, 20, "the next run ends")


def test_a_database_that_restarts_loses_nothing_and_no_run_is_carried_twice(tmp_path: Path) -> None:
    with postgres_server.folder() as home:
        server, world = Server(home / "data"), tmp_path
        server.create()
        server.start()
        try:
            with site(server.url, world) as pair:
                pair.start("east", "west")
                pair.create()
                first = pair.who_upgrades()
                server.stop(signal.SIGQUIT)  # As a crash: nobody says goodbye to anybody.
                time.sleep(1.0)
                server.start()
                time.sleep(5.0)  # Longer than the grace: a false takeover would happen now.
                pair.go_to_the_end()
                assert DONE == pair.history()
                assert [f"{step} {min(i, 1)} {first}" for i, step in enumerate(STEPS)] == pair.performed()
                assert 1 == pair.run().epoch
                pair.create("r2")
                pair.until(lambda: pair.run("r2").finished, 30, "new runs are carried")
        finally:
            server.stop()


def test_a_client_s_run_is_carried_by_whoever_serves_and_a_second_carrier_is_refused(pair: Site) -> None:
    pair.who_upgrades()
    toy = [sys.executable, str(TESTS / "engine" / "toy.py"), pair.url, str(pair.world), "r9"]
    told = subprocess.run(toy, capture_output=True, text=True, timeout=60, check=False)
    assert "`failout serve` carries the runs of this database" in told.stderr
