"""What the region agent does with the instances of its region. An Agent itself, for whoever runs inside the region."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from math import ceil
from typing import TypeVar

from orchestrator.agent.wire import Reply, Wire, WireError
from orchestrator.core.errors import Denied, FailoutError, Rejected, Transient
from orchestrator.core.health import LATENCY_BOUNDS_MS, Counters, InstanceProbe, Synthetic
from orchestrator.ports import Fence, Peer

ANSWER_TIMEOUT_S = 1.0  # per request: what a user would call failed
CONCURRENCY = 64
SERVICE_PORT = 8080

T = TypeVar("T")


class LocalAgent:
    """Talks from the address `source` to instances at `port` inside `allowed`, and to nothing else: it is no open proxy."""

    def __init__(
        self,
        source: str,
        allowed: Sequence[IPv4Network],
        port: int = SERVICE_PORT,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._source = source
        self._allowed = allowed
        self._port = port
        self._timeout_s = answer_timeout_s
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        """Ask each peer on a new connection. One that tells only a part is as good as dark: unknown is not 0 in flight."""
        return await self._each(peers, self._probe)

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        read = await self._each(peers, self._counters)
        return {peer.id: counters for peer, counters in zip(peers, read, strict=True) if counters is not None}

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        """Send as many to each peer, on kept connections. Nothing is begun after `timeout_s`; what is out may still end."""
        ends = asyncio.get_running_loop().time() + timeout_s
        wires_of = [self._wires(peer, max(1, CONCURRENCY // len(peers))) for peer in peers]
        results: list[float | None] = []  # ms; None: no correct answer in time
        async with asyncio.TaskGroup() as group:
            for i, wires in enumerate(wires_of):
                turns = iter(range(requests // len(peers) + (i < requests % len(peers))))
                for wire in wires:
                    group.create_task(self._send(wire, turns, ends, results))
        good = sorted(ms for ms in results if ms is not None)
        return Synthetic(len(results), len(good), len(results) - len(good), quantile(good, 0.50), quantile(good, 0.99))

    async def admit(self, peers: Sequence[Peer], *, admitted: bool, fence: Fence) -> None:
        """Ask every peer, also after one has failed; then raise Transient or Rejected naming those that did not take it."""
        await fence.check()
        body = b'{"admitted": true}' if admitted else b'{"admitted": false}'
        troubles = await self._each(peers, lambda peer, wire: self._admit(peer, wire, body))
        told = "; ".join(str(trouble) for trouble in troubles if trouble is not None)
        if any(isinstance(trouble, Transient) for trouble in troubles):
            raise Transient(told)
        if told:
            raise Rejected(told)

    async def _each(self, peers: Sequence[Peer], ask: Callable[[Peer, Wire], Awaitable[T]]) -> list[T]:
        async def one(peer: Peer, wire: Wire) -> T:
            async with self._slots:
                try:
                    return await ask(peer, wire)
                finally:
                    wire.close()

        pairs = [(peer, wire) for peer in peers for wire in self._wires(peer, 1)]  # refuse before anything is asked
        return await asyncio.gather(*(one(peer, wire) for peer, wire in pairs))

    def _wires(self, peer: Peer, number: int) -> list[Wire]:
        host, _, port = peer.address.partition(":")
        try:
            address = IPv4Address(host)
        except AddressValueError as error:
            raise Rejected(f"instance {peer.id}: {host!r} is not an IPv4 address") from error
        if port not in {"", str(self._port)} or not any(address in network for network in self._allowed):
            allowed = ", ".join(map(str, self._allowed))
            raise Denied(f"instance {peer.id}: {peer.address} is not port {self._port} in {allowed}")
        return [Wire(self._source, host, self._port) for _ in range(number)]

    async def _probe(self, peer: Peer, wire: Wire) -> InstanceProbe:
        try:
            ready = await wire.request("GET", "/readyz", self._timeout_s)
            told = _status(await wire.request("GET", "/status", self._timeout_s))
            return InstanceProbe(
                id=peer.id,
                reachable=True,
                ready=ready.status == HTTPStatus.OK,
                admitted=told["admitted"] is True,
                version=_text(told["version"]),
                in_flight=_natural(told["in_flight"]),
                connections=_natural(told["connections"]),
            )
        except (WireError, KeyError, ValueError):
            return InstanceProbe(peer.id, False, False, False, None, 0, 0)

    async def _counters(self, _peer: Peer, wire: Wire) -> Counters | None:
        try:
            told = _status(await wire.request("GET", "/status", self._timeout_s))
            latency = told["latency"]
            if not isinstance(latency, list) or len(latency) != len(LATENCY_BOUNDS_MS) + 1:
                return None
            return Counters(_natural(told["requests"]), _natural(told["errors"]), tuple(map(_natural, latency)))
        except (WireError, KeyError, ValueError):
            return None

    async def _send(self, wire: Wire, turns: Iterator[int], ends: float, results: list[float | None]) -> None:
        now = asyncio.get_running_loop().time
        try:
            for _ in turns:
                began = now()
                if began >= ends:
                    break
                try:
                    right = _states_its_headers(await wire.request("GET", "/", self._timeout_s))
                except WireError:
                    right = False
                results.append(round((now() - began) * 1000, 3) if right else None)
        finally:
            wire.close()

    async def _admit(self, peer: Peer, wire: Wire, body: bytes) -> FailoutError | None:
        try:
            reply = await wire.request("PUT", "/admission", self._timeout_s, body=body)
        except WireError as error:
            return Transient(f"instance {peer.id}: {error}")
        if reply.status == HTTPStatus.OK:
            return None
        told = f"instance {peer.id} answered {reply.status} to PUT /admission"
        sick = reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return Transient(told) if sick else Rejected(told)


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """Return the smallest value that at least the share `q` of `ordered` does not exceed; None when empty."""
    return ordered[max(0, ceil(q * len(ordered)) - 1)] if ordered else None


def _status(reply: Reply) -> dict[str, object]:
    told = reply.json()
    if reply.status != HTTPStatus.OK or not isinstance(told, dict):
        raise ValueError("not a status")
    return told


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004 one kind of error for all that is not a status
    return value


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(value)
    return value


def _states_its_headers(reply: Reply) -> bool:
    told = reply.json()
    return (
        reply.status == HTTPStatus.OK
        and isinstance(told, dict)
        and all(
            told.get(key) and told.get(key) == reply.headers.get(f"x-{key}") for key in ("zone", "instance", "version")
        )
    )
