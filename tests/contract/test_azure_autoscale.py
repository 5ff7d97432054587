"""Azure Monitor's autoscaler beside Failout: frozen with the zone, kept from undoing a scale-out, and never waited for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.rest import HttpRequest
from azure_rig import AzureRig, azure_rig
from contract_rig import OpenFence, until
from test_azure_edges import error_of

from orchestrator.clouds.azure.autoscale import _find
from orchestrator.clouds.azure.inspect import AzureInspector
from orchestrator.clouds.azure.machines import scale_set
from orchestrator.core.errors import Denied, NoCapacity, Transient
from orchestrator.lab.azure import Fault, FaultKind
from orchestrator.lab.azure.autoscale import Autoscaler
from orchestrator.ports import FleetSeen

SETTINGS = "/autoscaleSettings"
API = {"api-version": "2022-10-01"}


@pytest.fixture
def rig() -> Iterator[AzureRig]:
    with azure_rig() as rig:
        yield rig


def told(rig: AzureRig) -> Autoscaler:
    """The setting of the rig's zone, as the emulated Azure has it."""
    return next(a for a in rig.emulated.autoscalers() if a.zone == rig.zone.id)


def by_hand(rig: AzureRig, method: str, body: Any = None, name: str = "gates-eastus-1") -> dict[str, Any]:
    front = rig.region.front
    group = f"/subscriptions/{front['subscription_id']}/resourceGroups/{front['resource_group']}"
    path = f"{group}/providers/Microsoft.Insights{SETTINGS}/{name}"
    content = b"" if body is None else json.dumps(body).encode()
    answer = rig.emulated.handle(method, path, API, {"authorization": "Bearer hand"}, content)
    assert answer.status < 300, answer.body
    shown: dict[str, Any] = json.loads(answer.body or b"{}")
    return shown


def freeze(rig: AzureRig, *, enabled: bool = False) -> None:
    asyncio.run(rig.fleet.set_autoscaling(rig.zone, enabled=enabled, fence=OpenFence()))


def describe(rig: AzureRig) -> FleetSeen:
    return asyncio.run(rig.fleet.describe(rig.zone))


def scale(rig: AzureRig, instances: int) -> None:
    asyncio.run(rig.fleet.scale(rig.zone, instances, OpenFence()))


def test_freezing_a_zone_switches_off_its_own_setting_and_changes_nothing_else_of_it(rig: AzureRig) -> None:
    before = by_hand(rig, "GET")
    freeze(rig)
    assert [False, True, True] == [a.enabled for a in rig.emulated.autoscalers()]
    freeze(rig, enabled=True)
    assert before == by_hand(rig, "GET")


def test_a_setting_is_found_by_its_target_whatever_its_name_is(rig: AzureRig) -> None:
    shown = by_hand(rig, "GET")
    by_hand(rig, "DELETE")
    shown["properties"]["targetResourceUri"] = shown["properties"]["targetResourceUri"].upper()
    by_hand(rig, "PUT", {key: shown[key] for key in ("location", "properties")}, "by-cpu")
    freeze(rig)
    assert by_hand(rig, "GET", name="by-cpu")["properties"]["enabled"] is False


def test_a_setting_on_a_later_page_is_found_and_nobody_elses_host_is_asked(rig: AzureRig) -> None:
    """The link to the next page may name any host; only its path is followed."""
    shown = by_hand(rig, "GET")
    pages = {
        "page=1": {"value": [], "nextLink": "https://elsewhere.example/settings?page=2"},
        "page=2": {"value": [shown]},
    }
    asked: list[str] = []

    class Pages:
        """A client that answers from `pages`."""

        compute = property(lambda self: self)

        def send_request(self, request: HttpRequest) -> Any:
            asked.append(request.url)
            page = pages[request.url.partition("?")[2] if "settings" in request.url else "page=1"]
            return SimpleNamespace(status_code=200, json=lambda: page)

    place = scale_set(rig.azure, rig.region, rig.zone)
    found = _find(Pages(), place)  # type: ignore[arg-type]
    assert (found and found.name, asked[1]) == ("gates-eastus-1", "/settings?page=2")


def test_a_zone_without_a_setting_has_no_autoscaler_and_nothing_there_to_freeze(rig: AzureRig) -> None:
    by_hand(rig, "DELETE")
    seen = describe(rig)
    assert (None, "", True) == (seen.autoscaler, seen.unread, seen.autoscaling), "repairs still run"
    freeze(rig)
    assert describe(rig).autoscaling is False
    assert 0 == rig.azure.calls["PatchAutoscaleSetting"]


def test_repairs_that_are_off_do_not_hide_an_autoscaler_that_is_on(rig: AzureRig) -> None:
    freeze(rig)
    by_hand(rig, "PATCH", {"properties": {**by_hand(rig, "GET")["properties"], "enabled": True}})
    assert describe(rig).autoscaling is True


