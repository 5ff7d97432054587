"""ARM's request limits: a bucket per subscription for reads and one for writes, refilled by the second.

Source: Azure Resource Manager throttling; reads 250 refilled with 25 a second, writes 200 with 10.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    size: float
    refill_per_s: float
    tokens: float
    at: float

    def take(self, now: float) -> float | None:
        """Take one token; return the seconds to wait when there is none."""
        self.tokens = min(self.size, self.tokens + max(0.0, now - self.at) * self.refill_per_s)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.refill_per_s
        self.tokens -= 1
        return None


class Limits:
    def __init__(self, now: float) -> None:
        self.reads = Bucket(250, 25, 250, now)
        self.writes = Bucket(200, 10, 200, now)

    def take(self, method: str, now: float) -> float | None:
        return (self.reads if method in ("GET", "HEAD") else self.writes).take(now)

    def headers(self, method: str) -> dict[str, str]:
        if method in ("GET", "HEAD"):
            return {"x-ms-ratelimit-remaining-subscription-reads": str(int(self.reads.tokens))}
        return {"x-ms-ratelimit-remaining-subscription-writes": str(int(self.writes.tokens))}
