"""One instance of the lab's service: a small real HTTP/1.1 server that runs with `python -I -S` on the stdlib alone.

It imports nothing of this package, starts in 0.1 s, and ends with its parent. It prints `listening` when it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import signal
import sys
import time
from bisect import bisect_left
from typing import Any

LATENCY_BOUNDS_MS = (5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2000)  # as core.health; tested
WORK_MS = (8.0, 20.0)
KEEP_ALIVE_S = (
    60.0  # far above the 2 s that clients keep a connection idle, so that neither side closes under the other
)
STOP_GRACE_S = 5.0
FIRST_USER_HOST = 10  # as addresses.py; tested
LEAK_STEP_S, LEAK_STEP_BYTES = 0.5, 256 * 1024
REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    500: b"Internal Server Error",
}


class Service:
    """What the process is and how it fares; connections ask it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.zone, self.instance, self.version = args.zone, args.instance, args.version
        self.behaviour: dict[str, Any] = json.loads(args.behaviour)
        self.fault: dict[str, Any] = json.loads(args.fault)
        self.network = args.host.rsplit(".", 2)[0] + ".0."  # peers of the region: 127.L.0.x
        self.random = random.Random(args.seed)
        self.body = json.dumps({"zone": self.zone, "instance": self.instance, "version": self.version}).encode()
        self.label = f"X-Zone: {self.zone}\r\nX-Instance: {self.instance}\r\nX-Version: {self.version}\r\n".encode()
        self.admitted, self.stopping = True, False
        self.empty = asyncio.Event()  # set when the last connection of a stopping service has ended
        self.listening_since = 0.0
        self.connections: set[Connection] = set()
        self.in_flight = self.requests = self.errors = 0
        self.latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)

    @property
    def ready(self) -> bool:
        return bool(self.behaviour.get("ready", True)) and not self.stopping

    def works(self, now: float) -> bool:
        unready_s: float = self.behaviour.get("unready_s", 0.0)
        return self.ready and now - self.listening_since >= unready_s

    def work_ms(self) -> float:
        added: float = self.behaviour.get("added_ms", 0.0) + self.fault.get("added_ms", 0.0)
        return self.random.uniform(*WORK_MS) + added

    def errs(self) -> bool:
        share: float = max(self.behaviour.get("error_share", 0.0), self.fault.get("error_share", 0.0))
        return self.random.random() < share

    def count(self, status: int, ms: float) -> None:
        self.requests += 1
        self.errors += status >= 500
        self.latency[bisect_left(LATENCY_BOUNDS_MS, ms)] += 1

    def tell_empty(self) -> None:
        if self.stopping and not self.connections:
            self.empty.set()

    def status(self) -> dict[str, Any]:
        return {
            "instance": self.instance, "zone": self.zone, "version": self.version, "ready": self.ready,
            "admitted": self.admitted, "in_flight": self.in_flight, "connections": sum(c.user for c in self.connections),
            "requests": self.requests, "errors": self.errors, "latency": self.latency,
        }  # fmt: skip


