"""What `failout serve` answers over HTTP: is it well, and what does it measure. Nothing can be changed here."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.agent.main import read_token
from orchestrator.core.errors import FailoutError, Rejected
from orchestrator.operations.telemetry import CONTENT_TYPE

CONCURRENCY: Final = 50


@dataclass(frozen=True, slots=True)
class Answers:
    """`unwell` says why this process is not well, or None; `telemetry` gives the metrics as text."""

    unwell: Callable[[], Awaitable[str | None]]
    telemetry: Callable[[], Awaitable[str]]


def application(answers: Answers, token: str | None) -> Starlette:
    """With a token, /metrics asks for `Authorization: Bearer TOKEN`. /healthz tells nothing but well or not."""

    async def healthz(_: Request) -> Response:
        why = await answers.unwell()
        if why is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unwell", "reason": why}, status_code=503)

    async def metrics(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
        try:
            return PlainTextResponse(await answers.telemetry(), media_type=CONTENT_TYPE)
        except FailoutError as error:
            return PlainTextResponse(f"{error}\n", status_code=503)

    return Starlette(routes=[Route("/healthz", healthz), Route("/metrics", metrics)])


class QuietServer(uvicorn.Server):
    """A server within a process that handles signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        raise Rejected(f"listen on an address, not on {host!r}") from None


def require_token(host: str, token_file: Path | None) -> str | None:
    """Return the token, if one is named. Raise Rejected when others reach `host` and there is none."""
    token = read_token(token_file) if token_file else None
    if token is None and not _loopback(host):
        raise Rejected(f"{host} can be reached by others: add --token-file, or listen on 127.0.0.1")
    return token


def server(answers: Answers, host: str, token_file: Path | None) -> QuietServer:
    """Make the server of sockets on `host`. Raises as `require_token`."""
    token = require_token(host, token_file)
    config = uvicorn.Config(
        application(answers, token),
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        limit_concurrency=CONCURRENCY,
        timeout_graceful_shutdown=2,
    )
    return QuietServer(config)
