"""A region's move, exhaustively, and the sums behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_
from runbooks.places import TOPOLOGY, loads, region

from orchestrator.core import region as machine
from orchestrator.core.errors import IllegalTransition
from orchestrator.core.guards import WEIGHT_MAX, Refusal
from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import (
    FINISHED,
    HELD,
    ORDERS,
    TRANSITIONS,
    M,
    Phase,
    RegionState,
    apply,
    begin,
    decide,
    leased_place,
)
from orchestrator.core.region_plan import RegionPlan, plan_regions, refuse_return, usual_weights, weights_at
from orchestrator.core.region_row import RegionMachine, dump, parse
from orchestrator.core.topology import Topology
from orchestrator.core.traffic import parse_steps

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = [{"share": s, "seconds": 1.0, "expected_requests": 50, "merged": []} for s in (0.5, 1.0)]
AWS = "aws/us-east-1"
# What orchestrator/workflows/region.py may answer for each effect, and nothing else.
OUTCOMES = {
    "admit-region": (M.ADMITTED, M.REFUSED, M.INTERRUPTED),
    "prepare-region": (M.PREPARED, M.UNPREPARED, M.INTERRUPTED),
    "leave-region": (M.MOVED, M.STALE, M.STUCK, M.INTERRUPTED),
    "empty-region": (M.EMPTIED, M.STUCK, M.INTERRUPTED),
    "stay-out": (M.EXPIRED, M.INTERRUPTED),
    "verify-region": (M.VERIFIED, M.SERVES, M.UNHEALTHY, M.INCONCLUSIVE, M.STUCK, M.INTERRUPTED),
    "return-region": (M.STEP_PASSED, M.STALE, M.UNHEALTHY, M.INCONCLUSIVE, M.STUCK, M.INTERRUPTED),
    "settle-region": (M.SETTLED, M.STUCK, M.INTERRUPTED),
}
Edges = dict[RegionState, list[tuple[str, RegionState]]]


def start() -> RegionState:
    return begin("run-1", "gates", (AWS,), DeployPolicy(), (), NOW)


def successors(state: RegionState) -> Iterator[tuple[str, RegionState]]:
    for kind in sorted(ORDERS):
        event = decide(state, Facts(NOW, (Order(1, kind, "ada", "because", NOW),)))
        if isinstance(event, Event):
            yield event.kind, apply(state, event, NOW)
    chosen = decide(state, Facts(NOW))
    if isinstance(chosen, Effect):
        for kind in OUTCOMES[chosen.kind]:
            args = (
                {"weights": {AWS: 0, "azure/eastus": 100}, "scaled": {}, "steps": STEPS} if kind is M.ADMITTED else {}
            )
            yield kind, apply(state, Event(kind, evidence="seen", args=args), NOW)


@pytest.fixture(scope="module")
def edges() -> Edges:
    found: Edges = {}
    todo = deque([start()])
    while todo:
        state = todo.popleft()
        state = replace(state, note="", reason="", alarms=min(state.alarms, 1))  # one is like another
        if state not in found:
            found[state] = list(successors(state))
            todo.extend(after for _, after in found[state])
    return found


def test_every_transition_of_the_table_is_taken(edges: Edges) -> None:
    taken = {
        (state.phase, machine.meaning(state, M(kind)))
        for state, after in edges.items()
        for kind, _ in after
        if kind not in {machine.ORDER_REFUSED, M.PAUSE} and not (kind == M.RESUME and state.phase not in HELD)
    }
    assert {(p, m) for p, events in TRANSITIONS.items() for m in events} == taken


def test_i1_the_lease_is_held_from_admission_until_all_is_put_back(edges: Edges) -> None:
    for state in edges:
        free = state.phase in {Phase.ASKING, Phase.HELD_ASKING, *FINISHED}
        assert (None if free else AWS) == leased_place(state)


def test_from_every_state_the_run_can_still_end(edges: Edges) -> None:
    good = {s for s in edges if s.phase in FINISHED}
    for _ in edges:
        more = {s for s, after in edges.items() if any(replace(a, note="", reason="") in good for _, a in after)} - good
        if not more:
            break
        good |= more
    assert set() == set(edges) - good


def test_a_region_that_left_comes_back_only_verified_and_step_by_step(edges: Edges) -> None:
    for state, after in edges.items():
        for kind, then in after:
            if then.phase is Phase.RETURNING and state.phase is not Phase.RETURNING:
                assert state.phase in {Phase.VERIFYING, Phase.HELD_RETURNING}
            if then.phase is Phase.RETURNED:
                assert (M.SETTLED, Phase.SETTLING) == (kind, state.phase)


def test_i9_a_verified_region_has_the_steps_that_were_planned_last() -> None:
    """A row of before the steps came with it keeps those of its admission."""
    state = replace(start(), phase=Phase.VERIFYING, steps=parse_steps(STEPS[1:]), step=1)
    planned, kept = (apply(state, Event(M.VERIFIED, args=args), NOW) for args in ({"steps": STEPS}, {}))
    assert (0, (0.5, 1.0)) == (planned.step, tuple(step.share for step in planned.steps))
    assert (0, (1.0,)) == (kept.step, tuple(step.share for step in kept.steps))


def test_a_run_that_ended_returned_was_not_only_called_off(edges: Edges) -> None:
    assert {Phase.RETURNED: False, Phase.CALLED_OFF: True} == {
        s.phase: s.calling_off or s.phase is Phase.CALLED_OFF for s in edges if s.phase in FINISHED
    }


def test_a_held_run_waits_and_the_kill_switch_stops_all(edges: Edges) -> None:
    assert all(decide(s, Facts(NOW)) is None for s in edges if s.phase in HELD)
    assert all(decide(s, Facts(NOW)) is None for s in edges if s.paused and s.phase is not Phase.OUT)
    assert all(decide(s, Facts(NOW, killed=True)) is None for s in edges)


def test_i14_a_freeze_does_not_stop_an_evacuation() -> None:
    assert Effect("admit-region", args={"step": 0}) == decide(start(), Facts(NOW, frozen=True))


def test_every_state_survives_its_row(edges: Edges) -> None:
    for state in edges:
        assert state == parse(dump(state))
        assert dict(state.weights) == dict(parse(dump(state)).weights)


def test_the_lease_of_another_run_is_waited_for_not_held(edges: Edges) -> None:
    """The store's refusal carries its rule; the machine has no word for it, so the loop asks again."""
    with pytest.raises(IllegalTransition):
        apply(start(), Event(M.REFUSED, evidence="run x has a zone out", args={"rule": "I1"}), NOW)
    assert Phase.HELD_ASKING is apply(start(), Event(M.REFUSED, evidence="I3"), NOW).phase
    assert not RegionMachine().extra_slot(start())


