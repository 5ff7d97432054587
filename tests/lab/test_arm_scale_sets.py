"""Scale sets: what happens to instances when their model, their number or their health changes."""

from __future__ import annotations

import json

import pytest
from arm_world import GROUP, SET, World, new_model, provisioned
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError

from orchestrator.lab.azure.arm import merged

ALL = {"instanceIds": ["*"]}


def sets(world: World, **options):
    return world.clients(**options).compute.virtual_machine_scale_sets


def vms(world: World, **options):
    return list(world.clients().compute.virtual_machine_scale_set_vms.list(GROUP, SET, **options))


def failure(poller) -> str:
    with pytest.raises(HttpResponseError) as caught:
        poller.result()
    return f"{caught.value.error.code}: {caught.value.error.message}"


def test_the_topology_document_says_what_was_built():
    world = World()
    document = world.provision()
    assert "azure/eastus" == document["id"]
    assert ["azure/eastus-1", "azure/eastus-2", "azure/eastus-3"] == [z["id"] for z in document["zones"]]
    assert "http://127.21.0.5:7070" == document["agent_url"]
    assert {"scale_set": SET, "autoscale_setting": SET} == document["zones"][0]["fleet"]
    assert ["127.21.1.10", "127.21.1.11", "127.21.1.12"] == [i.address for i in world.instances()]
    assert ["v1"] * 3 == [i.version for i in world.instances()]


@pytest.mark.parametrize(
    "change",
    [
        {"tags": {"failout-release": "v2"}},
        {"properties": {"virtualMachineProfile": {"userData": "VkVSU0lPTj12Mgo="}}},
        {"properties": {"virtualMachineProfile": {"storageProfile": {"imageReference": {"version": "2.0.0"}}}}},
    ],
    ids=["tags", "user data", "image"],
)
def test_a_new_model_leaves_instances_as_they_are_and_no_longer_on_the_latest_model(change):
    with provisioned() as world:
        before = world.instances()
        sets(world).begin_update(GROUP, SET, change).result()
        assert [False] * 3 == [vm.properties.latest_model_applied for vm in vms(world)]
        assert before == world.instances()


def test_capacity_and_policies_are_not_part_of_the_model():
    with provisioned() as world:
        policy = {"properties": {"automaticRepairsPolicy": {"enabled": True, "gracePeriod": "PT30M"}}}
        sets(world).begin_update(GROUP, SET, policy | {"sku": {"capacity": 4}}).result()
        assert [True] * 4 == [vm.properties.latest_model_applied for vm in vms(world)]


def test_an_upgrade_replaces_all_named_machines_at_once_in_place():
    with provisioned() as world:
        before = world.instances()
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        sets(world).begin_update_instances(GROUP, SET, ALL, polling=False)
        assert ["Updating"] * 3 == [vm.properties.provisioning_state for vm in vms(world)]
        world.wait(1)
        after = world.instances()
        assert ["v2"] * 3 == [i.version for i in after]
        assert [2] * 3 == [i.incarnation for i in after]
        assert [(i.id, i.address) for i in before] == [(i.id, i.address) for i in after]
        shown = vms(world, expand="instanceView")
        assert [(True, "Succeeded")] * 3 == [
            (vm.properties.latest_model_applied, vm.properties.provisioning_state) for vm in shown
        ]
        assert ["v2"] * 3 == [vm.tags["failout-release"] for vm in shown]


def test_an_upgrade_leaves_alone_what_is_on_the_latest_model_and_what_is_not_named():
    with provisioned() as world:
        sets(world).begin_update_instances(GROUP, SET, ALL).result()
        assert [1, 1, 1] == [i.incarnation for i in world.instances()]
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        sets(world).begin_update_instances(GROUP, SET, {"instanceIds": ["1"]}).result()
        assert [1, 2, 1] == [i.incarnation for i in world.instances()]


