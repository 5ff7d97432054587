"""The Agent port over HTTP: what the orchestrator holds of each region's agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from ipaddress import AddressValueError, IPv4Address
from typing import Any, TypeVar

import httpx
from msgspec import structs

from orchestrator.core.errors import Denied, Rejected, Transient
from orchestrator.core.health import Counters, InstanceProbe, Synthetic
from orchestrator.ports import Fence, Peer

CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0

T = TypeVar("T")


class HttpAgent:
    """Calls the agent at `url`. For one event loop; close it with `aclose`. Nothing is retried.

    Raises Transient (no answer, overloaded, an instance did not answer), Denied (token, or peers outside the agent's
    networks), Rejected (the agent calls the request wrong).
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        parts = httpx.URL(url)
        if parts.scheme != "https" and not _is_private(parts.host):
            raise Rejected(f"{url}: the token travels over https, or http to a private address")
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, transport=transport
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        return await self._call("probe", peers, lambda said: [InstanceProbe(**probe) for probe in said["probes"]])

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        return await self._call("counters", peers, _counters)

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        fields = {"requests": requests, "timeout_s": timeout_s}
        return await self._call("synthesize", peers, lambda said: Synthetic(**said["synthetic"]), fields, timeout_s)

    async def admit(self, peers: Sequence[Peer], *, admitted: bool, fence: Fence) -> None:
        await fence.check()
        await self._call("admit", peers, lambda _: None, {"admitted": admitted})

    async def _call(
        self,
        name: str,
        peers: Sequence[Peer],
        read: Callable[[Any], T],
        fields: Mapping[str, Any] | None = None,
        lasts_s: float = 0.0,
    ) -> T:
        body = {"peers": [structs.asdict(peer) for peer in peers], **(fields or {})}
        timeout = httpx.Timeout(lasts_s + self._timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._http.post(f"/v1/{name}", json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise Transient(f"agent {self._url} did not answer {name}: {type(error).__name__} {error}") from error
        try:
            if response.is_success:
                return read(response.json())
            told = f"agent {self._url} {name}: {response.json()['error']}"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            told = f"agent {self._url} answered {name} with {response.status_code}, and not as an agent does"
            raise Transient(told) from error
        raise _refusal(response, told)


def _counters(said: Any) -> Mapping[str, Counters]:  # noqa: ANN401 JSON
    return {
        id_: Counters(counts["requests"], counts["errors"], tuple(counts["latency"]))
        for id_, counts in said["counters"].items()
    }


def _refusal(response: httpx.Response, told: str) -> Exception:
    if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Denied(told)
    if response.is_client_error and response.status_code not in {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.REQUEST_TIMEOUT,
    }:
        return Rejected(told)
    after = response.headers.get("retry-after", "")
    return Transient(told, retry_after_s=float(after) if after.isdecimal() else None)


def _is_private(host: str) -> bool:
    try:
        return IPv4Address(host).is_private
    except AddressValueError:
        return host == "localhost"
