"""The command line of the traffic generator: its own process, so that nobody else's load delays the users."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from orchestrator.core.errors import Bug, FailoutError
from orchestrator.lab.traffic.generator import Settings, generate
from orchestrator.lab.traffic.plan import Dial, constant, day, stepped

SOCKETS_SPARE = 64  # file descriptors for everything that is not a request


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(options))
    except FailoutError as error:
        sys.stderr.write(f"traffic: {error}\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.lab.traffic",
        description="Send requests to the service in an open loop and log each. Prints one JSON summary at its end.",
        epilog="A request has failed when no correct answer came within 1 s of the moment it was due. Nothing is retried.",
    )
    parser.add_argument("--resolver", required=True, type=_endpoint, metavar="HOST:PORT", help="DNS server to ask")
    parser.add_argument("--name", default="gates.lab.", help="record of the service (default %(default)s)")
    parser.add_argument("--port", type=_count, default=8000, help="port of the load balancers (default %(default)s)")
    parser.add_argument("--log", required=True, type=Path, help="new CSV file, one line a request")
    parser.add_argument(
        "--rate", type=_positive, default=300.0, help="requests/s; peak of a curve (default %(default)s)"
    )
    parser.add_argument(
        "--curve", choices=("constant", "day"), default="constant", help="day: quiet night, evening peak"
    )
    parser.add_argument(
        "--then",
        type=_step,
        action="append",
        default=[],
        metavar="RATE@SECOND",
        help="from then on another rate; repeat",
    )
    parser.add_argument("--day-s", type=_positive, default=240.0, help="seconds that a day takes (default %(default)s)")
    parser.add_argument("--clients", type=_count, default=60, help="users, each with a DNS cache (default %(default)s)")
    parser.add_argument("--seconds", type=_positive, help="end after this long (default: at SIGTERM or SIGINT)")
    parser.add_argument(
        "--fresh", type=_share, default=0.3, metavar="SHARE", help="0..1 with a connection of their own"
    )
    parser.add_argument("--long", type=_share, default=0.1, metavar="SHARE", help="0..1 that ask for --long-ms of work")
    parser.add_argument("--long-ms", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="names the plan of requests (default %(default)s)")
    parser.add_argument("--progress", action="store_true", help="print a JSON line each second")
    parser.add_argument(
        "--with-parent", action="store_true", help="end when standard input ends; a line on it is a new rate"
    )
    return parser


async def _run(options: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    curve = day(options.rate, options.day_s) if options.curve == "day" else constant(options.rate)
    rate = Dial(stepped(curve, options.then))
    if options.with_parent:
        threading.Thread(target=_obey_parent, args=(loop, stop, rate), daemon=True).start()
    settings = Settings(
        resolver=options.resolver,
        name=options.name,
        port=options.port,
        log=options.log,
        rate=rate,
        clients=options.clients,
        seconds=options.seconds,
        fresh_share=options.fresh,
        long_share=options.long,
        long_ms=options.long_ms,
        seed=options.seed,
        sockets=_allow_sockets(options.clients),
    )
    crashes: list[dict[str, Any]] = []

    def crash(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        crashes.append(context)
        stop.set()

    loop.set_exception_handler(crash)
    with Lines(on_broken=lambda: loop.call_soon_threadsafe(stop.set)) as lines:
        summary = await generate(settings, stop, lines.offer if options.progress else None)
        if crashes:  # a mistake in here would otherwise look like a timeout of the service
            raise Bug(crashes[0]["message"]) from crashes[0].get("exception")
        lines.put({"kind": "summary", **asdict(summary)})
    return 0


class Lines:
    """Prints JSON lines on a thread, so that a reader who is slow or gone never delays a request."""

    def __init__(self, on_broken: Callable[[], object]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None
        self._on_broken = on_broken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def offer(self, line: dict[str, Any]) -> None:
        """Print unless the line before is still waiting to be read."""
        if self._last is None or self._last.done():
            self.put(line)

    def put(self, line: dict[str, Any]) -> None:
        self._last = self._thread.submit(self._print, json.dumps(line, separators=(",", ":")))

    def _print(self, line: str) -> None:
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # Nobody reads any more: end as if told to. The log keeps everything.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._on_broken()


def _obey_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, rate: Dial) -> None:
    for line in sys.stdin:
        try:
            rate.turn(_positive(line))
        except (ValueError, argparse.ArgumentTypeError):
            sys.stderr.write(f"traffic: {line.strip()!r} is no rate\n")
    loop.call_soon_threadsafe(stop.set)


def _allow_sockets(clients: int) -> int:
    """Raise the soft limit of open files as far as a bad second needs it: all requests of it open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 + clients
    allowed = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed - SOCKETS_SPARE


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _step(text: str) -> tuple[float, float]:
    rate, mark, second = text.partition("@")
    if not mark:
        raise argparse.ArgumentTypeError(f"{text!r} is not RATE@SECOND")
    return _positive(rate), _positive(second)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
