"""A Prometheus query as a signal: its values against a bound. What cannot be computed is unknown."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import httpx

from orchestrator.core.signal import PrometheusQuery
from orchestrator.ports import Reading
from orchestrator.signals.http import shown


@dataclass(frozen=True, slots=True)
class PrometheusSignal:
    spec: PrometheusQuery

    async def read(self) -> Reading:
        """One instant query, https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries."""
        spec, at = self.spec, shown(self.spec.url)
        try:
            async with (
                asyncio.timeout(spec.timeout_s),
                httpx.AsyncClient(timeout=spec.timeout_s, trust_env=False) as client,
            ):
                answer = await client.get(f"{spec.url.rstrip('/')}/api/v1/query", params={"query": spec.query})
            told = answer.json()
            values = _values(told["data"]) if told["status"] == "success" else None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Reading("unknown", f"{at}: {type(error).__name__}")
        except TimeoutError:
            return Reading("unknown", f"{at}: no answer within {spec.timeout_s:g} s")
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return Reading("unknown", f"{at} answered {answer.status_code} with something else than a result")
        if values is None:
            return Reading("unknown", f"{at}: {str(told.get('error', 'no reason given'))[:200]}")
        if not values or any(math.isnan(value) for value in values):
            return Reading("unknown", f"{at}: the query has no value")
        wrong = [value for value in values if not spec.min <= value <= spec.max]
        bounds = f"{spec.min:g} to {spec.max:g}"
        if wrong:
            return Reading("bad", f"{at}: {wrong[0]:g} is not within {bounds} ({len(wrong)} of {len(values)} values)")
        return Reading("good", f"{at}: {values[0]:g} is within {bounds} ({len(values)} values)")


def _values(data: dict[str, Any]) -> list[float]:
    if data["resultType"] == "scalar":
        return [float(data["result"][1])]
    if data["resultType"] != "vector":
        raise ValueError(data["resultType"])
    return [float(series["value"][1]) for series in data["result"]]
