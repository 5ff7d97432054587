"""Moving load between regions: what is asked of the DNS must be a weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.guards import WEIGHT_MAX, CapacityPlan, ZoneLoad, fair_rps, plan_capacity
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
def test_a_region_of_one_zone_is_emptied_by_weights_that_route_53_takes(rps: list[float], each: float) -> None:
    made = topology(each)
    loads = {z.id: ZoneLoad(z.id, r, 2, 2) for z, r in zip(made.zones(), rps, strict=True)}
    plan = plan_capacity("aws/one-a", loads, made, max_utilisation=1.0, scale_survivors=True)
    assert not isinstance(plan, CapacityPlan) or all(0 <= w <= WEIGHT_MAX for w in plan.weights.values())
    assert not isinstance(plan, CapacityPlan) or plan.weights["aws/one"] == 0


def test_a_zones_fair_part_is_by_instances_for_survivors_may_be_scaled() -> None:
    loads = {"aws/two-a": ZoneLoad("aws/two-a", 0.0, 2, 2), "aws/two-b": ZoneLoad("aws/two-b", 60.0, 4, 4)}
    assert 20.0 == fair_rps("aws/two-a", loads, topology(100.0))
