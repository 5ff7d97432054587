"""A zone that is out already goes first, and a rollback takes zones backwards in the order in which they changed (I12)."""

from __future__ import annotations

from core.explore import NOW, outcome

from orchestrator.core.deploy import DeployState, apply, begin
from orchestrator.core.deploy_table import E, R
from orchestrator.core.machine import Effect, Event
from orchestrator.core.policy import DeployPolicy

DONE = (
    E.ADMITTED,
    E.PREPARED,
    E.DRAINED,
    E.UPGRADED,
    E.VERIFIED,
    E.STEP_PASSED,
    E.STEP_PASSED,
    E.JOINED,
    E.BAKED,
    E.SETTLED,
)


def through(state: DeployState, zone: str, *kinds: E) -> DeployState:
    for kind in kinds:
        state = apply(state, outcome(Effect("", zone), kind), NOW)
    return state


def ordered(state: DeployState, kind: R, target: str = "") -> DeployState:
    return apply(state, Event(kind, evidence="ordered", args={"target": target}), NOW)


def test_i12_a_zone_that_others_yielded_to_is_rolled_back_after_those_that_changed_later() -> None:
    start = begin("gates", "v2", dict.fromkeys("abc", "v1"), ("a", "b", "c"), DeployPolicy(), NOW)
    state = through(through(through(start, "a", E.YIELDED), "b", *DONE), "a", *DONE)
    assert ["b", "a", "c"] == [zone.zone for zone in state.zones]
    assert ["a", "b"] == [zone.zone for zone in ordered(state, R.ROLLBACK).waiting()]


def test_i12_a_zone_that_went_back_and_forth_changed_last() -> None:
    """A rollback found it in hand; with another target it changed anew. Seed 1796039621267."""
    start = begin("gates", "v2", dict.fromkeys("ab", "v1"), ("a", "b"), DeployPolicy(), NOW)
    state = through(through(start, "a", *DONE), "b", *DONE)
    state = through(ordered(state, R.RETARGET, "v3"), "a", E.ADMITTED, E.PREPARED, E.DRAINED)
    state = through(ordered(state, R.ROLLBACK), "a", *DONE[2:7], E.JOINED, E.SETTLED)
    state = through(ordered(state, R.RETARGET, "v4"), "a", *DONE)
    assert ["a", "b"] == [zone.zone for zone in ordered(state, R.ROLLBACK).waiting()]
