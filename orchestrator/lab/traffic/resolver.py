"""Each client's own DNS cache: an answer is believed for its TTL, no longer, and never after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from orchestrator.core.errors import Rejected

QUERY_TIMEOUT_S = 0.8  # less than the bound of a request, so that a dead DNS server is told from a slow service


class ResolveError(Exception):
    """No usable address: no answer in time, an error code, or no A record."""


class Resolver(asyncio.DatagramProtocol):
    """Asks one DNS server over UDP. One datagram a query: nothing is sent again."""

    def __init__(self, name: str, random: Random) -> None:
        self.queries = 0
        self._name = name
        self._random = random
        self._waiting: dict[int, asyncio.Future[tuple[Sequence[str], float]]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self, host: str, port: int) -> None:
        """Raises Rejected when there is no way to that address; whether anybody answers there shows later."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=(host, port))
        except OSError as error:
            raise Rejected(f"{host}:{port} cannot be a DNS server: {error.strerror}") from error

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def query(self) -> tuple[Sequence[str], float]:
        """Return the addresses and how many seconds they may be kept. Raises ResolveError."""
        assert self._transport is not None
        number = self._random.randrange(1 << 16)
        while number in self._waiting:
            number = (number + 1) % (1 << 16)
        answer: asyncio.Future[tuple[Sequence[str], float]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self.queries += 1
        try:
            self._transport.sendto(dns.message.make_query(self._name, "A", id=number).to_wire())
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise ResolveError("the DNS server did not answer") from error
        finally:
            del self._waiting[number]

    def datagram_received(self, data: bytes, _addr: object) -> None:
        try:
            message = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return  # Not an answer to anything; whoever waits runs into the timeout.
        waiting = self._waiting.get(message.id)
        if waiting is None or waiting.done():
            return
        sets = [found for found in message.answer if found.rdtype == dns.rdatatype.A]
        if message.rcode() != dns.rcode.NOERROR or message.flags & dns.flags.TC or not sets:
            waiting.set_exception(ResolveError(dns.rcode.to_text(message.rcode())))
            return
        ttl_s = min(found.ttl for found in message.answer)  # of every link when the name is an alias
        waiting.set_result(([record.address for found in sets for record in found], float(ttl_s)))

    def error_received(self, exc: Exception) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ResolveError(str(exc)))


class Cache:
    """One client's cache. Its first answer counts as already aged by a random part of the TTL, as answers from a shared
    resolver are, so that clients do not all ask again at the same moment.
    """

    def __init__(self, resolver: Resolver, random: Random, now: Callable[[], float]) -> None:
        self._resolver = resolver
        self._random = random
        self._now = now
        self._addresses: Sequence[str] = ()
        self._until: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def pick(self) -> str:
        """Return one of the name's addresses at random, asking the server only when the last answer has expired."""
        if self._until is None or self._now() >= self._until:
            self._asking = self._asking or asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)  # one query for all who wait; one of them giving up does not end it
        return self._random.choice(self._addresses)

    async def _ask(self) -> None:
        try:
            addresses, ttl_s = await self._resolver.query()
        finally:
            self._asking = None
        aged_s = ttl_s * self._random.random() if self._until is None else 0.0
        self._addresses, self._until = addresses, self._now() + ttl_s - aged_s