class Connection(asyncio.Protocol):
    """One peer's connection; answers its requests one after another."""

    __slots__ = ("buffer", "busy", "peer", "service", "transport", "used_at", "user", "user_request")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.buffer = b""
        self.busy = self.user = self.user_request = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.used_at = time.monotonic()
        self.peer = transport.get_extra_info("peername")[0]
        if not self.peer.startswith(self.service.network):  # a private network: nobody from outside gets an answer
            transport.abort()
            return
        self.user = int(self.peer.rsplit(".", 1)[1]) >= FIRST_USER_HOST
        self.service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.service.connections.discard(self)
        if self.user_request:  # the peer left before its answer
            self.service.in_flight -= 1
            self.user_request = False
        self.service.tell_empty()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy and not self.transport.is_closing():
            self.next_request()

    def next_request(self) -> None:
        head, mark, rest = self.buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (f.partition(":") for f in fields)}
        length = int(headers.get("content-length") or 0)
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.used_at = time.monotonic()
        if self.peer in self.service.fault.get("deaf_to", ()):  # a partition: as if the packets were lost
            return
        method, target, *_ = [*line.split(" "), "", ""]
        path, _, query = target.partition("?")
        close = headers.get("connection", "").lower() == "close"
        if path == "/" and method == "GET":
            self.work(query, close, synthetic=headers.get("x-synthetic") == "1")
            return
        status, body = self.answer(method, path, rest[:length])
        self.reply(status, json.dumps(body).encode(), close)

    def work(self, query: str, close: bool, *, synthetic: bool) -> None:
        service, self.busy = self.service, True
        if not synthetic:
            service.in_flight += 1
            self.user_request = True
        if service.fault.get("hang"):
            return
        ms = max(service.work_ms(), asked_ms(query))
        started = time.monotonic()
        if not service.works(started):
            self.finish(503, started, close, synthetic)
        else:
            status = 500 if service.errs() else 200
            asyncio.get_running_loop().call_later(ms / 1000, self.finish, status, started, close, synthetic)

    def finish(self, status: int, started: float, close: bool, synthetic: bool) -> None:
        if self.transport.is_closing():
            return
        self.busy = False
        if not synthetic:
            self.user_request = False
            self.service.in_flight -= 1
            self.service.count(status, (time.monotonic() - started) * 1000)
        self.reply(status, self.service.body if status == 200 else b'{"error":"the service is sick"}', close)
        if self.buffer and not self.transport.is_closing():
            self.next_request()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        service = self.service
        if method == "PUT" and path in ("/admission", "/fault"):
            try:
                asked = json.loads(body)
                if path == "/fault":
                    service.fault = dict(asked)
                else:
                    service.admitted = bool(asked["admitted"])
            except (ValueError, KeyError, TypeError):
                return 400, {"error": f"cannot read the body of PUT {path}"}
            return 200, {}
        if method != "GET":
            return 405, {"error": "GET, PUT /admission or PUT /fault"}
        yes = {"/healthz": True, "/readyz": service.ready, "/admit": service.ready and service.admitted}
        if path in yes:
            return (200 if yes[path] else 503), {"ok": yes[path]}
        if path == "/version":
            return 200, {"version": service.version}
        if path == "/status":
            return 200, service.status()
        return 404, {"error": f"no {path} here"}

    def reply(self, status: int, body: bytes, close: bool) -> None:
        service = self.service
        close = close or service.stopping or not service.admitted
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n%s\r\n%s"
            % (
                status,
                REASONS.get(status, b"Service Unavailable"),
                service.label,
                len(body),
                b"Connection: close\r\n" if close else b"",
                body,
            )
        )
        if close:
            self.transport.close()


def asked_ms(query: str) -> float:
    """`?ms=300` asks for a long request."""
    _, _, value = query.partition("ms=")
    return float(value) if value.isdigit() else 0.0


def end_with_parent(loop: asyncio.AbstractEventLoop) -> None:
    """A dead lab leaves no instance behind: the kernel's promise on Linux, the end of stdin everywhere."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    loop.add_reader(0, lambda: os.read(0, 64) or os._exit(0))


async def leak(service: Service, seconds: float) -> None:
    hoard: list[bytes] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        hoard.append(service.random.randbytes(LEAK_STEP_BYTES))
        await asyncio.sleep(LEAK_STEP_S)
    os._exit(137)


async def keep_tidy(service: Service) -> None:
    while True:
        await asyncio.sleep(5)
        limit = time.monotonic() - KEEP_ALIVE_S
        for connection in list(service.connections):
            if not connection.busy and connection.used_at < limit:
                connection.transport.close()


async def run(args: argparse.Namespace) -> None:
    service, loop, stop = Service(args), asyncio.get_running_loop(), asyncio.Event()
    end_with_parent(loop)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    boots = service.behaviour.get("boots", True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(service.behaviour.get("boot_s", 0.0) if boots else None):
            await stop.wait()
    if stop.is_set():
        return
    server = await loop.create_server(lambda: Connection(service), args.host, args.port, backlog=512)
    service.listening_since = time.monotonic()
    chores = [loop.create_task(keep_tidy(service))]
    if leaks_s := service.behaviour.get("leaks_s"):
        chores.append(loop.create_task(leak(service, leaks_s)))
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await stop.wait()
    service.stopping = True
    server.close()
    for connection in list(service.connections):
        if not connection.busy:
            connection.transport.close()
    service.tell_empty()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_GRACE_S):
            await service.empty.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("zone", "instance", "version"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--behaviour", default="{}")
    parser.add_argument("--fault", default="{}")
    parser.add_argument("--seed", default="0")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
