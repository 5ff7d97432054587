"""Moving load between regions: what is asked of the DNS must be a weight."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.core.guards import (
    WEIGHT_MAX,
    CapacityPlan,
    Refusal,
    ZoneLoad,
    fair_rps,
    plan_capacity,
    with_those_coming,
)
from orchestrator.core.topology import GlobalTier, Region, Topology, Zone


def topology(rps_per_instance: float) -> Topology:
    regions = {"aws/one": ["aws/one-a"], "aws/two": ["aws/two-a", "aws/two-b"], "azure/three": ["azure/three-1"]}
    made = tuple(
        Region(
            id_, id_.split("/")[0], id_, 100, tuple(Zone(z, "aws", id_, z, 2, 4, rps_per_instance) for z in zones), ""
        )
        for id_, zones in regions.items()
    )
    return Topology("gates", made, GlobalTier("route53", 5, "gates.lab."))


@given(st.lists(st.floats(0, 60), min_size=4, max_size=4), st.floats(50, 150))
@example([0.0] * 4, 100.0)  # Nobody asks yet: with every weight 0, Route 53 would answer with all regions.
def test_a_region_of_one_zone_is_emptied_by_weights_that_route_53_takes(rps: list[float], each: float) -> None:
    made = topology(each)
    loads = {z.id: ZoneLoad(z.id, r, 2, 2) for z, r in zip(made.zones(), rps, strict=True)}
    plan = plan_capacity("aws/one-a", loads, made, max_utilisation=1.0, scale_survivors=True)
    assert isinstance(plan, CapacityPlan)
    assert all(0 <= weight <= WEIGHT_MAX for weight in plan.weights.values())
    assert (0, True) == (plan.weights["aws/one"], any(plan.weights.values()))


def test_i3_without_another_region_the_only_zone_may_not_leave_though_nobody_asks() -> None:
    alone = Topology("gates", topology(100.0).regions[:1], None)
    plan = plan_capacity(
        "aws/one-a", {"aws/one-a": ZoneLoad("aws/one-a", 0.0, 2, 2)}, alone, max_utilisation=1.0, scale_survivors=True
    )
    assert isinstance(plan, Refusal)
    assert (True, "I3") == ("there is no other region" in plan.reason, plan.rule)


def test_a_zones_fair_part_is_by_instances_for_survivors_may_be_scaled() -> None:
    loads = {"aws/two-a": ZoneLoad("aws/two-a", 0.0, 2, 2), "aws/two-b": ZoneLoad("aws/two-b", 60.0, 4, 4)}
    assert 20.0 == fair_rps("aws/two-a", loads, topology(100.0))


def test_i4_users_whom_another_run_sends_to_a_region_are_counted_there_before_they_come() -> None:
    loads = {z.id: ZoneLoad(z.id, 30.0, 2, 2) for z in topology(100.0).zones()}
    weights = {"aws/one": 0, "aws/two": 200, "azure/three": 100}
    coming = with_those_coming("aws/two", loads, weights, topology(100.0))
    assert [30.0, 40.0, 40.0, 30.0] == [coming[z].rps for z in loads]


def test_what_users_make_of_the_usual_weights_is_measured() -> None:
    loads = {"aws/two-a": ZoneLoad("aws/two-a", 0.0, 2, 2), "azure/three-1": ZoneLoad("azure/three-1", 60.0, 2, 2)}
    usual = dict.fromkeys(["aws/one", "aws/two", "azure/three"], 100)
    assert loads == with_those_coming("aws/two", loads, usual, topology(100.0))
