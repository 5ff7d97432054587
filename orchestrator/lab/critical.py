"""The critical path of a deploy: what the lab itself timed, never what the orchestrator says of itself.

Per zone: drain (the last request, the deregistration delay), replacement of the instances, health passes, the ramp and
bake that are configured, and waits for the DNS TTL. Wall time over this sum says how much the orchestrator adds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
_TAKES_NONE = frozenset({"draining", "down"})
_CANDIDATE = frozenset({"registered", "none"})


@dataclass(frozen=True, slots=True)
class ZonePath:
    """Seconds of one zone's path."""

    drain_s: float
    replace_s: float
    health_s: float
    configured_s: float

    @property
    def total_s(self) -> float:
        return self.drain_s + self.replace_s + self.health_s + self.configured_s


def read_timeline(path: Path) -> list[dict[str, Any]]:
    """The lab's timeline; a last line that is still being written is left out."""
    lines = path.read_text("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def zone_path(events: Sequence[Event], zone: str, since: float, until: float, configured_s: float) -> ZonePath | None:
    """The path of `zone` in [since, until), unix seconds; None when the lab saw no upgrade of it there."""
    mine = [e for e in events if e.get("zone") == zone and since <= e["t"] < until]
    started = [e["t"] for e in mine if e["kind"] == "refresh" and e["state"] == "started"]
    finished = [e["t"] for e in mine if e["kind"] == "refresh" and e["state"] == "finished"]
    if not started or not finished:
        return None
    return ZonePath(
        drain_s=_drain_s(mine, started[0]),
        replace_s=finished[-1] - started[0],
        health_s=_health_s(mine, finished[-1]),
        configured_s=configured_s,
    )


def _drain_s(mine: Sequence[Event], before: float) -> float:
    """From the first instance that takes no new traffic until the last is idle and its registration is over."""
    out = [e["t"] for e in mine if e["kind"] == "member" and e["state"] in _TAKES_NONE and e["t"] < before]
    over = [
        e["t"]
        for e in mine
        if e["t"] < before and (e["kind"] == "idle" or (e["kind"] == "member" and e["state"] in {"gone", "drained"}))
    ]
    return max(over) - min(out) if out and over and max(over) > min(out) else 0.0


def _health_s(mine: Sequence[Event], after: float) -> float:
    """Each time that instances become candidates for traffic, the wait until the last of them is called healthy.

    Instances that become candidates at one moment wait together; a wait ends with the episode's last pass.
    """
    total, began = 0.0, after
    healthy: set[tuple[str, str]] = set()
    waiting: set[tuple[str, str]] = set()
    for event in (e for e in mine if e["kind"] == "member" and e["t"] >= after):
        key, state = (event["pool"], event["instance"]), event["state"]
        if state == "healthy":
            healthy.add(key)
            if key in waiting and waiting == {key}:
                total += event["t"] - began
            waiting.discard(key)
        elif state in _CANDIDATE and (state == "registered" or key not in healthy):
            healthy.discard(key)
            began = began if waiting else event["t"]
            waiting.add(key)
        elif state not in _CANDIDATE:
            healthy.discard(key)
    return total


def ttl_waits_s(events: Iterable[Event], since: float, until: float, ttl_s: float) -> float:
    """Every change of DNS weights costs one TTL."""
    return ttl_s * sum(1 for e in events if e["kind"] == "dns" and since <= e["t"] < until)
