"""An HTTP check as a signal: a wrong answer is bad, no answer is unknown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import httpx

from orchestrator.core.signal import HttpCheck
from orchestrator.ports import Reading

BODY_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpSignal:
    spec: HttpCheck

    async def read(self) -> Reading:
        """One GET, redirects not followed: whatever answers on the way is not the one that was asked."""
        spec, at = self.spec, shown(self.spec.url)
        try:
            async with (
                asyncio.timeout(spec.timeout_s),  # Of all of it: httpx's own is of each read, and a trickle never ends.
                httpx.AsyncClient(timeout=spec.timeout_s, trust_env=False) as client,
                client.stream("GET", spec.url) as answer,
            ):
                body = b""
                if spec.contains:
                    async for chunk in answer.aiter_bytes():
                        body += chunk
                        if len(body) >= BODY_MAX:
                            break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = f": {error}" if isinstance(error, httpx.TransportError) and str(error) else ""  # No address in it.
            return Reading("unknown", f"{at}: {type(error).__name__}{why}")
        except TimeoutError:
            return Reading("unknown", f"{at}: no answer within {spec.timeout_s:g} s")
        if answer.status_code != spec.status:
            return Reading("bad", f"{at} answered {answer.status_code}, {spec.status} wanted")
        if spec.contains and spec.contains.encode() not in body[:BODY_MAX]:
            return Reading("bad", f"{at} answered {answer.status_code} without {spec.contains!r}")
        return Reading("good", f"{at} answered {answer.status_code}")


def shown(url: str) -> str:
    """The address without what may be a secret: user, password, query, fragment."""
    scheme, _, rest = url.partition("?")[0].partition("#")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
