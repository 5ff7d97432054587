"""Every state a deploy of two zones can reach, by every outcome of every effect and every order at every moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from core.exploring import Explored, explored
from msgspec.structs import replace

from orchestrator.core.deploy import DeployState, ZoneProgress, apply, begin, decide
from orchestrator.core.deploy_table import FINISHED, ORDERS, E
from orchestrator.core.machine import Effect, Event, Facts, Json, Order
from orchestrator.core.policy import DeployPolicy, OnFailure

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = [{"share": s, "seconds": 1.0, "expected_requests": 50, "merged": []} for s in (0.5, 1.0)]

# What the performer may answer for each effect (orchestrator/workflows/deploy.py), and nothing else.
OUTCOMES: Mapping[str, tuple[E, ...]] = {
    "admit": (E.ADMITTED, E.ALREADY_THERE, E.REFUSED, E.YIELDED, E.INTERRUPTED),
    "prepare": (E.PREPARED, E.REPLANNED, E.UNPREPARED, E.INTERRUPTED),
    "drain": (E.DRAINED, E.DRAIN_TIMED_OUT, E.STALE, E.STUCK, E.INTERRUPTED),
    "upgrade": (E.UPGRADED, E.UNHEALTHY, E.STUCK, E.INTERRUPTED),
    "verify": (E.VERIFIED, E.UNHEALTHY, E.INCONCLUSIVE, E.STUCK, E.INTERRUPTED),
    "ramp": (
        E.STEP_PASSED,
        E.STEP_MERGED,
        E.RAMPED,
        E.STALE,
        E.UNHEALTHY,
        E.INCOMPLETE,
        E.INCONCLUSIVE,
        E.STUCK,
        E.INTERRUPTED,
    ),
    "join": (E.JOINED, E.STALE, E.STUCK, E.INTERRUPTED),
    "bake": (E.BAKED, E.UNHEALTHY, E.INCOMPLETE, E.INCONCLUSIVE, E.STUCK, E.INTERRUPTED),
    "settle": (E.SETTLED, E.STUCK, E.INTERRUPTED),
}


def start(on_failure: OnFailure = OnFailure.ROLLBACK_ZONE) -> DeployState:
    policy = DeployPolicy(on_failure=on_failure)
    return begin("gates", "v2", {"a": "v1", "b": "v1"}, ("a", "b"), policy, NOW)


def outcome(effect: Effect, kind: E) -> Event:
    args = {"undo": {}, "steps": STEPS, "to": "b" if effect.zone == "a" else "a"}
    return Event(kind, effect.zone, "seen", args)  # type: ignore[arg-type]


def order(kind: str, target: str = "v3") -> Order:
    return Order(1, kind, "ada", "because", NOW, {"target": target})


def successors(state: DeployState) -> Iterator[tuple[Event, DeployState]]:
    for kind in sorted(ORDERS):
        event = decide(state, Facts(NOW, (order(kind),)))
        if isinstance(event, Event):
            yield event, apply(state, event, NOW)
    chosen = decide(state, Facts(NOW))
    if isinstance(chosen, Event):
        yield chosen, apply(state, chosen, NOW)
    elif chosen is not None:
        for kind in OUTCOMES[chosen.kind]:
            if kind is E.STALE and chosen.kind != "ramp" and not state.zone(chosen.zone).as_it_left:
                continue
            event = outcome(chosen, kind)
            yield event, apply(state, event, NOW)


class Undo(dict[str, Json]):
    def __hash__(self) -> int:  # type: ignore[override]
        return len(self)


def shape(state: DeployState) -> DeployState:
    """The state without its prose, its zones named by where they stand, so that equal situations are visited once."""
    names = {z.zone: name for z, name in zip(state.zones, "ab", strict=True)}
    zones = tuple([_zone_shape(z, names[z.zone]) for z in state.zones])
    return replace(state, reason="", zones=zones, ahead=names.get(state.ahead, ""))


def _zone_shape(zone: ZoneProgress, name: str) -> ZoneProgress:
    if zone.zone == name and type(zone.undo) is Undo and not zone.note and zone.since is NOW:
        return zone  # as it was: most often an event changes one zone of both
    return replace(zone, zone=name, note="", since=NOW, undo=Undo(zone.undo), first=name == "a")


def explore(on_failure: OnFailure) -> Explored[DeployState]:
    return explored(start(on_failure), successors, shape, lambda s: s.status in FINISHED)
