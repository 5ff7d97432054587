"""Which state is meant, and whether it is there and may be read: never another, new and empty one."""

from __future__ import annotations

import ctypes
import sqlite3
import subprocess
import sys
from contextlib import closing

import psycopg
import pytest
from cli.shell import Say, Shell

from orchestrator.config import database_url
from orchestrator.core.errors import Rejected, StoreAway
from orchestrator.engine.glance import database_failure

WHY = ("--reason", "a test")
FORM = "is a PostgreSQL URL such as postgresql://failout@HOST/failout, and begins with postgresql:// or postgres://, not with"


@pytest.mark.parametrize(
    "url", ["foo", "postgresql:/ada:secret@127.0.0.1/x", "host=h password=secret", "sqlite:///x", ""]
)
def test_a_mistyped_database_is_no_new_and_empty_state(say: Say, service: Shell, url: str) -> None:
    before = service.files()
    ended = say("serve", "--database", url)
    assert (2, True) == (ended.code, f"--database (FAILOUT_DATABASE) {FORM}" in ended.err), ended.err
    assert "secret" not in ended.err
    assert before == service.files()
    (service.folder / "failout.yaml").write_text(f"service: gates\ndatabase: '{url or 'x'}'\n")
    for command in (("status",), ("freeze", *WHY)):
        ended = say(*command)
        assert (2, True) == (ended.code, f"failout.yaml:2: 'database' in failout.yaml {FORM}" in ended.err), ended.err
    assert before == service.files()


def test_a_port_that_is_no_number_is_rejected_and_no_password_told(say: Say, service: Shell) -> None:
    (service.folder / "failout.yaml").write_text("service: gates\ndatabase: postgresql://ada:secret@127.0.0.1:port/x\n")
    for command in (("status",), ("freeze", *WHY)):
        ended = say(*command)
        assert (2, True) == (ended.code, ended.err.startswith("failout: state database: ")), ended.err
        assert "port" in ended.err
        assert "secret" not in ended.err


def test_both_forms_of_a_postgresql_url_are_taken_as_they_are() -> None:
    urls = ["postgresql://a,b/x?target_session_attrs=read-write", "postgres://ada@h:5432/x", "postgresql:///x"]
    assert urls == [database_url(url) for url in urls]


def test_a_url_is_no_folder(say: Say, service: Shell) -> None:
    (service.folder / "failout.yaml").write_text("service: gates\nstate: postgresql://127.0.0.1/x\n")
    ended = say("freeze", *WHY)
    assert (2, True) == (ended.code, "'state' in failout.yaml is a folder of files" in ended.err)
    assert not (service.folder / "postgresql:").exists()


def test_a_database_that_refuses_connections_is_away_for_every_command(say: Say, service: Shell) -> None:
    (service.folder / "failout.yaml").write_text("service: gates\ndatabase: postgresql://ada@127.0.0.1:9/x\n")
    for command in ("status", "deployments list", "state prune --older-than 90d"):
        ended = say(*command.split())
        assert (5, 1) == (ended.code, ended.err.count("\n")), ended.err
        assert "Connection refused" in ended.err
    assert "run it again once the database answers" in say("status").err


@pytest.mark.parametrize(
    ("told", "means"),
    [
        ('connection to server at "127.0.0.1", port 9 failed: Connection refused', StoreAway),
        ("connection timeout expired", StoreAway),
        ("connection failed: FATAL:  the database system is starting up", StoreAway),
        ("server closed the connection unexpectedly", StoreAway),
        ('connection failed: FATAL:  password authentication failed for user "ada"', Rejected),
        ('connection failed: FATAL:  database "x" does not exist', Rejected),
        ("failed to resolve host 'nowhere': Name or service not known", Rejected),
    ],
)
def test_what_waiting_mends_is_away_and_what_a_person_must_mend_is_rejected(told: str, means: type) -> None:
    failure = database_failure(psycopg.OperationalError(f"{told}\nand more"), away=True)
    assert (means, True) == (type(failure), f"state database: {told}" in str(failure))


def _like_anybody() -> None:
    """Without its right to overrule permissions root is like anybody; prctl(2) and capabilities(7) have the numbers."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_while_the_first_command_makes_the_state_nothing_was_deployed_yet(say: Say, service: Shell) -> None:
    """`failout status` ended with 4 in the moment between the file and its tables."""
    (service.folder / "state").mkdir(mode=0o700)
    with closing(sqlite3.connect(service.folder / "state" / "failout.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    ended = say("status")
    assert (0, True) == (ended.code, "nothing was deployed yet" in ended.out), ended.err


@pytest.mark.parametrize("command", ["status", "deployments list", "audit show", "state backup copy"])
def test_a_state_that_may_not_be_looked_into_is_told(service: Shell, command: str) -> None:
    state = service.folder / "state"
    assert 0 == service.run("freeze", *WHY).code
    state.chmod(0)
    try:
        ended = service.run(*command.split(), preexec_fn=_like_anybody)
    finally:
        state.chmod(0o700)
    told = f"failout: state {state} cannot be read: Permission denied; run it as the user that owns it"
    assert (2, told) == ended.said


def test_doctor_says_so_too(service: Shell) -> None:
    state = service.folder / "state"
    state.mkdir(mode=0)
    code = (
        "import sys; from orchestrator.engine.place import Place; from orchestrator.operations.doctor import state;"
        "print(*(f.evidence for f in state(Place.of(sys.argv[1]), 'gates')))"
    )
    command = [sys.executable, "-c", code, str(state)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_like_anybody)
    assert (f"{state} cannot be written by this user\n", 0) == (told.stdout, told.returncode), told.stderr


def test_a_state_that_cannot_be_read_for_want_of_rights_is_not_told_as_unwritten(service: Shell) -> None:
    state = service.folder / "state"
    assert 0 == service.run("freeze", *WHY).code
    for file in state.glob("failout.db-*"):
        file.unlink()
    state.chmod(0o500)
    try:
        code, line = service.run("status", preexec_fn=_like_anybody).said
    finally:
        state.chmod(0o700)
    assert (2, True) == (code, f"state {state}/failout.db cannot be read: " in line), line
    assert line.endswith("; run it as the user that owns it")
