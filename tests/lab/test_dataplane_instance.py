"""The lab's service as a process: it stops gracefully, ends with its parent, counts users only, and can be sick."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from dataplane_world import free_octets, until

from orchestrator.lab import instance
from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.ask import ask
from orchestrator.lab.catalogue import behaviour_of
from orchestrator.lab.model import SERVICE_PORT

PROGRAM = Path(instance.__file__)


class Machine:
    """One instance, asked from its load balancer's address unless told otherwise."""

    def __init__(self, process: asyncio.subprocess.Process, plan: RegionAddresses) -> None:
        self.process, self.plan, self.address = process, plan, plan.instance(0, 0)

    async def listening(self) -> bool:
        assert self.process.stdout is not None
        return b"listening\n" == await asyncio.wait_for(self.process.stdout.readline(), 5)

    def heeds(self, number: signal.Signals) -> bool:
        """Whether it handles the signal by now, which otherwise ends it as it ends any program."""
        caught = Path(f"/proc/{self.process.pid}/status").read_text().split("SigCgt:")[1].split()[0]
        return bool(int(caught, 16) >> number - 1 & 1)

    async def ask(self, path: str, **more: object) -> int:
        return await ask(self.plan.node(0), self.address, SERVICE_PORT, path, 2, **more)

    async def connect(self, source: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address, SERVICE_PORT, local_addr=(source or self.plan.node(0), 0))

    async def get(self, path: str, source: str | None = None) -> tuple[int, dict, dict]:
        """Return status, headers and body of a user's request."""
        reader, writer = await self.connect(source)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return await read_answer(reader)
        finally:
            writer.close()

    async def status(self) -> dict:
        return (await self.get("/status", self.plan.agent))[2]


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict, dict]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:-2])
    return int(head[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["Content-Length"])))


