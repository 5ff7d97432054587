"""The emulated Azure answers with the status codes, headers and words of the real one."""

from __future__ import annotations

import json

import pytest
from arm_world import GROUP, SET, Told, World, new_model, provisioned
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

from orchestrator.lab.azure.plane import Answer
from orchestrator.lab.credential import LabCredential

SETS = "providers/Microsoft.Compute/virtualMachineScaleSets"


def code(answer: Answer) -> str:
    return str(json.loads(answer.body)["error"]["code"])


def test_a_scale_set_is_created_with_201_and_updated_with_200_each_with_an_operation_to_follow():
    world = World()
    world.provision()
    puts = [a for method, path, a in world.answers if method == "PUT" and "/virtualMachineScaleSets/" in path]
    assert [201, 201, 201] == [a.status for a in puts]
    patch = world.call("PATCH", f"{SETS}/{SET}", {"tags": {"a": "b"}})
    assert 200 == patch.status
    for answer in [*puts, patch]:
        assert "/providers/Microsoft.Compute/locations/eastus/operations/" in answer.headers["Azure-AsyncOperation"]
        assert "100" == answer.headers["retry-after-ms"]
        assert "Location" not in answer.headers
        assert "x-ms-ratelimit-remaining-resource" in answer.headers


@pytest.mark.parametrize("action", ["manualupgrade", "reimage", "restart", "delete"])
def test_actions_on_instances_are_accepted_with_202_and_both_links(action):
    with provisioned() as world:
        answer = world.call("POST", f"{SETS}/{SET}/{action}", {"instanceIds": ["0"]})
    assert (202, b"") == (answer.status, answer.body)
    assert answer.headers["Location"] == answer.headers["Azure-AsyncOperation"] + "&monitor=true"


def test_deleting_is_accepted_with_202_and_again_says_204():
    with provisioned() as world:
        assert 202 == world.call("DELETE", f"{SETS}/{SET}").status
        assert 204 == world.call("DELETE", f"{SETS}/{SET}").status
        assert [] == world.instances()


def test_an_operation_is_in_progress_with_a_hint_when_to_ask_again_and_then_succeeded_without():
    with provisioned() as world:
        world.call("PATCH", f"{SETS}/{SET}", new_model("v2"))
        accepted = world.call("POST", f"{SETS}/{SET}/manualupgrade", {"instanceIds": ["*"]})
        link = accepted.headers["Azure-AsyncOperation"].removeprefix("http://azure.lab")
        working, monitor = world.call("GET", link), world.call("GET", link + "&monitor=true")
        world.wait(1)
        done, result = world.call("GET", link), world.call("GET", link + "&monitor=true")
    assert "InProgress" == json.loads(working.body)["status"]
    assert "retry-after-ms" in working.headers
    assert 202 == monitor.status
    assert {"name", "status", "startTime", "endTime"} == json.loads(done.body).keys()
    assert "Succeeded" == json.loads(done.body)["status"]
    assert "retry-after-ms" not in done.headers
    assert 204 == result.status


def test_an_operation_survives_its_client_and_is_followed_by_a_new_one_from_its_token():
    with provisioned() as world:
        first = world.clients().compute.virtual_machine_scale_sets
        first.begin_update(GROUP, SET, new_model("v2")).result()
        token = first.begin_update_instances(GROUP, SET, {"instanceIds": ["*"]}).continuation_token()
        second = world.clients().compute.virtual_machine_scale_sets
        poller = second.begin_update_instances(GROUP, SET, {"instanceIds": ["*"]}, continuation_token=token)
        poller.result()
        posts = [path for method, path, _ in world.answers if method == "POST"]
    assert "Succeeded" == poller.status()
    assert 1 == len(posts)
    assert {"v2"} == {i.version for i in world.instances()}


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        (f"{SETS}/nothing", 404, "ResourceNotFound"),
        (f"{SETS}/{SET}/virtualMachines/99", 404, "NotFound"),
        ("providers/Microsoft.Compute/virtualUnicorns/x", 404, "InvalidResourceType"),
        ("/subscriptions/other/resourceGroups/gates-eastus/" + f"{SETS}/{SET}", 404, "SubscriptionNotFound"),
        ("/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/x/" + SETS, 404, "ResourceGroupNotFound"),
        (f"{SETS}/{SET}/rollingUpgrades/latest", 404, "NotFound"),
    ],
)
def test_what_does_not_exist_is_named_in_arms_words(path, status, word):
    with provisioned() as world:
        answer = world.call("GET", path)
    assert (status, word) == (answer.status, code(answer))


