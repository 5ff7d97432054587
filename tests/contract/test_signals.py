"""What every signal promises (I15): it says good, bad or unknown within its time, and never raises what the other side does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.core.signal import Command, HttpCheck
from orchestrator.ports import Reading
from orchestrator.signals import open_signal


def read(spec: Command | HttpCheck) -> Reading:
    return asyncio.run(open_signal(spec).read())


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1.0)
        if self.path == "/trickle":
            self.trickle()
            return
        self.send_response({"/gone": 503, "/moved": 302}.get(self.path, 200))
        self.send_header("Location", "/")
        self.end_headers()
        self.wfile.write(b'{"users": "happy"}')

    def trickle(self) -> None:
        """A byte every now and then, each well within the time of one read."""
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.0 200 OK\r\nX: " + 15 * b"x":
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "given", "state"),
    [
        ("/", {}, "good"),
        ("/", {"contains": '"happy"'}, "good"),
        ("/", {"contains": "sad"}, "bad"),
        ("/gone", {}, "bad"),
        ("/gone", {"status": 503}, "good"),
        ("/moved", {}, "bad"),
        ("/slow", {"timeout_s": 0.2}, "unknown"),
        ("/trickle", {"timeout_s": 0.2}, "unknown"),
    ],
)
def test_an_http_check_is_good_bad_or_unknown(site: str, path: str, given: dict, state: str) -> None:
    said = read(HttpCheck("users", f"{site}{path}", **given))
    assert (state, True) == (said.state, said.evidence.startswith(f"{site}{path}"))


def test_where_nobody_answers_nothing_is_known() -> None:
    assert "unknown" == read(HttpCheck("users", "http://127.0.0.1:9/", timeout_s=1.0)).state
    assert "unknown" == read(HttpCheck("users", "http://[", timeout_s=1.0)).state


@pytest.mark.parametrize("url", ["http://me:hush@127.0.0.1:9?token=hush", "http://127.0.0.1:9/x?token=hush#hush"])
def test_no_secret_of_an_address_is_told(url: str) -> None:
    told = read(HttpCheck("users", url, timeout_s=1.0)).evidence
    assert (True, False) == (told.startswith("http://127.0.0.1:9"), "hush" in told)


@pytest.mark.parametrize(
    ("argv", "state", "told"),
    [
        (("/bin/sh", "-c", "echo all well"), "good", "/bin/sh ended with 0: all well"),
        (("/bin/sh", "-c", "echo three pages >&2; exit 1"), "bad", "/bin/sh ended with 1: three pages"),
        (("/bin/sh", "-c", "exit 2"), "bad", "/bin/sh ended with 2"),
        (("/bin/sh", "-c", "seq 100000; echo; echo two  pages; echo"), "good", "/bin/sh ended with 0: two pages"),
        (("/bin/sh", "-c", "exit 3"), "unknown", "/bin/sh ended with 3"),
        (("/bin/sh", "-c", "kill -9 $$"), "unknown", "/bin/sh ended with -9"),
        (("/no/such/check",), "unknown", "/no/such/check cannot be run: No such file or directory"),
    ],
)
def test_a_command_is_good_bad_or_unknown(argv: tuple[str, ...], state: str, told: str) -> None:
    assert Reading(state, told) == read(Command("users", argv))  # type: ignore[arg-type]


def test_a_command_that_does_not_end_is_unknown_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; wait"
    began = time.monotonic()
    said = read(Command("users", ("/bin/sh", "-c", script), timeout_s=0.5))
    assert Reading("unknown", "/bin/sh did not end within 0.5 s") == said
    assert time.monotonic() - began < 5
    deadline = time.monotonic() + 5
    while running(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
