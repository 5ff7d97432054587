"""The region agent's HTTP API: four calls behind a bearer token, for peers of its own region only."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msgspec import structs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.core.errors import Denied, Rejected, Transient
from orchestrator.ports import Agent, Peer

BODY_MAX = 256 * 1024
BODY_TIMEOUT_S = 5.0
PEERS_MAX = 1000
ID_MAX = 256
REQUESTS_MAX = 100_000
TIMEOUT_MAX_S = 300.0
CALLS_MAX = 8  # at once; each has at most CONCURRENCY connections of its own
RETRY_AFTER_S = 1

Fields = dict[str, Any]
log = logging.getLogger("failout.agent")


@dataclass(frozen=True, slots=True)
class Call:
    """`fields` besides `peers`: name -> how to read it, raising Rejected. `perform` returns what JSON says."""

    fields: Mapping[str, Callable[[Any], Any]]
    perform: Callable[[Agent, list[Peer], Fields], Awaitable[Any]]


def application(agent: Agent, token: str) -> Starlette:
    """Serve `agent`. `/healthz` is open to all and says nothing but that the process is well."""
    busy = 0

    async def healthz(_: Request) -> Response:
        return JSONResponse({"ok": True})

    async def perform(request: Request) -> Response:
        nonlocal busy
        _authenticate(request, token)
        name = request.path_params["call"]
        if busy >= CALLS_MAX:
            raise HTTPException(429, f"{busy} calls are under way", {"Retry-After": str(RETRY_AFTER_S)})
        busy += 1
        began = time.monotonic()
        try:
            call = CALLS.get(name)
            if call is None:
                raise HTTPException(404, f"no call {name!r}; there are {', '.join(CALLS)}")
            fields = _read(await _body(request), call)
            peers = fields.pop("peers")
            said = await call.perform(agent, peers, fields)
        finally:
            busy -= 1
        _note(logging.INFO, call=name, peers=len(peers), ms=round((time.monotonic() - began) * 1000, 1))
        return JSONResponse(said)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/v1/{call}", perform, methods=["POST"])],
        exception_handlers=dict.fromkeys((HTTPException, Rejected, Denied, Transient), _refuse),
    )


def _authenticate(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.encode(), token.encode())  # in the same time however much of it is right
    if scheme.lower() != "bearer" or not right:
        raise HTTPException(401, "a valid bearer token is required", {"WWW-Authenticate": "Bearer"})


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_MAX:
                    raise HTTPException(413, f"the body is larger than {BODY_MAX} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from error
    return bytes(body)


def _read(body: bytes, call: Call) -> Fields:
    """Return the body's fields. Raises Rejected for anything but exactly the call's own, each of its kind."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"the body is not JSON: {error}") from error
    return _exactly(said, {"peers": _peers, **call.fields}, "the body")


def _exactly(said: object, fields: Mapping[str, Callable[[Any], Any]], what: str) -> Fields:
    if not isinstance(said, dict):
        raise Rejected(f"{what} must be an object with {', '.join(fields)}")
    unknown, missing = sorted(said.keys() - fields.keys()), sorted(fields.keys() - said.keys())
    if unknown or missing:
        told = [f"{kind} {', '.join(names)}" for kind, names in (("unknown", unknown), ("missing", missing)) if names]
        raise Rejected(f"{what}: fields {'; '.join(told)}; it has exactly {', '.join(fields)}")
    return {name: read(said[name]) for name, read in fields.items()}


def _peers(said: object) -> list[Peer]:
    if not isinstance(said, list) or len(said) > PEERS_MAX:
        raise Rejected(f"peers must be a list of at most {PEERS_MAX}")
    return [Peer(**_exactly(peer, {"id": _text, "address": _text}, "a peer")) for peer in said]


def _text(said: object) -> str:
    if not isinstance(said, str) or not 0 < len(said) <= ID_MAX or not said.isprintable():
        raise Rejected(f"id and address of a peer must be printable strings of 1 to {ID_MAX} characters")
    return said


def _requests(said: object) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said <= REQUESTS_MAX:
        raise Rejected(f"requests must be a whole number from 0 to {REQUESTS_MAX}")
    return said


def _timeout_s(said: object) -> float:
    if not isinstance(said, int | float) or isinstance(said, bool) or not 0 < said <= TIMEOUT_MAX_S:
        raise Rejected(f"timeout_s must be a number above 0 and up to {TIMEOUT_MAX_S:g}")
    return said


def _flag(said: object) -> bool:
    if not isinstance(said, bool):
        raise Rejected("admitted must be true or false")
    return said


async def _probe(agent: Agent, peers: list[Peer], _: Fields) -> Any:  # noqa: ANN401 JSON
    return {"probes": [structs.asdict(probe) for probe in await agent.probe(peers)]}


async def _counters(agent: Agent, peers: list[Peer], _: Fields) -> Any:  # noqa: ANN401 JSON
    return {"counters": {id_: structs.asdict(counters) for id_, counters in (await agent.counters(peers)).items()}}


async def _synthesize(agent: Agent, peers: list[Peer], fields: Fields) -> Any:  # noqa: ANN401 JSON
    return {"synthetic": asdict(await agent.synthesize(peers, **fields))}


class _Checked:
    """Whoever asked has read its own fence right before (`client.HttpAgent.admit`)."""

    number = 0

    async def check(self) -> None: ...


async def _admit(agent: Agent, peers: list[Peer], fields: Fields) -> Any:  # noqa: ANN401 JSON
    await agent.admit(peers, **fields, fence=_Checked())
    return {}


CALLS = {
    "probe": Call({}, _probe),
    "counters": Call({}, _counters),
    "synthesize": Call({"requests": _requests, "timeout_s": _timeout_s}, _synthesize),
    "admit": Call({"admitted": _flag}, _admit),
}


async def _refuse(request: Request, error: Exception) -> Response:
    """Say why in one line; the status tells the caller whether to mend the request, the rights, or to try again."""
    headers = None
    if isinstance(error, HTTPException):
        status, told, headers = error.status_code, error.detail, error.headers
    else:
        status = 400 if isinstance(error, Rejected) else 403 if isinstance(error, Denied) else 503
        told = str(error)
    _note(logging.WARNING, refused=request.url.path, status=status, why=told)
    return JSONResponse({"error": told}, status, headers)


def _note(level: int, **fields: object) -> None:
    """One JSON line; never a header, so never the token, and nothing that a caller sends can break the line."""
    log.log(level, "%s", json.dumps({"t": round(time.time(), 3), **fields}))
