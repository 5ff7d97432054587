"""A PostgreSQL server for the length of a test session: a private one on a Unix socket, or the one a URL names."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

URL_VARIABLE = "FAILOUT_TEST_POSTGRES"


@contextmanager
def server(**settings: str) -> Iterator[str]:
    """Yield the URL of a database that may be filled with rubbish; skip the test where no server can be had."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    with folder() as home:
        mine = Server(home / "data", **settings)
        mine.create()
        mine.start()
        try:
            yield mine.url
        finally:
            mine.stop()


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of the user that PostgreSQL runs as; skip the test where there are no binaries."""
    if binary("initdb") is None:
        _go_without(f"no PostgreSQL here; name one in {URL_VARIABLE}")
    home = Path(tempfile.mkdtemp(prefix="failout-pg-"))
    try:
        if _user():
            shutil.chown(home, _user())
        yield home
    finally:
        shutil.rmtree(home)


def _go_without(why: str) -> NoReturn:
    """A developer may; where it is required a skip would hide what is not tested."""
    if os.environ.get("FAILOUT_TEST_POSTGRES_REQUIRED"):
        pytest.fail(why)
    pytest.skip(why)


def binary(name: str) -> str | None:
    """One version's own programs: Debian keeps them outside the path, a folder a version, behind a wrapper for a few."""
    found = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    return str(Path(found).resolve().with_name(name)) if found else None


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        _go_without("PostgreSQL refuses to run as root, and there is no user postgres")
    return "postgres"


class Server:
    """A server that can be killed and started again. It listens on a socket in `data`'s folder, named by `port`."""

    def __init__(self, data: Path, port: int = 5432, **settings: str) -> None:
        self.data, self.port = data, port
        self.url = f"postgresql://postgres@/postgres?host={data.parent}&port={port}"
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(data.parent),
            "port": str(port),
            "fsync": "off",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, name: str, *arguments: str) -> None:
        subprocess.run([str(binary(name)), *arguments], check=True, **self._quiet())

    def create(self) -> None:
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync")

    def follow(self, primary: Server) -> None:
        """Become its standby."""
        place = ["-h", str(primary.data.parent), "-p", str(primary.port), "-U", "postgres"]
        self.run("pg_basebackup", "-D", str(self.data), "-R", "-c", "fast", "--no-sync", *place)

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-D", str(self.data), "-w")

    def start(self) -> None:
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen([str(binary("postgres")), "-D", str(self.data), *settings], **self._quiet())
        _wait(self.url, self._process)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: at once, in order. SIGQUIT: at once, as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=20)
            self._process = None

    def _quiet(self) -> dict[str, Any]:
        home = self.data.parent
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": _user(), "cwd": home}


@contextmanager
def database(url: str) -> Iterator[str]:
    """A fresh, empty database on the server."""
    name = f"failout_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield url.replace("/postgres?", f"/{name}?") if "/postgres?" in url else f"{url.rsplit('/', 1)[0]}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, "the PostgreSQL server ended at once"
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the PostgreSQL server never answered"
            time.sleep(0.05)
        else:
            return
