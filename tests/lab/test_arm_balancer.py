"""The load balancer: who is in its pool, and what admin states mean for the data plane."""

from __future__ import annotations

import json
from typing import Any

import pytest
from arm_world import GROUP, SET, World, new_model, provisioned
from azure.core.exceptions import HttpResponseError

from orchestrator.lab.model import FrontKind

BALANCER = "gates-eastus"
PATH = f"providers/Microsoft.Network/loadBalancers/{BALANCER}"
POOL = f"{PATH}/backendAddressPools/gates"


def pools(world: World):
    return world.clients().network.load_balancer_backend_address_pools


def pool(world: World) -> dict[str, Any]:
    return json.loads(world.call("GET", POOL).body)


def with_states(document: dict[str, Any], **states: str) -> dict[str, Any]:
    """Set the admin state of instances of the first zone: `i0="Down"`."""
    for address in document["properties"]["loadBalancerBackendAddresses"]:
        number = "i" + address["name"].rsplit("_", 1)[-1]
        if f"_{SET}_" in address["name"] and number in states:
            address["properties"]["adminState"] = states[number]
    return document


def test_the_data_plane_gets_one_tcp_front_with_the_probe_in_lab_time():
    with provisioned() as world:
        (front,) = world.azure.desired()[0].fronts
        (only,) = front.pools
    assert (FrontKind.TCP, {"": "127.21.0.20"}, {"gates": 1}) == (front.kind, front.nodes, front.weights)
    assert ("/admit", 0.2, 2, 2) == (only.probe_path, only.probe_interval_s, only.healthy_after, only.unhealthy_after)


def test_the_public_address_is_the_fronts():
    with provisioned() as world:
        found = world.clients().network.public_ip_addresses.get(GROUP, GROUP)
    assert "127.21.0.20" == found.properties.ip_address


def test_instances_of_a_scale_set_are_members_with_admin_state_none():
    with provisioned() as world:
        addresses = pools(world).get(GROUP, BALANCER, "gates").properties.load_balancer_backend_addresses
        members = world.members()
    assert ["None"] * 9 == [a.properties.admin_state for a in addresses]
    assert "127.21.1.10" == addresses[0].properties.ip_address
    assert addresses[0].properties.network_interface_ip_configuration.id.endswith(
        f"/{SET}/virtualMachines/0/networkInterfaces/nic/ipConfigurations/ip"
    )
    assert {"None"} == set(members.values())
    assert 9 == len(members)


def test_an_admin_state_is_shown_at_once_and_reaches_the_data_plane_when_its_operation_ends():
    with provisioned() as world:
        answer = world.call("PUT", POOL, with_states(pool(world), i0="Down"))
        shown = pool(world)
        assert (200, "Updating") == (answer.status, shown["properties"]["provisioningState"])
        assert "Down" == shown["properties"]["loadBalancerBackendAddresses"][0]["properties"]["adminState"]
        assert "None" == world.members()[f"{SET}_0"]
        world.wait(0.2)
        assert {"None", "Down"} == set(world.members().values())
        assert "Down" == world.members()[f"{SET}_0"]
        assert "Succeeded" == pool(world)["properties"]["provisioningState"]


def test_the_sdk_writes_admin_states_with_the_etag_that_it_read():
    with provisioned() as world:
        read = pools(world).get(GROUP, BALANCER, "gates")
        read.properties.load_balancer_backend_addresses[0].properties.admin_state = "Down"
        match = {"If-Match": read.etag}
        pools(world).begin_create_or_update(GROUP, BALANCER, "gates", read, headers=match).result()
        assert "Down" == world.members()[f"{SET}_0"]
        with pytest.raises(HttpResponseError) as caught:
            pools(world).begin_create_or_update(GROUP, BALANCER, "gates", read, headers=match)
        assert (412, "PreconditionFailed") == (caught.value.status_code, caught.value.error.code)


def test_a_write_that_was_built_before_the_fleet_changed_is_412():
    with provisioned() as world:
        read = pool(world)
        world.call("PATCH", f"providers/Microsoft.Compute/virtualMachineScaleSets/{SET}", {"sku": {"capacity": 4}})
        assert 412 == world.call("PUT", POOL, read, if_match=read["etag"]).status


def test_members_cannot_be_dropped_or_invented_in_the_pool():
    with provisioned() as world:
        dropped, invented, moved = pool(world), pool(world), pool(world)
        dropped["properties"]["loadBalancerBackendAddresses"].pop()
        invented["properties"]["loadBalancerBackendAddresses"].append(
            {"name": "x", "properties": {"ipAddress": "1.2.3.4"}}
        )
        moved["properties"]["loadBalancerBackendAddresses"][0]["properties"]["ipAddress"] = "1.2.3.4"
        assert [400, 400, 400] == [world.call("PUT", POOL, body).status for body in (dropped, invented, moved)]
        assert 9 == len(world.members())