def test_user_data_alone_restarts_nothing_and_is_read_when_the_machine_starts_next():
    with provisioned() as world:
        change = {"properties": {"virtualMachineProfile": {"userData": "VkVSU0lPTj12Mgo="}}}
        sets(world).begin_update(GROUP, SET, change).result()
        sets(world).begin_update_instances(GROUP, SET, ALL).result()
        assert [("v1", 1)] * 3 == [(i.version, i.incarnation) for i in world.instances()]
        sets(world).begin_restart(GROUP, SET, {"instanceIds": ["0"]}).result()
        assert [("v2", 2), ("v1", 1), ("v1", 1)] == [(i.version, i.incarnation) for i in world.instances()]


def test_a_report_about_the_old_process_does_not_end_an_upgrade():
    with provisioned() as world:
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        old = world._seen(world.azure.desired()[0])
        sets(world).begin_update_instances(GROUP, SET, ALL, polling=False)
        world.azure.observe(old)
        assert ["Updating"] * 3 == [vm.properties.provisioning_state for vm in vms(world)]


def test_an_upgrade_whose_machines_do_not_come_up_ends_failed_after_the_boot_timeout():
    with provisioned(boot_timeout_s=5) as world:
        world.stuck.add("v2")
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        began = world.now
        said = failure(sets(world).begin_update_instances(GROUP, SET, ALL))
        assert said.startswith("OSProvisioningTimedOut: OS provisioning for VM gates-eastus-1_0")
        assert 5 <= world.now - began < 6
        assert ["Failed"] * 3 == [vm.properties.provisioning_state for vm in vms(world)]
        refreshes = [(line["state"], line["version"]) for line in world.timeline.of("refresh")]
        assert [("started", "v2"), ("failed", "v2")] == refreshes
        world.stuck.clear()
        world.wait(5)
        assert ["Failed"] * 3 == [vm.properties.provisioning_state for vm in vms(world)], "until it is written anew"
        sets(world).begin_update_instances(GROUP, SET, ALL).result()
        assert [("Succeeded", True)] * 3 == [
            (vm.properties.provisioning_state, vm.properties.latest_model_applied) for vm in vms(world)
        ]


def test_a_newer_upgrade_preempts_the_one_at_work():
    with provisioned(boot_timeout_s=20) as world:
        world.stuck.add("v2")
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        sets(world).begin_update_instances(GROUP, SET, ALL, polling=False)
        world.wait(1)
        sets(world).begin_update(GROUP, SET, new_model("v3")).result()
        sets(world).begin_update_instances(GROUP, SET, ALL).result()
        assert {"v3"} == {i.version for i in world.instances()}
        assert [("started", "v2"), ("cancelled", "v2"), ("started", "v3"), ("finished", "v3")] == [
            (line["state"], line["version"]) for line in world.timeline.of("refresh")
        ]
        assert {"azure/eastus-1"} == {line["zone"] for line in world.timeline.of("refresh")}


def test_a_rolling_upgrade_goes_batch_by_batch_and_reports_how_far_it_is():
    with provisioned() as world:
        rolling = world.clients().compute.virtual_machine_scale_set_rolling_upgrades
        policy = {"upgradePolicy": {"mode": "Manual", "rollingUpgradePolicy": {"maxBatchInstancePercent": 34}}}
        model = new_model("v2")
        model["properties"] |= policy
        sets(world).begin_update(GROUP, SET, model).result()
        rolling.begin_start_os_upgrade(GROUP, SET, polling=False)
        at_work = rolling.get_latest(GROUP, SET).properties
        assert ("RollingForward", 2, 1) == (
            at_work.running_status.code,
            at_work.progress.in_progress_instance_count,
            at_work.progress.pending_instance_count,
        )
        world.wait(0.5)
        assert [2, 2, 2] == [i.incarnation for i in world.instances()]
        world.wait(0.5)
        latest = rolling.get_latest(GROUP, SET).properties
        assert ("Completed", 3) == (latest.running_status.code, latest.progress.successful_instance_count)


