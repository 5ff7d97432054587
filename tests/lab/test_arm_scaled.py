"""What the lab's autoscaler sees of the ARM stand-in, and what its orders do there."""

from __future__ import annotations

import json

from arm_world import SET, World, provisioned

from orchestrator.lab.model import ScaledFleet

ZONE = "azure/eastus-1"
SETTING = f"providers/Microsoft.Insights/autoscaleSettings/{SET}"


def fleet(world: World) -> ScaledFleet:
    return next(f for f in world.azure.fleets() if f.zone == ZONE)


def test_an_autoscaler_sees_the_bounds_of_its_setting_and_is_frozen_by_it():
    with provisioned() as world:
        assert ScaledFleet(ZONE, 3, 3, 3, 9, frozen=False) == fleet(world)
        document = json.loads(world.call("GET", SETTING).body)
        document["properties"]["enabled"] = False
        world.call("PUT", SETTING, document)
        assert fleet(world).frozen


def test_a_scale_set_is_resized_by_a_write_that_changes_its_etag():
    with provisioned() as world:
        path = f"providers/Microsoft.Compute/virtualMachineScaleSets/{SET}"
        before = json.loads(world.call("GET", path).body)
        world.azure.resize(ZONE, 5)
        world.wait(1.0)
        assert (5, 5, "") == (fleet(world).desired, fleet(world).there, fleet(world).refused)
        after = json.loads(world.call("GET", path).body)
        assert before["etag"] != after["etag"]
        assert before["sku"] | {"capacity": 5} == after["sku"]


def test_without_room_the_number_stays_asked_for_and_the_reason_is_told():
    with provisioned() as world:
        world.azure.set_room(ZONE, 4)
        world.azure.resize(ZONE, 6)
        world.wait(1.0)
        assert (6, 4) == (fleet(world).desired, fleet(world).there)
        assert "Allocation failed" in fleet(world).refused
