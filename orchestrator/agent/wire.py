"""A light HTTP/1.1 client for instances: one request at a time on a connection, from a chosen address, all bounded.

No redirects, no cookies, no proxies, no chunked bodies: an instance states its Content-Length.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWER_MAX = 256 * 1024


class WireError(Exception):
    """No answer: refused, closed, out of time, or not HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 whatever the instance sent; callers check what they use
        """Return the body's JSON, or None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Wire:
    """A kept connection to one instance: opened when first needed, and again after it was closed. Not for two at once."""

    def __init__(self, source: str, address: str, port: int) -> None:
        self._source = source
        self._address = address
        self._port = port
        self._connection: _Connection | None = None

    async def request(self, method: str, path: str, timeout_s: float, *, body: bytes = b"") -> Reply:
        """Send one request, marked synthetic, and return its answer. Raises WireError; nothing is tried twice."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._address}\r\nX-Synthetic: 1\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(timeout_s):
                if self._connection is None or self._connection.transport.is_closing():
                    self._connection = await self._open()
                reply = await self._connection.exchange(head.encode() + body)
        except TimeoutError as error:
            self.close()
            raise WireError(f"{self._address} did not answer {path} within {timeout_s:g} s") from error
        except OSError as error:
            raise WireError(f"{self._address} cannot be reached: {error.strerror or error}") from error
        except ValueError as error:
            self.close()
            raise WireError(f"{self._address} does not speak HTTP as it should: {error}") from error
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._connection is not None:
            self._connection.transport.abort()
            self._connection = None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        local = (self._source, 0)
        _, connection = await loop.create_connection(_Connection, self._address, self._port, local_addr=local)
        return connection


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._reply: asyncio.Future[Reply] | None = None

    async def exchange(self, request: bytes) -> Reply:
        self._reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._reply is None or self._reply.done():
            self.transport.abort()  # bytes that nobody asked for
            return
        try:
            reply = parse(self._received)
        except ValueError as error:
            self._reply.set_exception(error)
            return
        if reply is not None:
            self._received.clear()
            self._reply.set_result(reply)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError("it closed the connection before it had answered"))


def parse(received: bytearray) -> Reply | None:
    """Return the answer once it is whole, else None. Raises ValueError for what is too large, unsized or not HTTP/1.x."""
    if len(received) > ANSWER_MAX:
        raise ValueError(f"more than {ANSWER_MAX} bytes")
    head, mark, body = bytes(received).partition(b"\r\n\r\n")
    if not mark:
        return None
    start, *lines = head.decode("latin-1").split("\r\n")
    protocol, status, *_ = [*start.split(" ", 2), ""]
    if not protocol.startswith("HTTP/1."):
        raise ValueError("no HTTP/1.x status line")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in headers:
        raise ValueError("no Content-Length")
    length = int(headers["content-length"])
    if length > ANSWER_MAX:
        raise ValueError(f"more than {ANSWER_MAX} bytes")
    if len(body) > length:
        raise ValueError("more than its Content-Length")
    return Reply(int(status), headers, body) if len(body) == length else None
