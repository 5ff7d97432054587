"""A tiny far side for the traffic generator: a DNS server and services that misbehave as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset

from orchestrator.lab.traffic.generator import Settings, Summary, generate
from orchestrator.lab.traffic.plan import constant

NAME = "gates.lab."
PORT = 18000


class Dns(asyncio.DatagramProtocol):
    """Answers `addresses` with `ttl_s`, or nothing at all when `silent`."""

    def __init__(self, addresses: list[str], ttl_s: int) -> None:
        self.addresses = addresses
        self.ttl_s = ttl_s
        self.silent = False
        self.endpoint = ("", 0)

    def connection_made(self, transport):
        self.transport = transport
        self.endpoint = transport.get_extra_info("sockname")

    def datagram_received(self, data, addr):
        if self.silent:
            return
        answer = dns.message.make_response(dns.message.from_wire(data))
        answer.flags |= dns.flags.AA
        if self.addresses:
            answer.answer.append(dns.rrset.from_text(NAME, self.ttl_s, "IN", "A", *self.addresses))
        self.transport.sendto(answer.to_wire(), addr)


def ok_answer(zone: str, *, close: bool = False, body: bytes | None = None) -> bytes:
    body = body or json.dumps({"zone": zone, "instance": "i-1", "version": "v1"}).encode()
    extra = "Connection: close\r\n" if close else ""
    head = f"X-Zone: {zone}\r\nX-Instance: i-1\r\nX-Version: v1\r\nContent-Length: {len(body)}\r\n{extra}"
    return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body


class Service:
    """Serves one address. `behave(writer, request_number)` writes an answer and says whether to keep the connection."""

    def __init__(self, zone: str, behave: Behave | None = None) -> None:
        self.zone = zone
        self.connections = 0
        self.unused = asyncio.Event()
        self.requests = 0
        self.heads: list[str] = []
        self._behave = behave or self._well

    async def _well(self, writer: asyncio.StreamWriter, _: int) -> bool:
        writer.write(ok_answer(self.zone))
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                self.requests += 1
                if not await self._behave(writer, self.requests):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.unused.set()


Behave = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]


class World:
    def __init__(self, dns_server: Dns, folder: Path) -> None:
        self.dns = dns_server
        self.log = folder / "requests.csv"
        self.stop = asyncio.Event()
        self.pages: list[dict] = []
        self._servers = AsyncExitStack()

    async def serve(self, address: str, service: Service) -> asyncio.Server:
        server = await asyncio.start_server(service.serve, address, PORT)
        await self._servers.enter_async_context(server)
        return server

    async def generate(self, rate: float = 100, seconds: float | None = 1, **more) -> Summary:
        settings = Settings(
            resolver=self.dns.endpoint, name=NAME, port=PORT, log=self.log, rate=constant(rate), seconds=seconds,
            **{"clients": 10, "long_share": 0.0, **more},
        )  # fmt: skip
        return await generate(settings, self.stop, self.pages.append)

    async def close(self) -> None:
        await self._servers.aclose()


@asynccontextmanager
async def world(folder: Path, *addresses: str, ttl_s: int = 60) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Dns(list(addresses), ttl_s), ("127.0.0.1", 0))
    made = World(protocol, folder)
    try:
        yield made
    finally:
        transport.close()
        await made.close()
