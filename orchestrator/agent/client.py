"""The Agent port over HTTP: what the orchestrator holds of each region's agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from ipaddress import AddressValueError, IPv4Address
from typing import Any

import httpx

from orchestrator.core.errors import Denied, Rejected, Transient
from orchestrator.core.health import Counters, InstanceProbe, Synthetic
from orchestrator.ports import Peer

CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0


class HttpAgent:
    """Calls the agent at `url`. For one event loop; close it with `aclose`. Nothing is retried.

    Raises Transient (no answer, overloaded, an instance did not answer), Denied (token, or peers outside the agent's
    networks), Rejected (the agent calls the request wrong).
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        parts = httpx.URL(url)
        if parts.scheme != "https" and not _is_private(parts.host):
            raise Rejected(f"{url}: the token travels over https, or http to a private address")
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, follow_redirects=False
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        said = await self._call("probe", peers)
        return [InstanceProbe(**probe) for probe in said["probes"]]

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        said = await self._call("counters", peers)
        return {
            id_: Counters(counts["requests"], counts["errors"], tuple(counts["latency"]))
            for id_, counts in said["counters"].items()
        }

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        said = await self._call("synthesize", peers, lasts_s=timeout_s, requests=requests, timeout_s=timeout_s)
        return Synthetic(**said["synthetic"])

    async def admit(self, peers: Sequence[Peer], *, admitted: bool) -> None:
        await self._call("admit", peers, admitted=admitted)

    async def _call(self, name: str, peers: Sequence[Peer], *, lasts_s: float = 0.0, **fields: Any) -> Any:  # noqa: ANN401 JSON
        body = {"peers": [asdict(peer) for peer in peers], **fields}
        timeout = httpx.Timeout(lasts_s + self._timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._http.post(f"/v1/{name}", json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise Transient(f"agent {self._url} did not answer {name}: {type(error).__name__} {error}") from error
        try:
            said = response.json()
        except ValueError as error:
            raise Transient(f"agent {self._url} answered {name} with {response.status_code} and no JSON") from error
        if response.is_success:
            return said
        raise _refusal(response, f"agent {self._url} {name}: {said.get('error', response.status_code)}")


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
