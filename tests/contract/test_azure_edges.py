"""The Azure adapters when Azure, the agent or the process fails: the error that comes out, and what is true afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from azure_rig import AzureRig, azure_rig, image
from contract_rig import OpenFence, until

from orchestrator.clouds.azure.arm import Azure
from orchestrator.clouds.azure.fleet import AzureFleet, Remembered
from orchestrator.core.errors import Denied, FailoutError, NoCapacity, NotFound, Rejected, Transient
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import OUT, STEADY, Placement, ZoneTraffic
from orchestrator.lab.azure import Fault, FaultKind
from orchestrator.lab.credential import LabCredential
from orchestrator.ports import FleetSeen, Replacement

UPGRADE = "/manualupgrade$"
SCALE_SET = "/virtualMachineScaleSets/[^/]+$"
POOL = "/backendAddressPools/"


@pytest.fixture
def rig() -> Iterator[AzureRig]:
    with azure_rig() as rig:
        yield rig


async def replace(rig: AzureRig, version: str = "v2") -> None:
    await rig.fleet.replace(rig.zone, version, image(version), OpenFence())


async def finished(rig: AzureRig, fleet: AzureFleet | None = None) -> Replacement:
    watcher = fleet or rig.fleet
    return await until(rig, lambda: watcher.replacement(rig.zone), lambda r: not r.running, "the upgrade ends")


async def error_of(asked: Awaitable[Any]) -> FailoutError:
    with pytest.raises(FailoutError) as caught:
        await asked
    return caught.value


def wishes(rig: AzureRig, wanted: ZoneTraffic) -> dict[str, ZoneTraffic]:
    return {zone.id: STEADY for zone in rig.region.zones} | {rig.zone.id: wanted}


async def apply(rig: AzureRig, wanted: ZoneTraffic) -> None:
    await rig.traffic.apply(rig.region, wishes(rig, wanted), OpenFence())


def restarted(rig: AzureRig, operations: Remembered | None = None) -> AzureFleet:
    """Another process: nothing of the first one's memory but the tokens, where they were saved."""
    return AzureFleet(Azure(LabCredential("other")), [rig.region], operations)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(FaultKind.THROTTLE, retry_after_s=17), Transient),
        (Fault(FaultKind.CONFLICT), Transient),
        (Fault(FaultKind.CONFLICT, status=412, code="PreconditionFailed"), Transient),
        (Fault(FaultKind.ERROR, count=2), Transient),
        (Fault(FaultKind.RESET), Transient),
        (Fault(FaultKind.CUT, count=2), Transient),
        (Fault(FaultKind.DENY), Denied),
        (Fault(FaultKind.DENY, status=401, code="ExpiredAuthenticationToken"), Denied),
        (Fault(FaultKind.ERROR, status=400, code="InvalidParameter"), Rejected),
        (Fault(FaultKind.ERROR, status=404, code="ResourceNotFound"), NotFound),
        (Fault(FaultKind.CONFLICT, code="OverconstrainedZonalAllocationRequest"), NoCapacity),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.kind}-{value.code}",
)
def test_a_refusal_is_sorted_by_what_to_do_and_names_call_and_zone(
    rig: AzureRig, fault: Fault, kind: type[FailoutError]
) -> None:
    fault.method, fault.path = "GET", SCALE_SET
    rig.emulated.faults.add(fault)
    began = time.monotonic()
    error = asyncio.run(error_of(rig.fleet.describe(rig.zone)))
    assert type(error) is kind
    assert str(error).startswith("azure GetScaleSet for azure/eastus-1: ")
    assert "\n" not in str(error)
    assert time.monotonic() - began < 3, "the wait that Azure asks for is the caller's"
    if isinstance(error, Transient):
        assert error.retry_after_s == fault.retry_after_s


