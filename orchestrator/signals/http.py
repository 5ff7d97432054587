"""An HTTP check as a signal: a wrong answer is bad, no answer is unknown."""

from __future__ import annotations

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
        spec = self.spec
        try:
            async with (
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
            return Reading("unknown", f"{spec.url}: {type(error).__name__}: {error}")
        if answer.status_code != spec.status:
            return Reading("bad", f"{spec.url} answered {answer.status_code}, {spec.status} wanted")
        if spec.contains and spec.contains.encode() not in body[:BODY_MAX]:
            return Reading("bad", f"{spec.url} answered {answer.status_code} without {spec.contains!r}")
        return Reading("good", f"{spec.url} answered {answer.status_code}")
