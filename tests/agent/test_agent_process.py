"""`failout agent` as a process: how it begins, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import pytest

from orchestrator.agent.main import read_token
from orchestrator.core.errors import NotFound, Rejected

ADDRESS, PORT = "127.82.0.5", 17070
TOKEN = "a-token-for-these-tests"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN + "\n")
    return path


def start(token_file, *more: str, listen: str = f"{ADDRESS}:{PORT}") -> subprocess.Popen:
    command = [sys.executable, "-m", "orchestrator.agent", "--listen", listen, "--token-file", str(token_file)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, "--allow", "127.82.1.0/24", *more], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def up(process: subprocess.Popen) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(f"http://{ADDRESS}:{PORT}/healthz", trust_env=False).json() == {"ok": True}
        except httpx.TransportError:
            time.sleep(0.05)
    return False


@pytest.mark.parametrize("end", ["SIGTERM", "parent"])
def test_it_serves_until_told_to_end_or_its_parent_is_gone(token_file, end):
    process = start(token_file, *(["--with-parent"] if end == "parent" else []))
    try:
        assert up(process)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://{ADDRESS}:{PORT}/v1/probe"
        answer = httpx.post(
            url, json={"peers": [{"id": "i", "address": "127.82.1.1"}]}, headers=headers, trust_env=False
        )
        assert not answer.json()["probes"][0]["reachable"]
        denied = httpx.post(
            url, json={"peers": [{"id": "i", "address": "127.0.0.1"}]}, headers=headers, trust_env=False
        )
        assert denied.status_code == 403
        if end == "parent":
            process.stdin.close()
        else:
            process.terminate()
        assert process.wait(10) == 0
        assert TOKEN not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("listen", ["0.0.0.0:17070", "8.8.8.8:17070"])
def test_it_does_not_listen_where_the_world_could_reach_it(token_file, listen):
    process = start(token_file, listen=listen)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 2
    assert told == f"agent: the agent listens on a loopback or private address, not on {listen.split(':')[0]}\n"


def test_a_token_is_a_secret(token_file):
    assert read_token(token_file) == TOKEN
    token_file.chmod(0o640)
    with pytest.raises(Rejected, match="chmod 600"):
        read_token(token_file)
    token_file.chmod(0o600)
    token_file.write_text("short")
    with pytest.raises(Rejected, match="at least 16"):
        read_token(token_file)
    with pytest.raises(NotFound, match="there is no token file"):
        read_token(token_file.parent / "none")
    with pytest.raises(Rejected, match="cannot read"):
        read_token(token_file.parent)
