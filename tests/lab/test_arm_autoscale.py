"""Autoscale settings of the emulated Azure: one for a scale set, kept as written, refused where Azure would refuse."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from arm_world import GROUP, SET, World, provisioned

from orchestrator.lab.azure import Fault, FaultKind

API = "2022-10-01"
ONE = f"providers/Microsoft.Insights/autoscaleSettings/{SET}"


def ask(world: World, method: str, path: str = ONE, body: Any = None) -> tuple[int, Any]:
    answer = world.call(method, path, body, api=API)
    return answer.status, json.loads(answer.body) if answer.body else None


def written(world: World) -> dict[str, Any]:
    """The setting of the first zone, in the form in which it is put."""
    told = ask(world, "GET")[1]
    return {key: told[key] for key in ("location", "properties")}


def test_each_zone_is_born_with_a_setting_that_scales_its_own_set_between_its_bounds():
    with provisioned() as world:
        told = world.azure.autoscalers()
    assert [(f"azure/eastus-{n}", GROUP, f"gates-eastus-{n}", 3, True, 3, 9) for n in (1, 2, 3)] == [
        (a.zone, a.group, a.scale_set, a.capacity, a.enabled, a.minimum, a.maximum) for a in told
    ]
    rules = [(r["metricTrigger"]["threshold"], r["scaleAction"]["direction"]) for r in told[0].profile["rules"]]
    assert [(50.0, "Increase"), (25.0, "Decrease")] == rules


def test_a_setting_is_shown_as_written_with_its_names():
    with provisioned() as world:
        status, told = ask(world, "GET")
        assert (200, SET, "Microsoft.Insights/autoscaleSettings") == (status, told["name"], told["type"])
        assert told["id"] == f"{world.group}/{ONE}"
        assert SET == told["properties"]["name"]
        assert (200, told) == ask(world, "PUT", body=written(world))
        assert [told["name"]] == [s["name"] for s in ask(world, "GET", ONE.rpartition("/")[0])[1]["value"]][:1]
        of_all = f"/subscriptions/{world.azure.subscription_id}/{ONE.rpartition('/')[0]}"
        assert 3 == len(ask(world, "GET", of_all)[1]["value"])


def test_patch_changes_what_it_names_and_needs_the_profiles_as_the_specification_says():
    with provisioned() as world:
        before = written(world)["properties"]
        status, told = ask(world, "PATCH", body={"properties": {"profiles": before["profiles"], "enabled": False}})
        assert (200, {**before, "enabled": False}) == (status, told["properties"])
        assert 400 == ask(world, "PATCH", body={"properties": {"enabled": True}})[0]
        assert [False, True, True] == [a.enabled for a in world.azure.autoscalers()]


def test_deleting_is_200_and_of_nothing_204_and_the_name_may_be_used_again():
    with provisioned() as world:
        body = written(world)
        assert (200, 204, 404) == (ask(world, "DELETE")[0], ask(world, "DELETE")[0], ask(world, "GET")[0])
        assert 2 == len(world.azure.autoscalers())
        assert 201 == ask(world, "PUT", body=body)[0]


def test_enabled_is_true_unless_said_otherwise():
    with provisioned() as world:
        body = written(world)
        del body["properties"]["enabled"]
        assert ask(world, "PUT", body=body)[1]["properties"]["enabled"] is True


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"capacity": {"minimum": "5", "maximum": "4", "default": "5"}}, (400, "BadRequest")),
        ({"capacity": {"minimum": "3", "maximum": "9", "default": "2"}}, (400, "BadRequest")),
        ({"capacity": {"minimum": 3, "maximum": 9, "default": 3}}, (400, "InvalidRequestContent")),
        ({"colour": "red"}, (400, "InvalidRequestContent")),
    ],
    ids=["minimum above maximum", "default below minimum", "numbers instead of texts", "an unknown field"],
)
def test_a_wrong_profile_is_refused_and_changes_nothing(change: dict[str, Any], told: tuple[int, str]):
    with provisioned() as world:
        before = written(world)
        body = copy.deepcopy(before)
        body["properties"]["profiles"][0] |= change
        status, answer = ask(world, "PUT", body=body)
        assert told == (status, answer["error"]["code"])
        assert before == written(world)


def test_a_scale_set_has_one_setting_and_a_setting_a_scale_set_that_is_there():
    with provisioned() as world:
        body = written(world)
        assert 409 == ask(world, "PUT", ONE + "-2", body)[0]
        body["properties"]["targetResourceUri"] += "-gone"
        assert 400 == ask(world, "PUT", ONE + "-2", body)[0]


def test_the_profile_in_force_is_the_one_without_a_date():
    with provisioned() as world:
        body = written(world)
        night = {**copy.deepcopy(body["properties"]["profiles"][0]), "name": "night", "recurrence": {}}
        night["capacity"] = {"minimum": "1", "maximum": "2", "default": "1"}
        night["recurrence"] = {"frequency": "Week", "schedule": {}}
        body["properties"]["profiles"].insert(0, night)
        ask(world, "PUT", body=body)
        first = world.azure.autoscalers()[0]
        assert (3, 9, "cpu") == (first.minimum, first.maximum, first.profile["name"])


def test_faults_hit_settings_as_they_hit_all_else():
    with provisioned() as world:
        world.azure.faults.add(Fault(FaultKind.THROTTLE, "PATCH", "/autoscaleSettings/", retry_after_s=2))
        answer = world.call("PATCH", ONE, {}, api=API)
        assert (429, "2") == (answer.status, answer.headers["Retry-After"])


def test_settings_go_with_their_group():
    with provisioned() as world:
        world.call("DELETE", world.group)
        assert () == world.azure.autoscalers()