def test_i3_the_others_carry_it_or_are_scaled_or_the_sum_is_printed() -> None:
    def plan(rps: float, *, scale: bool = True) -> RegionPlan | Refusal:
        return plan_regions([AWS], loads(rps), TOPOLOGY, max_utilisation=0.75, scale_survivors=scale)

    easy, scaled, refused = plan(30), plan(60), plan(400)
    assert isinstance(easy, RegionPlan)
    assert ({AWS: 0, "azure/eastus": 100}, {}) == (dict(easy.weights), dict(easy.scale))
    assert isinstance(scaled, RegionPlan)
    assert {z.id: 4 for z in TOPOLOGY.region("azure/eastus").zones} == dict(scaled.scale)  # 120/s / 0.75 / 50
    assert isinstance(refused, Refusal)
    assert "2400/s without aws/us-east-1" in refused.reason
    assert isinstance(plan(60, scale=False), Refusal)


def test_i2_an_unmeasured_zone_refuses_and_so_does_leaving_nobody() -> None:
    known = loads(10)
    del known["azure/eastus-2"]
    for leaving, measured in (([AWS], known), ([AWS, "azure/eastus"], loads(10))):
        plan = plan_regions(leaving, measured, TOPOLOGY, max_utilisation=0.75, scale_survivors=True)
        assert isinstance(plan, Refusal)


def test_i3_a_region_comes_back_where_it_carries_its_part_or_is_used_less_than_the_others_are() -> None:
    """ADR 6: a load that rose while it was out refuses no return that lowers it."""
    usual = usual_weights(TOPOLOGY)

    def refusal(back_ready: int, others_ready: int) -> Refusal | None:
        seen = loads(40)
        ready = {z.id: back_ready if z.region == AWS else others_ready for z in TOPOLOGY.zones()}
        out = {z: replace_(load, healthy=ready[z], rps=0.0 if z.startswith(AWS) else 80.0) for z, load in seen.items()}
        return refuse_return([AWS], usual, out, TOPOLOGY, max_utilisation=0.75)

    assert refusal(3, 3) is None  # 40/s on 150/s
    small = refusal(1, 3)
    assert small is not None
    assert ("I3", True) == (small.rule, "120/s over 150/s is 0.80, allowed 0.75" in small.reason)
    assert refusal(1, 1) is None  # 0.80 instead of 1.60


def test_where_the_usual_weights_would_overload_one_region_users_are_spread_by_what_each_can_carry() -> None:
    small, large = region("aws", "us-west-2", ("us-west-2a",)), region("azure", "eastus", ("eastus-1", "eastus-2"))
    topology = Topology("gates", (region("aws", "us-east-1", ("us-east-1a",)), small, large), TOPOLOGY.global_tier)
    plan = plan_regions([AWS], loads(50, topology), topology, max_utilisation=0.75, scale_survivors=False)
    assert isinstance(plan, RegionPlan)
    assert {AWS: 0, "aws/us-west-2": 128, "azure/eastus": 255} == dict(plan.weights)


@given(
    st.floats(0.001, 1.0),
    st.lists(st.integers(1, 255), min_size=2, max_size=5),
    st.lists(st.integers(0, 255), min_size=1, max_size=4),
)
def test_on_the_way_back_no_region_gets_more_than_at_either_end(share: float, usual: list[int], out: list[int]) -> None:
    """Up to the rounding of a weight."""
    base = {f"r{i}": w for i, w in enumerate(usual)}
    away = {f"r{i}": (out + [1] * 5)[i] for i in range(len(usual))} | {"r0": 0}
    if not any(away.values()):
        return
    weights = weights_at(share, away, base)
    assert all(0 <= w <= WEIGHT_MAX for w in weights.values())
    assert weights["r0"] >= 1
    total, slack = sum(weights.values()), 2 * len(base) / WEIGHT_MAX
    for r, weight in weights.items():
        ends = (away[r] / sum(away.values()), base[r] / sum(base.values()))
        assert min(ends) - slack <= weight / total <= max(ends) + slack


def test_the_last_step_is_exactly_the_usual_weights() -> None:
    usual = usual_weights(TOPOLOGY)
    assert usual == weights_at(1.0, {AWS: 0, "azure/eastus": 255}, usual)
