"""`failout agent`: the process that stands in a region and reaches its instances, which nothing outside can."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import FailoutError, NotFound, Rejected

if TYPE_CHECKING:
    from uvicorn import Server

TOKEN_MIN = 16
KEEP_ALIVE_S = 30


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        host, port = options.listen
        server = serve(
            (host, port),
            read_token(options.token_file),
            options.source_address or host,
            options.allow,
            service_port=options.service_port,
        )

        def end(*_: object) -> None:
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)  # uvicorn ends gently, then raises the signal again for whoever was there before
        if options.with_parent:
            threading.Thread(target=_watch_parent, args=(end,), daemon=True).start()
        server.run()
    except FailoutError as error:
        sys.stderr.write(f"agent: {error}\n")
        return error.exit_code
    return 0 if server.started else 1


def serve(
    listen: tuple[str, int],
    token: str,
    source_address: str,
    allowed_networks: Sequence[IPv4Network],
    *,
    service_port: int = 8080,
) -> Server:
    """Return a server ready to `run()`; it ends at SIGTERM, SIGINT or `should_exit`.

    Raises Rejected when told to listen where the world could reach it: only loopback and private addresses are taken.
    """
    # Imported here so that `failout --help` need not pay for it.
    import uvicorn  # noqa: PLC0415

    from orchestrator.agent.local import LocalAgent  # noqa: PLC0415
    from orchestrator.agent.server import application  # noqa: PLC0415

    address = IPv4Address(listen[0])
    if not address.is_private or address.is_unspecified:
        raise Rejected(f"the agent listens on a loopback or private address, not on {address}")
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)
    config = uvicorn.Config(
        application(LocalAgent(source_address, allowed_networks, service_port), token),
        host=listen[0],
        port=listen[1],
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        limit_concurrency=200,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def read_token(path: Path) -> str:
    """Return the token in a private file. Raises Rejected when others may read it or it is too short to be a secret.

    Raises NotFound when there is none.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(4096).strip()
    except FileNotFoundError:
        raise NotFound(f"there is no token file {path}; it holds the bearer token of the agents, mode 600") from None
    except OSError as error:
        raise Rejected(f"cannot read the token file {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Rejected(f"others may read the token file {path}: chmod 600 it")
    if len(token) < TOKEN_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise Rejected(f"the token in {path} must be at least {TOKEN_MIN} printable characters without spaces")
    return token


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="failout agent", description="Probe instances of this region, send them synthetic requests, set admission."
    )
    parser.add_argument("--listen", required=True, type=_endpoint, metavar="ADDRESS:PORT", help="loopback or private")
    parser.add_argument("--token-file", required=True, type=Path, help="private file (0600) with the bearer token")
    parser.add_argument(
        "--allow", required=True, type=IPv4Network, action="append", help="network of instances; repeat"
    )
    parser.add_argument("--source-address", help="where it connects from (default: where it listens)")
    parser.add_argument("--service-port", type=int, default=8080, help="port of instances (default %(default)s)")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    return parser


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return str(IPv4Address(host)), int(port)


def _watch_parent(end: Callable[[], None]) -> None:
    while os.read(0, 4096):
        pass
    end()