def test_a_read_that_failed_once_is_repeated(rig: AzureRig) -> None:
    rig.emulated.faults.add(Fault(FaultKind.ERROR, "GET", SCALE_SET))
    assert len(asyncio.run(rig.fleet.describe(rig.zone)).instances) == 3
    assert rig.emulated.faults.hits == 1


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_write_that_failed_is_not_repeated_by_the_client(rig: AzureRig, status: int) -> None:
    rig.emulated.faults.add(Fault(FaultKind.ERROR, "PATCH", status=status, count=2))
    assert isinstance(asyncio.run(error_of(replace(rig))), Transient)
    assert rig.emulated.faults.hits == 1


def test_a_write_that_is_not_answered_ends_within_a_takeovers_grace(rig: AzureRig) -> None:
    rig.emulated.faults.add(Fault(None, "PATCH", SCALE_SET, delay_s=4))
    asyncio.run(rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence()))
    began = time.monotonic()
    assert isinstance(asyncio.run(error_of(replace(rig))), Transient)
    assert time.monotonic() - began < 3


def test_an_endpoint_that_is_gone_is_transient(rig: AzureRig) -> None:
    rig.emulated.stop()
    assert isinstance(asyncio.run(error_of(rig.fleet.describe(rig.zone))), Transient)


def test_an_upgrade_whose_answer_was_lost_is_not_begun_twice(rig: AzureRig) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.RESET, "POST", UPGRADE))
        assert isinstance(await error_of(replace(rig)), Transient)
        await replace(rig)
        assert rig.azure.calls["UpdateInstances"] == 1
        assert await finished(rig) == Replacement(False, "v2", 3, 3)

    asyncio.run(story())


def test_an_order_whose_answer_was_lost_still_stops_the_upgrade_before_it(rig: AzureRig) -> None:
    async def story() -> None:
        await replace(rig, "v2")
        rig.emulated.faults.add(Fault(FaultKind.HANG, "POST", UPGRADE))
        await replace(rig, "v3")
        rig.emulated.faults.add(Fault(FaultKind.RESET, "PATCH", SCALE_SET))
        assert isinstance(await error_of(replace(rig, "v1")), Transient)
        await replace(rig, "v1")
        assert await finished(rig) == Replacement(False, "v1", 3, 3)
        assert {i.version for i in (await rig.fleet.describe(rig.zone)).instances} == {"v1"}

    asyncio.run(story())


def test_machines_as_they_were_before_the_new_model_are_not_taken_for_upgraded(rig: AzureRig) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.STALE, "GET", "/virtualMachines$", count=4))
        await replace(rig)
        seen = await rig.fleet.replacement(rig.zone)
        assert (seen.version, seen.done, seen.total) == ("v2", 0, 3)
        await replace(rig)
        assert await finished(rig) == Replacement(False, "v2", 3, 3)

    asyncio.run(story())


def test_a_failed_upgrade_says_why_also_to_a_process_that_did_not_begin_it(rig: AzureRig) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.FAIL, "POST", UPGRADE))
        await replace(rig)
        for fleet in (rig.fleet, restarted(rig, rig.operations)):
            ended = await finished(rig, fleet)
            assert (ended.version, ended.done, ended.total) == ("v2", 0, 3)
            assert ended.failure is not None
            assert ended.failure.startswith("InternalExecutionError: ")
        forgetful = await finished(rig, restarted(rig))
        assert forgetful.failure == "0 of 3 instances are on the model and nothing upgrades the rest"
        await replace(rig)
        assert await finished(rig) == Replacement(False, "v2", 3, 3)

    asyncio.run(story())


@pytest.mark.parametrize("call", [UPGRADE, SCALE_SET, "/setOrchestrationServiceState$"])
def test_an_operation_that_never_ends_is_overruled_by_what_the_machines_say(rig: AzureRig, call: str) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.HANG, "PATCH" if call == SCALE_SET else "POST", call))
        await replace(rig)
        assert await finished(rig) == Replacement(False, "v2", 3, 3)

    asyncio.run(story())


