"""One user: a DNS cache, connections of its own, and no second try.

Strict on purpose. Of several addresses it picks one per connection and, unlike a browser, does not go on to the next
when connecting fails; a reused connection that the far side has just closed costs the request. Retries would hide a
missing drain.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from dataclasses import dataclass

from orchestrator.lab.traffic.answer import Answer, parse
from orchestrator.lab.traffic.ledger import Ledger, Request
from orchestrator.lab.traffic.resolver import Cache, ResolveError

OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class Manners:
    """How a client behaves. `age_max_s` bounds a kept connection's life so that traffic follows the load balancer."""

    port: int
    host: str
    long_ms: int = 300
    idle_max_s: float = 2.0
    age_max_s: float = 3.0

    def head(self, request: Request) -> bytes:
        path = f"/?ms={self.long_ms}" if request.planned.long else "/"
        connection = "Connection: close\r\n" if request.planned.fresh else ""
        return f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n{connection}\r\n".encode()


class Client:
    """Carries the requests that the plan gives to it. `sockets` is the budget of all clients together."""

    def __init__(self, cache: Cache, manners: Manners, ledger: Ledger, sockets: Budget) -> None:
        self.manners = manners
        self.ledger = ledger
        self.sockets = sockets
        self.idle: deque[Connection] = deque()
        self._cache = cache
        self._opening: set[asyncio.Task[None]] = set()

    def start(self, request: Request) -> None:
        """Send on a kept connection when there is one and the request may; else open one. Settles the request later."""
        while self.idle and not request.planned.fresh:
            connection = self.idle.pop()
            if connection.usable():
                connection.send(request)
                return
        task = asyncio.get_running_loop().create_task(self._open(request))
        request.give_up = task.cancel
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def close(self) -> None:
        for task in self._opening:
            task.cancel()
        while self.idle:
            self.idle.pop().close()

    async def _open(self, request: Request) -> None:
        try:
            request.front = await self._cache.pick()
        except ResolveError:
            self.ledger.settle(request, "dns")
            return
        if not self.sockets.take():
            self.ledger.settle(request, "unsent")
            return
        connection = Connection(self, request)
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, request.front, self.manners.port)
        except ConnectionResetError:
            self.ledger.settle(request, "reset")
        except OSError as error:  # Refused, or no way there at all.
            self.ledger.settle(request, "unsent" if error.errno in OWN_LIMITS else "refused")
        finally:
            if not connection.made:
                self.sockets.give_back()


class Budget:
    """How many sockets may be open at once."""

    def __init__(self, sockets: int) -> None:
        self.free = sockets

    def take(self) -> bool:
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give_back(self) -> None:
        self.free += 1


class Connection(asyncio.Protocol):
    """Carries one request at a time. The first is sent as the connection is made, so nothing can fall between the two."""

    def __init__(self, client: Client, first: Request) -> None:
        self.made = False
        self._client = client
        self._request: Request | None = first
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._front = first.front
        self._end_of_idling: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.made = True
        self._transport = transport
        request, self._request = self._request, None
        assert request is not None
        if self._client.ledger.is_open(request):
            self.send(request)
        else:
            transport.abort()

    def usable(self) -> bool:
        """Say whether the far side has not closed it as far as anybody here can know."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: Request) -> None:
        assert self._transport is not None
        assert self._request is None
        if self._end_of_idling is not None:
            self._end_of_idling.cancel()
        self._request = request
        request.front = self._front
        request.give_up = self.close
        self._transport.write(self._client.manners.head(request))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._request is None:  # Bytes that nobody asked for.
            self.close()
            return
        answer = parse(self._received)
        if answer is not None:
            self._finish(self._request, answer)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._client.sockets.give_back()
        self._retire()
        if self._request is not None:
            request, self._request = self._request, None
            self._client.ledger.settle(request, "reset")

    def close(self) -> None:
        """Drop the connection at once."""
        self._retire()
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, request: Request, answer: Answer) -> None:
        self._request = None
        self._received.clear()
        self._client.ledger.settle(request, answer.outcome, answer)
        manners = self._client.manners
        left_s = min(manners.idle_max_s, self._born + manners.age_max_s - self._loop.time())
        if request.planned.fresh or not answer.reusable or left_s <= 0:
            assert self._transport is not None
            self._transport.close()
            return
        self._client.idle.append(self)
        self._end_of_idling = self._loop.call_later(left_s, self.close)

    def _retire(self) -> None:
        if self._end_of_idling is not None:
            self._end_of_idling.cancel()
        if self in self._client.idle:
            self._client.idle.remove(self)
