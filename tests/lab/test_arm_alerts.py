"""An alert rule of the emulated Azure, as the signal of a drill sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from orchestrator.clouds.azure.alarm import AzureAlarm
from orchestrator.clouds.azure.arm import Azure
from orchestrator.core.signal import AzureAlert
from orchestrator.lab.azure import EmulatedAzure, Fault, FaultKind
from orchestrator.lab.credential import LabCredential

LONG_S = 3 * 86400.0
HEADERS = {"authorization": "Bearer x"}


class World:
    """An emulated Azure with one alert rule, and a clock that can be moved."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0
        self.arm = EmulatedAzure({"eastus": 21}, clock=lambda: self.now)
        self.url = self.arm.start()
        self.azure = Azure(LabCredential())
        self.group = f"/subscriptions/{self.arm.subscription_id}/resourceGroups/gates"
        self.rule = f"{self.group}/providers/Microsoft.Insights/metricAlerts/users-fail"
        self.put(self.group, b'{"location": "eastus"}')

    def put(self, path: str, body: bytes) -> None:
        answer = self.arm.handle("PUT", path, {"api-version": "2018-03-01"}, HEADERS, body)
        assert answer.status in (200, 201), answer.body

    def enable(self, enabled: str = "true") -> None:
        self.put(self.rule, b'{"location": "global", "properties": {"enabled": %s}}' % enabled.encode())

    def says(self) -> tuple[str, str]:
        said = asyncio.run(AzureAlarm(self.azure, AzureAlert("users", self.rule, self.url)).read())
        return said.state, said.evidence

    def end(self) -> None:
        self.azure.close()
        self.arm.stop()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end()


def test_a_rule_is_good_until_it_fires_bad_until_that_ends_and_an_old_alert_counts(world: World) -> None:
    world.enable()
    assert ("good", "alert rule users-fail has not fired") == world.says()
    world.arm.set_alert(world.rule, fired=True)
    world.now += LONG_S
    assert ("bad", "alert rule users-fail has fired since 2030-03-17T17:46:40+00:00") == world.says()
    world.arm.set_alert(world.rule, fired=False)
    assert "good" == world.says()[0]


def test_a_rule_that_is_not_there_or_disabled_could_not_have_fired(world: World) -> None:
    assert ("unknown", True) == (world.says()[0], "users-fail" in world.says()[1])
    world.enable("false")
    assert ("unknown", "alert rule users-fail is disabled") == world.says()


def test_an_azure_that_denies_says_nothing(world: World) -> None:
    world.enable()
    world.arm.faults.add(Fault(FaultKind.DENY, "GET"))
    assert "unknown" == world.says()[0]
    assert "good" == world.says()[0]