@pytest.mark.parametrize(
    ("kind", "error"), [(FaultKind.ERROR, Transient), (FaultKind.THROTTLE, Transient), (FaultKind.DENY, Denied)]
)
def test_a_setting_that_cannot_be_read_is_not_called_frozen_and_freezing_says_so(
    rig: AzureRig, kind: FaultKind, error: type[Exception]
) -> None:
    freeze(rig)
    fault = rig.emulated.faults.add(Fault(kind, "GET", SETTINGS, count=99))
    seen = describe(rig)
    assert (None, True) == (seen.autoscaler, seen.autoscaling)
    assert "ListAutoscaleSettings for azure/eastus-1" in seen.unread
    asked = rig.fleet.set_autoscaling(rig.zone, enabled=True, fence=OpenFence())
    assert error is type(asyncio.run(error_of(asked)))
    assert fault.count < 99


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_growth_does_not_wait_for_azure_monitor(rig: AzureRig, method: str) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.ERROR, method, SETTINGS, count=2))
        await rig.fleet.scale(rig.zone, 4, OpenFence())
        await until(rig, lambda: rig.fleet.describe(rig.zone), lambda s: len(s.instances) == 4, "one more")
        await rig.fleet.scale(rig.zone, 4, OpenFence())

    asyncio.run(story())
    rig.emulated.faults.clear()
    scale(rig, 4)
    assert 4 == told(rig).minimum, "asked again, it is held"


def test_a_smaller_fleet_is_allowed_before_it_is_made_smaller(rig: AzureRig) -> None:
    """Else Azure Monitor would put back what Failout takes away."""
    scale(rig, 4)
    asyncio.run(until(rig, lambda: rig.fleet.describe(rig.zone), lambda s: len(s.instances) == 4, "one more"))
    rig.emulated.faults.add(Fault(FaultKind.ERROR, "PATCH", SETTINGS))
    asked = rig.fleet.scale(rig.zone, 3, OpenFence())
    assert Transient is type(asyncio.run(error_of(asked)))
    assert (4, 0) == (told(rig).capacity, rig.azure.calls["DeleteInstances"])


def test_the_maximum_that_people_set_is_not_exceeded(rig: AzureRig) -> None:
    shown = by_hand(rig, "GET")["properties"]
    shown["profiles"][0]["capacity"]["maximum"] = "3"
    by_hand(rig, "PATCH", {"properties": shown})
    asked = rig.fleet.scale(rig.zone, 4, OpenFence())
    error = asyncio.run(error_of(asked))
    assert (NoCapacity, "azure/eastus-1: 4 instances asked, gates-eastus-1 allows 3") == (type(error), str(error))
    assert (3, 3) == (told(rig).capacity, told(rig).maximum)


def test_the_bounds_of_a_schedule_are_left_alone_and_stop_no_growth(rig: AzureRig) -> None:
    shown = by_hand(rig, "GET")["properties"]
    night = {**shown["profiles"][0], "name": "night", "capacity": {"minimum": "1", "maximum": "2", "default": "1"}}
    night["recurrence"] = {"frequency": "Week", "schedule": {}}
    shown["profiles"].append(night)
    by_hand(rig, "PATCH", {"properties": shown})
    scale(rig, 4)
    freeze(rig)
    assert 4 == told(rig).capacity
    assert [shown["profiles"], False] == [by_hand(rig, "GET")["properties"][key] for key in ("profiles", "enabled")]


def test_a_lost_answer_is_asked_for_again_and_written_once(rig: AzureRig) -> None:
    rig.emulated.faults.add(Fault(FaultKind.RESET, "PATCH", SETTINGS))
    asked = rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence())
    assert Transient is type(asyncio.run(error_of(asked)))
    freeze(rig)
    assert (1, False) == (rig.azure.calls["PatchAutoscaleSetting"], told(rig).enabled)


def test_a_change_that_azure_does_not_show_is_not_believed(rig: AzureRig) -> None:
    describe(rig)
    setting = "/autoscaleSettings/gates-eastus-1$"
    freeze(rig)  # the setting itself was read, enabled False
    rig.emulated.faults.add(Fault(FaultKind.STALE, "GET", setting))
    asked = rig.fleet.set_autoscaling(rig.zone, enabled=True, fence=OpenFence())
    assert "does not show the change yet" in str(asyncio.run(error_of(asked)))
    freeze(rig, enabled=True)
    assert told(rig).enabled is True


def findings(rig: AzureRig, **fleet: str) -> dict[str, str]:
    """What doctor says of the autoscalers, by verdict; `fleet` is added to what the topology names for the first zone."""
    first, *others = rig.region.zones
    zone = dataclasses.replace(first, fleet={"scale_set": first.fleet["scale_set"], **fleet})
    region = dataclasses.replace(rig.region, zones=(zone, *others))
    told = asyncio.run(AzureInspector(rig.azure).inspect(region, datetime.now(UTC)))
    return {
        f.verdict: f.evidence
        for f in told
        if f.what == "topology" and f"{zone.id}: " in f.evidence and "autoscale" in f.evidence
    }


def test_doctor_tells_of_each_autoscaler_and_misses_the_one_that_the_topology_names(rig: AzureRig) -> None:
    named = {"autoscale_setting": "gates-eastus-1"}
    here = "azure/eastus-1: autoscale setting gates-eastus-1"
    assert {"ok": f"{here}, enabled, 3 to 4 instances"} == findings(rig, **named)
    assert {"failed": f"{here}, enabled, 3 to 4 instances; the topology names cpu"} == findings(
        rig, autoscale_setting="cpu"
    )
    freeze(rig)
    assert {"ok": f"{here}, frozen, 3 to 4 instances"} == findings(rig)
    by_hand(rig, "DELETE")
    none = "azure/eastus-1: no autoscale setting"
    assert {"failed": f"{none}; the topology names gates-eastus-1"} == findings(rig, **named)
    assert {"ok": f"{none}; Failout alone changes its size"} == findings(rig)
