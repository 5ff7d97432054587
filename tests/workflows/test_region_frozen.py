"""ADR 12: the scaling of a region is frozen while its users are elsewhere, and thawed when it is back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workflows.drill_stage import DrillService
from workflows.outing_stage import now_

from orchestrator.core.topology import Zone
from orchestrator.operations.regions import order_return, start_evacuation
from orchestrator.ports import Fence
from orchestrator.workflows.world import World

AZURE = "azure/eastus"
Frozen = list[tuple[str, bool, bool | None]]


@dataclass(frozen=True)
class Told:
    """A fleet port that notes what it is told of its own scaling."""

    inner: Any
    told: Frozen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        await self.inner.set_autoscaling(zone, enabled=enabled, fence=fence, repairs=repairs)
        self.told.append((zone.id, enabled, repairs))


class Regions(DrillService):
    def __init__(self, **given: Any) -> None:
        self.marks: Frozen = []
        super().__init__(**given)

    def carried(self, kind: str, ports: World) -> tuple[Any, Any]:
        told = {cloud: Told(fleet, self.marks) for cloud, fleet in ports.fleets.items()}
        return super().carried(kind, replace(ports, fleets=told))

    def evacuate(self) -> None:
        asked = start_evacuation(
            self.store, self.topology, self.policy, [AZURE], run="move-1", author="ada", reason="a test", now=self.now()
        )
        self.carry(now_(asked).id)

    def bring_back(self) -> None:
        now_(order_return(self.store, self.topology, [AZURE], author="ada", reason="well", now=self.now()))


def test_i3_a_region_is_frozen_once_its_users_are_elsewhere_and_thawed_when_it_is_back() -> None:
    service = Regions(users_rps=150.0, drain_timeout_s=300.0)
    service.evacuate()
    service.until_status("move-1", "out")
    zones = [f"{AZURE}-{number}" for number in (1, 2, 3)]
    assert [(zone, False, True) for zone in zones] == service.marks  # What dies is repaired as ever.
    service.bring_back()
    service.until_status("move-1", "succeeded")
    assert [(zone, True, None) for zone in zones] == service.marks[3:]


def test_i10_a_cloud_that_does_not_answer_holds_no_evacuation_up_and_its_region_is_thawed_all_the_same() -> None:
    service = Regions(users_rps=150.0, drain_timeout_s=300.0)
    service.evacuate()
    service.until(lambda: service.run("move-1").state["phase"] == "leaving")
    service.clouds.down.add("azure")
    service.wait(30.0)
    assert [] == service.marks
    service.clouds.down.clear()
    service.until_status("move-1", "out")
    service.bring_back()
    service.until_status("move-1", "succeeded")
    assert {f"{AZURE}-{number}" for number in (1, 2, 3)} == {zone for zone, enabled, _ in service.marks if enabled}
