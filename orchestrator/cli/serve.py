"""`failout serve`: the long-running process that carries the service's runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from orchestrator.cli.common import config_option, find_config
from orchestrator.core.errors import Rejected

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.core.topology import Topology
    from orchestrator.engine.carry import Log
    from orchestrator.engine.runtime import Engine

BLIND_S: Final = 10.0  # Not well when the rows could not be read for so long.
BEAT_S: Final = 5.0  # between two words to systemd's watchdog
CHECK_S: Final = 0.2
PORT_MAX: Final = 65535


@click.command("serve")
@click.option("--database", envvar="FAILOUT_DATABASE", help="postgresql://… instead of what failout.yaml names.")
@click.option(
    "--name", envvar="FAILOUT_EXECUTOR", help="This executor's lasting name on PostgreSQL [default: the host]."
)
@click.option(
    "--listen", default="127.0.0.1:7080", show_default=True, metavar="ADDRESS:PORT", help="/healthz, /metrics"
)
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), help="Bearer token (0600) that /metrics asks for."
)
@click.option("--log", type=click.Choice(["human", "json"]), default="human", show_default=True, help="On stderr.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@config_option
def command(
    database: str | None,
    name: str | None,
    listen: str,
    token_file: Path | None,
    log: str,
    config: Path | None,
    *,
    debug: bool,  # noqa: ARG001 - read by main()
) -> None:
    """Carry the service's runs: those that `failout deploy` and the like start, and those that a crash interrupted.

    SIGTERM ends it: a run in progress stays as its row says, traffic where it is, and the next process goes on. On
    PostgreSQL several may serve; what one that dies was carrying, another carries on within five seconds.
    """
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.config import database_url, read_settings  # noqa: PLC0415

    settings = read_settings(find_config(config))
    if database is not None:
        try:
            settings = replace(settings, database=database_url(database))
        except ValueError as error:
            raise Rejected(f"--database (FAILOUT_DATABASE) {error} in failout.yaml") from None
    asyncio.run(_serve(settings, name or socket.gethostname(), _endpoint(listen), token_file, logger(log)))


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise Rejected(f"--listen is ADDRESS:PORT, the port from 0 to {PORT_MAX}, not {text!r}")
    return host.strip("[]"), int(port)


async def _serve(settings: Settings, name: str, listen: tuple[str, int], token_file: Path | None, log: Log) -> None:
    from orchestrator.api.server import require_token  # noqa: PLC0415
    from orchestrator.bootstrap import open_orchestrator  # noqa: PLC0415

    require_token(listen[0], token_file)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with (
        open_orchestrator(settings, log, serving=True, executor=name) as (engine, world),
        _answering(engine, world.topology, settings, listen, token_file),
    ):
        log("serving", evidence=f"{settings.service} on http://{listen[0]}:{listen[1]}", executor=name)
        _tell_systemd("READY=1")
        beat_at = 0.0
        while not ended.is_set():
            engine.check()
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_S
                _tell_systemd("WATCHDOG=1")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), CHECK_S)
        _tell_systemd("STOPPING=1")
        log("stopping", evidence="runs in progress stay as their rows say; the next process goes on")


@asynccontextmanager
async def _answering(
    engine: Engine, topology: Topology, settings: Settings, listen: tuple[str, int], token_file: Path | None
) -> AsyncIterator[None]:
    from orchestrator.api.server import Answers, server  # noqa: PLC0415
    from orchestrator.operations.proof import prometheus, read_ledger  # noqa: PLC0415
    from orchestrator.operations.telemetry import exposition, metrics  # noqa: PLC0415

    async def unwell() -> str | None:
        blind_s = time.monotonic() - engine.looked_at
        return f"the state could not be read for {blind_s:.0f} s" if blind_s > BLIND_S else None

    def measured() -> str:
        rows, now = engine.store.glance, datetime.now(UTC)
        told = exposition(metrics(rows, settings.service, engine.counts, now))
        return told + prometheus(read_ledger(rows, topology, settings.objective, now))

    async def telemetry() -> str:
        return await asyncio.to_thread(measured)

    http = server(Answers(unwell, telemetry), listen[0], token_file)
    family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
    try:
        listening = socket.create_server(listen, family=family)
    except OSError as error:
        raise Rejected(f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror}") from error
    serving = asyncio.create_task(http.serve([listening]))
    try:
        yield
    finally:
        http.should_exit = True
        await serving
        listening.close()


def _tell_systemd(word: str) -> None:
    """sd_notify: one datagram to the socket that a unit of Type=notify is given."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
        to.connect("\0" + address[1:] if address.startswith("@") else address)
        to.send(word.encode())