@pytest.mark.parametrize("call", ["/setOrchestrationServiceState$", SCALE_SET])
def test_a_first_step_that_fails_is_taken_again(rig: AzureRig, call: str) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.FAIL, "PATCH" if call == SCALE_SET else "POST", call))
        assert isinstance(await error_of(replace(rig)), Transient)
        await replace(rig)
        assert await finished(rig) == Replacement(False, "v2", 3, 3)

    asyncio.run(story())


def test_a_process_that_starts_in_the_middle_of_an_upgrade_sees_it_end(rig: AzureRig) -> None:
    async def story() -> None:
        await replace(rig)
        other = restarted(rig)
        assert (await other.replacement(rig.zone)).running
        assert await finished(rig, other) == Replacement(False, "v2", 3, 3)

    asyncio.run(story())


def test_an_instance_that_was_not_upgraded_keeps_the_version_of_its_own_tag(rig: AzureRig) -> None:
    async def story() -> FleetSeen:
        rig.emulated.faults.add(Fault(FaultKind.FAIL, "POST", UPGRADE))
        await replace(rig)
        await finished(rig)
        return await rig.fleet.describe(rig.zone)

    seen = asyncio.run(story())
    assert seen.model_version == "v2"
    assert {(i.version, i.on_model) for i in seen.instances} == {("v1", False)}


def test_a_release_that_boots_the_same_image_is_refused(rig: AzureRig) -> None:
    """Azure hands new user data to the running machine and restarts nothing: the old version would go on."""
    same = Image("azure/eastus", "sha256:v2", {**image("v1").data, "user_data": "VERSION=v2\n"})
    before = rig.writes()
    asked = rig.fleet.replace(rig.zone, "v2", same, OpenFence())
    assert type(asyncio.run(error_of(asked))) is Rejected
    assert rig.writes() == before


def test_an_image_that_is_not_named_whole_is_refused(rig: AzureRig) -> None:
    asked = rig.fleet.replace(rig.zone, "v2", Image("azure/eastus", "sha256:v2", {"publisher": "failout"}), OpenFence())
    error = asyncio.run(error_of(asked))
    assert str(error) == "the image for azure/eastus names neither image_id nor offer, sku, image_version"


def test_a_quota_is_no_capacity_at_once(rig: AzureRig) -> None:
    rig.emulated.set_quota("eastus", 9)
    error = asyncio.run(error_of(rig.fleet.scale(rig.zone, 4, OpenFence())))
    assert type(error) is NoCapacity
    assert "PatchCapacity for azure/eastus-1" in str(error)


def test_a_zone_without_room_is_no_capacity_when_asked_again_and_tried_anew_after_that(rig: AzureRig) -> None:
    async def story() -> None:
        rig.emulated.set_room(rig.zone.id, 3)
        await rig.fleet.scale(rig.zone, 4, OpenFence())
        assert type(await error_of(rig.fleet.scale(rig.zone, 4, OpenFence()))) is NoCapacity
        assert (await rig.fleet.describe(rig.zone)).no_room == "Azure gave 3 of 4 machines and no more"
        rig.emulated.set_room(rig.zone.id, None)
        await rig.fleet.scale(rig.zone, 4, OpenFence())
        seen = await until(rig, lambda: rig.fleet.describe(rig.zone), lambda s: len(s.instances) == 4, "one more")
        assert seen.desired == 4

    asyncio.run(story())


def test_a_topology_that_forgets_a_name_is_refused_with_it(rig: AzureRig) -> None:
    bare = Zone(rig.zone.id, "azure", rig.region.id, "1", 3, 4, 40.0)
    fleet = AzureFleet(rig.azure, [Region(rig.region.id, "azure", "eastus", 100, (bare,), "", rig.region.front)])
    assert str(asyncio.run(error_of(fleet.describe(bare)))) == "the topology names no scale_set for azure/eastus-1"


def flags(rig: AzureRig) -> set[str]:
    return {instance for instance, _ in rig.machines.dismissed}


