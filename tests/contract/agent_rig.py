"""The lab's instances as real processes, and the region agent in front of them: asked directly, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from ipaddress import IPv4Network
from typing import Any

from orchestrator.agent.client import HttpAgent
from orchestrator.agent.local import LocalAgent
from orchestrator.agent.main import serve
from orchestrator.lab import instance
from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.model import AGENT_PORT, SERVICE_PORT
from orchestrator.ports import Agent, Peer

TOKEN = "a-token-for-these-tests"


class LocalAgentRig:
    poll_s = 0.05
    patience_s = 10.0

    def __init__(self, region: RegionAddresses) -> None:
        self.region = region
        everyone = [Peer(f"i-{n}", region.instance(0, n)) for n in range(5)]
        self.peers: Sequence[Peer] = everyone[:3]
        self.unready, self.dark = everyone[3:]
        self.allowed = [IPv4Network(region.subnet(0))]
        self.agent: Agent

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        async def opened() -> None:
            async with self.opened() as self.agent:
                await test

        asyncio.run(opened())

    def opened(self) -> AbstractAsyncContextManager[Agent]:
        return self.direct()

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[Agent]:
        yield LocalAgent(self.region.agent, self.allowed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def writes(self) -> int:
        raise NotImplementedError

    async def serve_users(self, peer: Peer, requests: int) -> None:
        for _ in range(requests):
            source = (self.region.node(0), 0)
            reader, writer = await asyncio.open_connection(peer.address, SERVICE_PORT, local_addr=source)
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()


class HttpAgentRig(LocalAgentRig):
    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Agent]:
        server = serve((self.region.agent, AGENT_PORT), TOKEN, self.region.agent, self.allowed)
        serving = asyncio.create_task(server.serve())
        for _ in range(500):
            if server.started or serving.done():
                break
            await asyncio.sleep(0.01)
        agent = HttpAgent(f"http://{self.region.agent}:{AGENT_PORT}", TOKEN)
        try:
            yield agent
        finally:
            await agent.aclose()
            server.should_exit = True
            await serving


@contextmanager
def local_agent_rig() -> Iterator[LocalAgentRig]:
    with lab_region() as region:
        yield LocalAgentRig(region)


@contextmanager
def http_agent_rig() -> Iterator[HttpAgentRig]:
    with lab_region() as region:
        yield HttpAgentRig(region)


@contextmanager
def lab_region() -> Iterator[RegionAddresses]:
    """Three good instances and one that never gets ready, at addresses that nobody uses."""
    region = _free_region()
    started = [_start(region, n, ready=n < 3) for n in range(4)]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
        yield region
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start(region: RegionAddresses, n: int, *, ready: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(
                sys.executable,
                "-I",
                "-S",
                instance.__file__,
                "--host",
                region.instance(0, n),
                "--port",
                str(SERVICE_PORT),
            ),
            *("--zone", "aws/us-east-1a", "--instance", f"i-{n}", "--version", "v1"),
            *("--behaviour", json.dumps({"ready": ready})),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _free_region() -> RegionAddresses:
    for octet in random.sample(range(30, 130), 100):
        region = RegionAddresses(octet)
        with socket.socket() as agent, socket.socket() as first:
            try:
                agent.bind((region.agent, AGENT_PORT))
                first.bind((region.instance(0, 0), SERVICE_PORT))
            except OSError:
                continue
        return region
    raise AssertionError("every lab address is taken")