@asynccontextmanager
async def machine(version: str = "v1", **changes: object):
    plan = RegionAddresses(free_octets(1)[0])
    behaviour = asdict(replace(behaviour_of(version), **{"boot_s": 0.05, **changes}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(PROGRAM), f"--host={plan.instance(0, 0)}", f"--port={SERVICE_PORT}"),
        *("--zone=aws/us-east-1a", "--instance=i-1", f"--version={version}", f"--behaviour={json.dumps(behaviour)}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Machine(process, plan)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def play(scenario, version: str = "v1", **changes: object) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), machine(version, **changes) as made:
            await scenario(made)

    asyncio.run(run())


def test_work_says_who_did_it():
    async def scenario(made: Machine) -> None:
        assert await made.listening()
        told = {"zone": "aws/us-east-1a", "instance": "i-1", "version": "v1"}
        status, headers, body = await made.get("/")
        assert (200, told) == (status, body)
        assert told == {key: headers[f"X-{key.title()}"] for key in told}
        assert {"version": "v1"} == (await made.get("/version"))[2]
        assert 404 == await made.ask("/nowhere")
        assert 400 == await made.ask("/admission", method="PUT", body=b"{")

    play(scenario)


def test_only_users_are_counted():
    async def scenario(made: Machine) -> None:
        await made.listening()
        assert 200 == await made.ask("/"), "ask marks its requests synthetic"
        status = await made.status()
        assert (0, 0, 0) == (status["requests"], status["in_flight"], status["connections"])
        await made.get("/")
        reader, writer = await made.connect()
        writer.write(b"GET /?ms=500 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        status = await made.status()
        assert (1, 1, 1) == (status["requests"], status["in_flight"], status["connections"])
        await read_answer(reader)
        status = await made.status()
        assert (2, 0, 1) == (status["requests"], status["in_flight"], status["connections"])
        assert 2 == sum(status["latency"])
        writer.write(b"GET /?ms=900 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.close()  # a user who gives up is in flight no more
        await asyncio.sleep(0.1)
        status = await made.status()
        assert (2, 0, 0) == (status["requests"], status["in_flight"], status["connections"])

    play(scenario)


def test_not_admitted_it_answers_and_closes_connections():
    async def scenario(made: Machine) -> None:
        await made.listening()
        reader, writer = await made.connect()
        assert 200 == await made.ask("/admission", method="PUT", body=b'{"admitted": false}')
        assert (503, 200, 200) == tuple([await made.ask(path) for path in ("/admit", "/readyz", "/healthz")])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await read_answer(reader)
        assert (200, "close", b"") == (status, headers["Connection"], await reader.read())
        assert 200 == await made.ask("/admission", method="PUT", body=b'{"admitted": true}')
        assert 200 == await made.ask("/admit")
        assert "Connection" not in (await made.get("/"))[1]

    play(scenario)


def test_sigterm_lets_what_is_in_flight_finish_and_accepts_nothing_new():
    async def scenario(made: Machine) -> None:
        await made.listening()
        reader, writer = await made.connect()
        writer.write(b"GET /?ms=400 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        made.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert 0 == await made.ask("/healthz")
        status, headers, _ = await read_answer(reader)
        assert (200, "close") == (status, headers["Connection"])
        assert 0 == await made.process.wait()

    play(scenario)


@pytest.mark.parametrize("version", ["v2", "v2-noboot"])
def test_it_ends_when_its_parents_pipe_does(version):
    async def scenario(made: Machine) -> None:
        made.process.stdin.close()
        assert 0 == await asyncio.wait_for(made.process.wait(), 3)

    play(scenario, version)


def test_a_version_that_does_not_boot_never_listens_and_still_stops():
    async def scenario(made: Machine) -> None:
        for _ in range(250):
            if made.heeds(signal.SIGTERM):
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert 0 == await made.ask("/healthz")
        made.process.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.wait_for(made.process.wait(), 3)

    play(scenario, "v2-noboot")


def test_a_version_that_is_never_ready_is_alive_and_does_no_work():
    async def scenario(made: Machine) -> None:
        await made.listening()
        assert (200, 503, 503, 503) == tuple([await made.ask(p) for p in ("/healthz", "/readyz", "/admit", "/")])

    play(scenario, "v2-notready")


def test_a_version_that_is_ready_too_early_says_so_and_does_not_work_yet():
    async def scenario(made: Machine) -> None:
        await made.listening()
        assert (200, 503) == (await made.ask("/readyz"), await made.ask("/"))
        await asyncio.sleep(0.5)
        assert 200 == await made.ask("/")

    play(scenario, "v2-early", unready_s=0.5)


@pytest.mark.parametrize(
    ("version", "least", "most"),
    [("v2", 0, 0), ("v2-errors-1", 1, 30), ("v2-errors-20", 140, 260), ("v2-errors-100", 1000, 1000)],
)
def test_a_version_with_errors_errs_in_its_share_of_1000_requests(version, least, most):
    async def scenario(made: Machine) -> None:
        await made.listening()
        answers: Counter[int] = Counter()
        for _ in range(20):
            answers.update(await asyncio.gather(*(made.ask("/") for _ in range(50))))
        assert 1000 == answers[200] + answers[500], answers
        assert least <= answers[500] <= most, answers

    play(scenario, version)


def test_a_slow_version_takes_a_tenth_of_a_second_longer():
    async def scenario(made: Machine) -> None:
        await made.listening()
        started = time.monotonic()
        assert 200 == await made.ask("/")
        assert time.monotonic() - started > 0.1

    play(scenario, "v2-slow")


def test_a_version_that_leaks_dies_of_it():
    async def scenario(made: Machine) -> None:
        await made.listening()
        assert 200 == await made.ask("/")
        assert 137 == await asyncio.wait_for(made.process.wait(), 5)

    play(scenario, "v2-leaks", leaks_s=0.6)


DAEMON = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from dataplane_world import aws, azure, world
    async def main():
        async with world(Path({folder!r}), aws({octets[0]}, zones=1, instances=1), azure({octets[1]}, zones=1, instances=1)):
            print("up", flush=True)
            await asyncio.sleep(60)
    asyncio.run(main())
"""


def descendants(pid: int) -> set[int]:
    children = {int(p) for t in Path(f"/proc/{pid}/task").iterdir() for p in (t / "children").read_text().split()}
    return children.union(*(descendants(child) for child in children))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise and /proc are Linux's")
def test_a_lab_that_is_killed_leaves_no_process(tmp_path):
    program = textwrap.dedent(DAEMON).format(
        tests=str(Path(__file__).parent), folder=str(tmp_path), octets=free_octets(2)
    )

    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert b"up\n" == daemon.stdout.readline()
        born = descendants(daemon.pid)
        assert 4 == len(born), "two instances, two load balancers"
    finally:
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        daemon.stdout.close()
    asyncio.run(until(lambda: not any(map(alive, born)), 3))
