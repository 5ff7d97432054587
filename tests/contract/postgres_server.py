"""A PostgreSQL server for the length of a test session: a private one on a Unix socket, or the one a URL names."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

URL_VARIABLE = "FAILOUT_TEST_POSTGRES"


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a database that may be filled with rubbish; skip the test where no server can be had."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    if not shutil.which("initdb") or not shutil.which("postgres"):
        pytest.skip(f"no PostgreSQL here; name one in {URL_VARIABLE}")
    user: str | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
        if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres")
        user = "postgres"
    folder = Path(tempfile.mkdtemp(prefix="failout-pg-"))
    try:
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": folder}
        initdb = ["initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, **quiet)
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        process = subprocess.Popen(["postgres", "-D", str(data), *settings], **quiet)
        try:
            url = f"postgresql://postgres@/postgres?host={folder}"
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)
    finally:
        shutil.rmtree(folder)


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