def test_a_cancelled_rolling_upgrade_stops_after_the_batch_at_work():
    with provisioned() as world:
        rolling = world.clients().compute.virtual_machine_scale_set_rolling_upgrades
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        rolling.begin_start_os_upgrade(GROUP, SET, polling=False)
        rolling.begin_cancel(GROUP, SET).result()
        assert ["v1", "v1", "v2"] == sorted(i.version for i in world.instances())
        assert "Cancelled" == rolling.get_latest(GROUP, SET).properties.running_status.code
        assert "cancelled" == world.timeline.of("refresh")[-1]["state"]


def test_more_capacity_launches_instances_of_the_newest_model_on_addresses_of_their_own():
    with provisioned() as world:
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        sets(world).begin_update(GROUP, SET, {"sku": {"capacity": 5}}).result()
        assert ["v1", "v1", "v1", "v2", "v2"] == [i.version for i in world.instances()]
        assert ["127.21.1.13", "127.21.1.14"] == [i.address for i in world.instances()][3:]


def test_less_capacity_ends_the_newest_instances_and_a_later_one_does_not_take_their_address_at_once():
    with provisioned() as world:
        sets(world).begin_update(GROUP, SET, {"sku": {"capacity": 2}}).result()
        sets(world).begin_update(GROUP, SET, {"sku": {"capacity": 3}}).result()
        assert [f"{SET}_0", f"{SET}_1", f"{SET}_3"] == [i.id for i in world.instances()]
        assert "127.21.1.13" == world.instances()[-1].address


def test_named_instances_can_be_deleted_and_capacity_shrinks_with_them():
    with provisioned() as world:
        sets(world).begin_delete_instances(GROUP, SET, {"instanceIds": ["1"]}).result()
        assert [f"{SET}_0", f"{SET}_2"] == [i.id for i in world.instances()]
        assert 2 == sets(world).get(GROUP, SET).sku.capacity


def test_a_zone_without_room_ends_the_operation_in_allocation_failed():
    with provisioned() as world:
        world.azure.set_room("azure/eastus-1", 4)
        said = failure(sets(world).begin_update(GROUP, SET, {"sku": {"capacity": 6}}))
        assert said.startswith("AllocationFailed")
        assert 4 == len(world.instances())
        assert "Failed" == sets(world).get(GROUP, SET).properties.provisioning_state


def test_more_than_the_quota_is_refused_at_once():
    with provisioned() as world:
        world.azure.set_quota("eastus", 9)
        with pytest.raises(HttpResponseError) as caught:
            sets(world).begin_update(GROUP, SET, {"sku": {"capacity": 4}})
        assert (409, "OperationNotAllowed") == (caught.value.status_code, caught.value.error.code)
        assert "quota" in caught.value.error.message
        assert 3 == len(world.instances())


def test_a_stale_etag_is_412_and_changes_nothing():
    with provisioned() as world:
        stale = sets(world).get(GROUP, SET).etag
        sets(world).begin_update(GROUP, SET, {"tags": {"a": "1"}}).result()
        with pytest.raises(ResourceModifiedError):
            sets(world).begin_update(
                GROUP, SET, {"tags": {"a": "2"}}, etag=stale, match_condition=MatchConditions.IfNotModified
            )
        assert "1" == sets(world).get(GROUP, SET).tags["a"]


def test_a_scale_set_stays_in_its_zone():
    with provisioned() as world:
        path = f"providers/Microsoft.Compute/virtualMachineScaleSets/{SET}"
        answer = world.call("PUT", path, json.loads(world.call("GET", path).body) | {"zones": ["2"]})
        assert (409, "PropertyChangeNotAllowed") == (answer.status, json.loads(answer.body)["error"]["code"])