def test_a_method_that_a_resource_does_not_know_is_405():
    with provisioned() as world:
        assert 405 == world.call("DELETE", f"{SETS}/{SET}/instanceView").status


def test_a_request_without_an_api_version_is_refused():
    with provisioned() as world:
        assert "MissingApiVersionParameter" == code(world.call("GET", f"{SETS}/{SET}", api=""))


def test_a_request_without_a_token_is_401():
    with provisioned() as world:
        answer = world.call("GET", f"{SETS}/{SET}", authorization="")
    assert (401, "AuthenticationFailed") == (answer.status, code(answer))
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_tokens_can_be_made_to_expire_and_a_new_one_is_taken():
    with provisioned() as world:
        old = world.clients().compute.virtual_machine_scale_sets
        new = world.clients(LabCredential(lifetime_s=60)).compute.virtual_machine_scale_sets
        assert SET == old.get(GROUP, SET).name == new.get(GROUP, SET).name
        world.azure.expire_tokens()
        with pytest.raises(ClientAuthenticationError) as caught:
            old.get(GROUP, SET)
        assert "ExpiredAuthenticationToken" in str(caught.value)
        assert SET == new.get(GROUP, SET).name


def test_reads_beyond_the_limit_are_429_with_a_time_to_wait_and_then_allowed_again():
    with provisioned() as world:
        answers = [world.call("GET", f"{SETS}/{SET}") for _ in range(260)]
        refused = answers[-1]
        assert (429, "SubscriptionRequestsThrottled") == (refused.status, code(refused))
        assert 0 < int(refused.headers["retry-after-ms"]) <= 40
        world.wait(1)
        allowed = world.call("GET", f"{SETS}/{SET}")
    assert 200 == allowed.status
    assert 24 == int(allowed.headers["x-ms-ratelimit-remaining-subscription-reads"])


def test_the_sdk_maps_what_it_is_told_to_its_own_errors():
    with provisioned() as world:
        with pytest.raises(ResourceNotFoundError):
            world.clients().compute.virtual_machine_scale_sets.get(GROUP, "nothing")
        with pytest.raises(HttpResponseError) as caught:
            world.clients().compute.virtual_machine_scale_sets.begin_update_instances(
                GROUP, SET, {"instanceIds": ["7"]}
            )
    assert "InvalidParameter" == caught.value.error.code


def test_every_call_is_in_the_timeline_with_its_name_in_azures_specification():
    with provisioned() as world:
        assert isinstance(world.timeline, Told)
        world.timeline.lines.clear()
        world.call("GET", f"{SETS}/{SET}")
        world.call("GET", f"{SETS}/nothing")
        told = world.timeline.of("api")
    assert [("azure", "VirtualMachineScaleSets_Get", 200), ("azure", "VirtualMachineScaleSets_Get", 404)] == [
        (line["cloud"], line["call"], line["status"]) for line in told
    ]
    assert all(0 <= line["ms"] < 1000 for line in told)


def test_deleting_the_resource_group_takes_everything_with_it():
    with provisioned() as world:
        assert 202 == world.call("DELETE", world.group).status
        assert 404 == world.call("GET", world.group).status
        assert ((), ()) == (world.azure.desired()[0].instances, world.azure.desired()[0].fronts)
