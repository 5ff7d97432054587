"""The engine on PostgreSQL does what it does on files: kill -9, start again, one end; one executor of a name."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres_server
import psycopg
import pytest

from orchestrator.core.errors import FailoutError, Rejected, StoreAway
from orchestrator.engine.carry import silent
from orchestrator.engine.glance import glance_at
from orchestrator.engine.liveness import Liveness
from orchestrator.engine.place import EXECUTOR, SERVER, Place, key_of
from orchestrator.engine.store import SqlStore

TOY = Path(__file__).parents[1] / "engine" / "toy.py"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server.server() as server, postgres_server.database(server) as database:
        yield database


def test_killed_in_an_effect_and_started_again_the_run_ends(url: str, tmp_path: Path) -> None:
    command = [sys.executable, str(TOY), url, str(tmp_path), "r1"]
    killed = subprocess.run([*command, "--die", "during-upgrade"], capture_output=True, timeout=60, check=False)
    assert -signal.SIGKILL == killed.returncode, killed.stderr
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "succeeded" == resumed.stdout, resumed.stderr
    assert ["drain 0", "upgrade 1", "upgrade 1", "restore 1"] == (tmp_path / "log").read_text().splitlines()
    with glance_at(Place.of(url)) as glance:
        assert ["drain-done", "upgrade-done", "restore-done"] == [r.event.kind for r in glance.events("r1")]
        assert (2, "succeeded") == (glance.load("r1").epoch, glance.load("r1").status)
        assert ["r1"] == [run.id for run in glance.runs("gates", limit=5)]


def hold(url: str, name: str, *, serving: bool = False) -> Liveness:
    return Liveness(url, name, serving=serving, log=silent, usurped=lambda: None)


def test_two_live_executors_do_not_share_a_name_and_everybody_sees_who_lives(url: str) -> None:
    east = hold(url, "east")
    with pytest.raises(Rejected, match="'east' is running already"):
        hold(url, "east")
    west = hold(url, "west", serving=True)
    with glance_at(Place.of(url)) as glance:
        assert {key_of("east"), key_of("west")} == glance.executors(EXECUTOR)
        assert {key_of("west")} == glance.executors(SERVER)
    east.end()
    west.end()
    hold(url, "east").end()


def test_a_database_that_cannot_be_reached_is_said_in_one_line() -> None:
    nowhere = "postgresql://127.0.0.1:1/none"
    with pytest.raises(StoreAway, match="state database: "), glance_at(Place.of(nowhere)):
        pass
    with pytest.raises(StoreAway, match="state database: "):
        hold(nowhere, "east")


def test_a_wrong_password_is_the_same_one_line_to_read_to_write_and_to_serve() -> None:
    with postgres_server.folder() as home:
        server = postgres_server.Server(home / "data")
        server.create()
        (home / "data" / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        server.start()
        try:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("CREATE ROLE ada LOGIN PASSWORD 'right'")
            wrong = server.url.replace("postgres@", "ada:secret@")
            told = [why(lambda: glance_at(Place.of(wrong)).__enter__())]
            told += [why(lambda: SqlStore(Place.of(wrong))), why(lambda: hold(wrong, "east"))]
        finally:
            server.stop()
    assert (2, 1) == (told[0].exit_code, len({(type(error), str(error)) for error in told})), told
    assert "password authentication failed" in str(told[0])
    assert "secret" not in str(told[0])


def why(act: Callable[[], object]) -> FailoutError:
    with pytest.raises(FailoutError) as error:
        act()
    return error.value