def test_user_data_is_shown_only_when_asked_for():
    with provisioned() as world:
        plain = sets(world).get(GROUP, SET).properties.virtual_machine_profile
        told = sets(world).get(GROUP, SET, expand="userData").properties.virtual_machine_profile
        assert (None, "VkVSU0lPTj12MQo=") == (plain.user_data, told.user_data)


def test_health_is_what_healthz_says_and_a_machine_that_does_not_answer_is_unhealthy():
    with provisioned() as world:
        world.sick.add(f"{SET}_1")
        world.wait(0.1)
        codes = [vm.properties.instance_view.vm_health.status.code for vm in vms(world, expand="instanceView")]
        assert ["HealthState/healthy", "HealthState/unhealthy", "HealthState/healthy"] == codes


def test_an_instance_that_is_unhealthy_beyond_the_grace_is_replaced():
    with provisioned() as world:  # ten minutes of Azure are 24 s of the lab
        world.sick.add(f"{SET}_1")
        world.wait(20)
        assert 3 == len(world.instances())
        world.wait(6)
        assert [f"{SET}_0", f"{SET}_2", f"{SET}_3"] == [i.id for i in world.instances()]
        assert [{"zone": "azure/eastus-1", "instance": f"{SET}_1", "action": "Replace"}] == world.timeline.of("repair")


def test_suspended_repairs_leave_a_sick_instance_alone_until_they_are_resumed():
    with provisioned() as world:
        state = {"serviceName": "AutomaticRepairs"}
        sets(world).begin_set_orchestration_service_state(GROUP, SET, state | {"action": "Suspend"}).result()
        service = sets(world).get_instance_view(GROUP, SET).orchestration_services[0]
        assert ("AutomaticRepairs", "Suspended") == (service.service_name, service.service_state)
        world.sick.add(f"{SET}_1")
        world.wait(60)
        assert f"{SET}_1" in [i.id for i in world.instances()]
        sets(world).begin_set_orchestration_service_state(GROUP, SET, state | {"action": "Resume"}).result()
        assert "Running" == sets(world).get_instance_view(GROUP, SET).orchestration_services[0].service_state
        world.wait(1)
        assert f"{SET}_1" not in [i.id for i in world.instances()]


def test_addresses_are_read_from_the_interfaces_and_stay_through_an_upgrade():
    def addresses(world: World) -> dict[str, str]:
        nics = world.clients().network.network_interfaces
        found = nics.list_virtual_machine_scale_set_network_interfaces(GROUP, SET)
        return {
            nic.properties.virtual_machine.id.rsplit("/", 1)[-1]: nic.properties.ip_configurations[
                0
            ].properties.private_ip_address
            for nic in found
        }

    with provisioned() as world:
        before = addresses(world)
        assert {"0": "127.21.1.10", "1": "127.21.1.11", "2": "127.21.1.12"} == before
        sets(world).begin_update(GROUP, SET, new_model("v2")).result()
        sets(world).begin_update_instances(GROUP, SET, ALL).result()
        assert before == addresses(world)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"properties": {"orchestrationMode": "Flexible"}}, "Uniform"),
        ({"zones": ["1", "2"]}, "exactly one zone"),
        ({"location": "mars"}, "not available"),
        ({"properties": {"virtualMachineProfile": {"userData": "VERSION=v1"}}}, "base64"),
        ({"properties": {"automaticRepairsPolicy": {"enabled": True, "gracePeriod": "PT5M"}}}, "PT10M"),
    ],
)
def test_what_azure_or_the_lab_cannot_do_is_refused_with_the_reason(change, word):
    with provisioned() as world:
        path = f"providers/Microsoft.Compute/virtualMachineScaleSets/{SET}"
        body = json.loads(world.call("GET", path).body)
        answer = world.call("PUT", path, merged(body, change))
        assert 400 == answer.status
        assert word in answer.body.decode()
        assert 3 == len(world.instances())