def test_admin_states_stay_through_an_upgrade_in_place():
    with provisioned() as world:
        world.call("PUT", POOL, with_states(pool(world), i0="Down", i1="Up"))
        world.wait(0.2)
        sets = world.clients().compute.virtual_machine_scale_sets
        sets.begin_update(GROUP, SET, new_model("v2")).result()
        sets.begin_update_instances(GROUP, SET, {"instanceIds": ["*"]}).result()
        assert ["Down", "Up", "None"] == list(world.members().values())[:3]


def test_a_new_instance_arrives_with_admin_state_none_even_on_a_place_that_was_down():
    with provisioned() as world:
        world.call("PUT", POOL, with_states(pool(world), i0="Down", i1="Down", i2="Down"))
        world.wait(0.2)
        sets = world.clients().compute.virtual_machine_scale_sets
        sets.begin_delete_instances(GROUP, SET, {"instanceIds": ["2"]}).result()
        sets.begin_update(GROUP, SET, {"sku": {"capacity": 3}}).result()
        assert {f"{SET}_0": "Down", f"{SET}_1": "Down", f"{SET}_3": "None"} == {
            k: v for k, v in world.members().items() if k.startswith(SET)
        }


def test_a_later_write_cancels_the_one_at_work_and_carries_what_it_wrote():
    with provisioned() as world:
        first = world.call("PUT", POOL, with_states(pool(world), i0="Down"))
        second = world.call("PUT", POOL, with_states(pool(world), i1="Down"))
        assert [200, 200] == [first.status, second.status]
        world.wait(0.2)
        link = first.headers["Azure-AsyncOperation"].removeprefix("http://azure.lab")
        told = json.loads(world.call("GET", link).body)
        assert "Canceled" == told["status"]
        assert "CanceledAndSupersededDueToAnotherOperation" == told["error"]["details"][0]["code"]
        assert ["Down", "Down", "None"] == list(world.members().values())[:3]


def test_a_write_of_the_load_balancer_keeps_members_and_their_admin_states():
    with provisioned() as world:
        world.call("PUT", POOL, with_states(pool(world), i0="Down"))
        world.wait(0.2)
        document = json.loads(world.call("GET", PATH).body)
        document["properties"]["backendAddressPools"] = [{"name": "gates"}]
        assert 200 == world.call("PUT", PATH, document).status
        world.wait(0.2)
        assert ["Down", "None", "None"] == list(world.members().values())[:3]
        assert 9 == len(pool(world)["properties"]["loadBalancerBackendAddresses"])


def test_without_a_probe_admin_state_has_no_effect():
    with provisioned() as world:
        world.call("PUT", POOL, with_states(pool(world), i0="Down"))
        document = json.loads(world.call("GET", PATH).body)
        del document["properties"]["loadBalancingRules"][0]["properties"]["probe"]
        world.call("PUT", PATH, document)
        world.wait(0.2)
        assert {"Up"} == set(world.members().values())


@pytest.mark.parametrize(
    ("part", "wrong", "word"),
    [
        ("loadBalancingRules", {"probe": {"id": "/nowhere"}}, "InvalidResourceReference"),
        ("frontendIPConfigurations", {"publicIPAddress": {"id": "/nowhere"}}, "InvalidResourceReference"),
        ("probes", {"intervalInSeconds": 1}, "InvalidProbeInterval"),
    ],
)
def test_references_must_lead_somewhere_and_probes_are_not_faster_than_azures(part, wrong, word):
    with provisioned() as world:
        document = json.loads(world.call("GET", PATH).body)
        document["properties"][part][0]["properties"] |= wrong
        answer = world.call("PUT", PATH, document)
        assert (400, word) == (answer.status, json.loads(answer.body)["error"]["code"])


def test_what_a_scale_set_stands_on_cannot_be_deleted():
    with provisioned() as world:
        subnet = "providers/Microsoft.Network/virtualNetworks/gates/subnets/zone-1"
        assert [400, 400, 400] == [world.call("DELETE", p).status for p in (PATH, subnet, subnet.rsplit("/", 2)[0])]


def test_a_subnet_lies_within_its_network():
    with provisioned() as world:
        path = "providers/Microsoft.Network/virtualNetworks/gates/subnets/far"
        answer = world.call("PUT", path, {"properties": {"addressPrefix": "10.0.0.0/24"}})
        assert (400, "NetcfgSubnetRangeOutsideVnet") == (answer.status, json.loads(answer.body)["error"]["code"])
        network = world.clients().network.virtual_networks.get(GROUP, "gates")
        assert ["zone-1", "zone-2", "zone-3"] == [s.name for s in network.properties.subnets]


def test_security_groups_are_kept_as_written():
    with provisioned() as world:
        rules = world.clients().network.network_security_groups.get(GROUP, "gates").properties.security_rules
        assert ["users", "probes"] == [rule.name for rule in rules]