def test_a_zone_is_emptied_through_its_instances_while_azure_does_not_answer(rig: AzureRig) -> None:
    """I10: evacuation works while every management API of the zone's cloud is unreachable."""

    async def story() -> None:
        await rig.traffic.read(rig.region)
        rig.emulated.stop()
        assert isinstance(await error_of(apply(rig, OUT)), Transient)

    asyncio.run(story())
    assert flags(rig) == {f"gates-eastus-1_{n}" for n in range(3)}


def test_a_zone_is_emptied_at_once_while_azure_hangs(rig: AzureRig) -> None:
    async def story() -> None:
        await rig.traffic.read(rig.region)
        rig.emulated.faults.add(Fault(None, "GET", POOL, delay_s=1.5))
        applied = asyncio.create_task(apply(rig, OUT))
        await asyncio.sleep(0.5)
        assert len(flags(rig)) == 3
        assert not applied.done()
        await applied

    asyncio.run(story())


def test_a_zone_is_taken_out_of_the_pool_while_its_agent_does_not_answer(rig: AzureRig) -> None:
    async def story() -> None:
        rig.agent.trouble = Transient("the agent does not answer")
        assert await error_of(apply(rig, OUT)) is rig.agent.trouble
        assert await error_of(rig.traffic.read(rig.region)) is rig.agent.trouble
        rig.agent.trouble = None
        seen = await until(rig, lambda: rig.traffic.read(rig.region), settled(rig), "the pool has changed")
        assert seen[rig.zone.id].placement is Placement.OUT
        assert all(seen[zone.id].placement is Placement.STEADY for zone in rig.region.zones[1:])

    asyncio.run(story())


def settled(rig: AzureRig) -> Callable[[Any], bool]:
    return lambda seen: seen[rig.zone.id].placement is not None


def test_what_azure_still_carries_out_is_not_believed(rig: AzureRig) -> None:
    async def story() -> None:
        await apply(rig, OUT)
        at_once = await rig.traffic.read(rig.region)
        assert (at_once[rig.zone.id].placement, at_once[rig.zone.id].share) == (None, None)
        assert at_once[rig.region.zones[1].id].placement is Placement.STEADY
        assert (await until(rig, lambda: rig.traffic.read(rig.region), settled(rig), "done"))[rig.zone.id].taking == 0

    asyncio.run(story())


def test_users_that_are_still_connected_keep_a_zone_draining(rig: AzureRig) -> None:
    async def story() -> None:
        rig.machines.users["gates-eastus-1_1"] = 2
        await apply(rig, OUT)
        seen = await until(rig, lambda: rig.traffic.read(rig.region), settled(rig), "done")
        assert seen[rig.zone.id].draining == 1

    asyncio.run(story())


def test_a_pool_that_changed_meanwhile_is_read_again(rig: AzureRig) -> None:
    async def story() -> None:
        rig.emulated.faults.add(Fault(FaultKind.CONFLICT, "PUT", POOL, status=412, code="PreconditionFailed"))
        assert isinstance(await error_of(apply(rig, OUT)), Transient)
        await apply(rig, OUT)
        seen = await until(rig, lambda: rig.traffic.read(rig.region), settled(rig), "done")
        assert seen[rig.zone.id].placement is Placement.OUT

    asyncio.run(story())


def test_an_instance_that_arrives_in_a_zone_that_is_out_is_closed(rig: AzureRig) -> None:
    async def story() -> None:
        await apply(rig, OUT)
        await rig.resize(rig.zone.id, 4)

        async def look() -> Any:
            await apply(rig, OUT)
            return (await rig.traffic.read(rig.region))[rig.zone.id]

        seen = await until(rig, look, lambda s: s.total == 4 and s.placement is Placement.OUT, "the new one is closed")
        assert seen.taking == 0

    asyncio.run(story())
    assert "gates-eastus-1_3" in flags(rig)
