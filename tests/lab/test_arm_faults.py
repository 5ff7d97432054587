"""Faults on order, and the schemas that keep both sides honest."""

from __future__ import annotations

import json
import time

import pytest
from arm_world import GROUP, SET, new_model, provisioned
from azure.core.exceptions import HttpResponseError

from orchestrator.lab.azure import Fault, FaultKind, views
from orchestrator.lab.azure.schema import Schemas

ALL = {"instanceIds": ["*"]}
PATH = f"providers/Microsoft.Compute/virtualMachineScaleSets/{SET}"


def test_a_throttled_call_says_how_long_to_wait_and_the_sdk_waits_and_tries_again():
    with provisioned() as world:
        world.azure.faults.add(Fault(FaultKind.THROTTLE, "GET", f"{SET}$", count=2, retry_after_s=3))
        began = world.now
        assert SET == world.clients().compute.virtual_machine_scale_sets.get(GROUP, SET).name
        assert [429, 429, 200] == [answer.status for _, _, answer in world.answers]
        assert ["3", "3"] == [answer.headers["Retry-After"] for _, _, answer in world.answers[:2]]
        assert 6 <= world.now - began < 7


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (FaultKind.THROTTLE, 429, "OperationNotAllowed"),
        (FaultKind.CONFLICT, 409, "Conflict"),
        (FaultKind.ERROR, 503, "ServerTimeout"),
        (FaultKind.DENY, 403, "AuthorizationFailed"),
    ],
)
def test_a_refusing_fault_hits_as_often_as_ordered_and_the_call_does_nothing(kind, status, word):
    with provisioned() as world:
        world.azure.faults.add(Fault(kind, "PATCH", count=1))
        refused = world.call("PATCH", PATH, {"tags": {"a": "b"}})
        assert (status, word) == (refused.status, json.loads(refused.body)["error"]["code"])
        assert "a" not in json.loads(world.call("GET", PATH).body)["tags"]
        assert 200 == world.call("PATCH", PATH, {"tags": {"a": "b"}}).status


def test_a_fault_hits_only_the_method_and_path_that_it_names():
    with provisioned() as world:
        world.azure.faults.add(Fault(FaultKind.ERROR, "GET", "eastus-2$", status=500))
        assert 200 == world.call("GET", PATH).status
        assert 500 == world.call("GET", PATH.replace("-1", "-2")).status


def test_a_stale_read_answers_as_before_the_fault_was_set():
    with provisioned() as world:
        world.call("GET", PATH)
        world.azure.faults.add(Fault(FaultKind.STALE, "GET", f"{SET}$", count=2))
        world.call("PATCH", PATH, {"tags": {"a": "b"}})
        tags = [json.loads(world.call("GET", PATH).body)["tags"].get("a") for _ in range(3)]
    assert [None, None, "b"] == tags


def test_an_operation_can_be_made_to_fail_without_doing_its_work():
    with provisioned() as world:
        sets = world.clients().compute.virtual_machine_scale_sets
        sets.begin_update(GROUP, SET, new_model("v2")).result()
        world.azure.faults.add(Fault(FaultKind.FAIL, "POST", "/manualupgrade$", code="InternalExecutionError"))
        poller = sets.begin_update_instances(GROUP, SET, ALL)
        with pytest.raises(HttpResponseError) as caught:
            poller.result()
        assert "InternalExecutionError" == caught.value.error.code
        assert {"v1"} == {i.version for i in world.instances()}
        assert ["started", "failed"] == [line["state"] for line in world.timeline.of("refresh")]


def test_an_operation_can_hang_although_its_work_is_done():
    with provisioned() as world:
        sets = world.clients().compute.virtual_machine_scale_sets
        sets.begin_update(GROUP, SET, new_model("v2")).result()
        world.azure.faults.add(Fault(FaultKind.HANG, "POST", "/manualupgrade$"))
        accepted = world.call("POST", f"{PATH}/manualupgrade", ALL)
        world.wait(120)
        link = accepted.headers["Azure-AsyncOperation"].removeprefix("http://azure.lab")
        assert "InProgress" == json.loads(world.call("GET", link).body)["status"]
        assert {"v2"} == {i.version for i in world.instances()}
        assert ["started", "finished"] == [line["state"] for line in world.timeline.of("refresh")]


def test_a_failing_write_of_admin_states_never_reaches_the_data_plane():
    with provisioned() as world:
        pools = world.clients().network.load_balancer_backend_address_pools
        read = pools.get(GROUP, "gates-eastus", "gates")
        read.properties.load_balancer_backend_addresses[0].properties.admin_state = "Down"
        world.azure.faults.add(Fault(FaultKind.FAIL, "PUT", "/backendAddressPools/"))
        poller = pools.begin_create_or_update(GROUP, "gates-eastus", "gates", read)
        with pytest.raises(HttpResponseError):
            poller.result()
        world.wait(1)
        assert {"None"} == set(world.members().values())
        assert "Failed" == pools.get(GROUP, "gates-eastus", "gates").properties.provisioning_state


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"sku": {"capacity": "three"}}, "sku.capacity"),
        ({"propertys": {}}, "propertys"),
        ({"properties": {"upgradePolicy": {"mode": "Sometimes"}}}, "properties.upgradePolicy.mode"),
        ({"tags": ["a"]}, "tags"),
    ],
)
def test_a_request_that_the_sdks_models_do_not_allow_is_400_and_names_the_place(body, place):
    with provisioned() as world:
        answer = world.call("PATCH", PATH, body)
        error = json.loads(answer.body)["error"]
        assert (400, "InvalidRequestContent") == (answer.status, error["code"])
        assert place in error["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_json_object_is_400(body):
    with provisioned() as world:
        assert 400 == world.call("PATCH", PATH, body).status


def test_a_required_field_that_is_missing_is_caught():
    with provisioned() as world:
        assert 400 == world.call("POST", f"{PATH}/delete", {}).status


def test_a_defect_in_the_stand_ins_own_reply_is_a_logged_500_and_not_a_reply(monkeypatch, caplog):
    real = views.instance

    def defective(*args, **shown):
        body = real(*args, **shown)
        body["properties"]["latestmodelapplied"] = body["properties"].pop("latestModelApplied")
        return body

    with provisioned() as world:
        assert 200 == world.call("GET", f"{PATH}/virtualMachines").status
        monkeypatch.setattr(views, "instance", defective)
        answer = world.call("GET", f"{PATH}/virtualMachines")
    assert (500, "SchemaViolation") == (answer.status, json.loads(answer.body)["error"]["code"])
    assert "latestmodelapplied" in caplog.text


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "POST", "DELETE"])
def test_every_route_names_models_that_the_sdk_has(verb):
    schemas = Schemas()
    with provisioned() as world:
        routes = [route for route, _ in world.azure._router._routes if route.method == verb]
    assert routes
    for name in {n for route in routes for n in (route.takes, route.gives) if n}:
        assert schemas.errors(name, {"no such member": 1})


def test_checking_a_pool_costs_about_a_millisecond():
    schemas = Schemas()
    with provisioned() as world:
        answer = world.call("GET", "providers/Microsoft.Network/loadBalancers/gates-eastus/backendAddressPools/gates")
    body = json.loads(answer.body)
    assert [] == schemas.errors("network:BackendAddressPool", body)
    began = time.perf_counter()
    for _ in range(50):
        schemas.errors("network:BackendAddressPool", body)
    assert (time.perf_counter() - began) / 50 < 0.02
