"""What the AWS adapters promise beyond their ports: what AWS keeps, and what a crash or a hand leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aws_rig import AwsRig, aws_rig, image
from contract_rig import OpenFence, until
from fleet_contract import replaced
from traffic_contract import reach, step

from orchestrator.clouds.aws.fleet import AwsFleet
from orchestrator.clouds.aws.route53 import Route53
from orchestrator.clouds.aws.session import AwsSession
from orchestrator.clouds.aws.traffic import AwsTraffic
from orchestrator.core.errors import NoCapacity, NotFound, Rejected, Transient
from orchestrator.core.traffic import OUT, STEADY, ramp
from orchestrator.ports import Replacement


@pytest.fixture
def rig() -> Iterator[AwsRig]:
    with aws_rig() as rig:
        yield rig


def hand(rig: AwsRig, service: str) -> Any:
    """A client of somebody else, whose calls the rig does not count."""
    return AwsSession(rig.session._keys).make_client(service, rig.region.name, rig.aws.endpoint, 1)


def forward(rig: AwsRig) -> dict[str, Any]:
    arn = rig.region.front["listener_arn"]
    listener = hand(rig, "elbv2").describe_listeners(ListenerArns=[arn])["Listeners"][0]
    config: dict[str, Any] = listener["DefaultActions"][0]["ForwardConfig"]
    return config


def weights(rig: AwsRig) -> tuple[int, int]:
    found = {group["TargetGroupArn"]: group["Weight"] for group in forward(rig)["TargetGroups"]}
    return found[rig.region.front["steady_target_group_arn"]], found[rig.region.front["ramp_target_group_arn"]]


async def test_half_a_share_of_three_beside_six_is_weights_of_four_to_one(rig: AwsRig) -> None:
    await reach(rig, OUT)
    await reach(rig, ramp(0.5))
    assert weights(rig) == (4, 1)


async def test_a_joined_zone_leaves_all_weight_to_steady(rig: AwsRig) -> None:
    for wanted in (OUT, ramp(1.0), STEADY):
        await reach(rig, wanted)
    assert weights(rig) == (100, 0)


async def test_the_listener_keeps_its_stickiness(rig: AwsRig) -> None:
    stickiness = {"Enabled": True, "DurationSeconds": 60}
    action = {"Type": "forward", "ForwardConfig": forward(rig) | {"TargetGroupStickinessConfig": stickiness}}
    hand(rig, "elbv2").modify_listener(ListenerArn=rig.region.front["listener_arn"], DefaultActions=[action])
    await reach(rig, OUT)
    await reach(rig, ramp(0.5))
    assert forward(rig)["TargetGroupStickinessConfig"] == stickiness


async def test_a_target_that_a_hand_put_back_is_taken_out_again(rig: AwsRig) -> None:
    await reach(rig, OUT)
    instance = (await rig.fleet.describe(rig.zone)).instances[0].id
    steady = rig.region.front["steady_target_group_arn"]
    hand(rig, "elbv2").register_targets(TargetGroupArn=steady, Targets=[{"Id": instance}])
    assert (await rig.traffic.read(rig.region))[rig.zone.id].placement is None
    await reach(rig, OUT)


async def test_a_process_that_never_saw_an_instance_knows_the_zone_that_it_drains_from(rig: AwsRig) -> None:
    long = [{"Key": "deregistration_delay.timeout_seconds", "Value": "20"}]  # A new process's first read takes a while.
    steady = rig.region.front["steady_target_group_arn"]
    hand(rig, "elbv2").modify_target_group_attributes(TargetGroupArn=steady, Attributes=long)
    await rig.resize(rig.zone.id, 2)
    await until(
        rig,
        lambda: AwsTraffic(rig.session).read(rig.region),
        lambda seen: seen[rig.zone.id].total == 2 and seen[rig.zone.id].draining == 1,
        "a new process sees the leaving instance drain",
    )


async def test_a_zone_goes_out_in_one_pass_and_comes_back_in_few(rig: AwsRig) -> None:
    """A bound for AWS's rate limits: writes of a whole round, and reads per pass."""
    before, passes = rig.writes(), 0
    await step(rig, OUT)
    assert rig.writes() - before == 1
    for wanted in (OUT, ramp(0.1), ramp(1.0), STEADY):
        await reach(rig, wanted)
    # detach; attach ramp, two weights; a smaller weight to join with, attach steady, weight off, detach ramp
    assert rig.writes() - before == 8
    calls = rig.session.calls.total()
    passes = 4
    for _ in range(passes):
        await rig.traffic.read(rig.region)
    assert rig.session.calls.total() - calls == 4 * passes


async def test_a_failure_of_the_past_is_not_told_of_the_version_that_runs(rig: AwsRig) -> None:
    await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
    hand(rig, "autoscaling").cancel_instance_refresh(AutoScalingGroupName=rig.zone.fleet["auto_scaling_group"])
    told = await until(
        rig, lambda: rig.fleet.replacement(rig.zone), lambda seen: not seen.running, "the cancelled refresh ends"
    )
    assert told.version == "v2"
    assert told.failure is not None
    assert "Cancelled" in told.failure
    await replaced(rig, "v1")
    assert await rig.fleet.replacement(rig.zone) == Replacement(False, "v1", 3, 3)


async def test_a_process_that_comes_after_a_crash_carries_the_same_upgrade_on(rig: AwsRig) -> None:
    await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
    before = rig.writes()
    await AwsFleet(rig.session, [rig.region]).replace(rig.zone, "v2", rig.image("v2"), OpenFence())
    assert rig.writes() == before


async def lose_one(rig: AwsRig) -> str:
    """Mark an instance as Auto Scaling does when its machine fails; the mark stays when the machine is well again."""
    doomed = (await rig.fleet.describe(rig.zone)).instances[0].id
    mark = hand(rig, "autoscaling").set_instance_health
    mark(InstanceId=doomed, HealthStatus="Unhealthy", ShouldRespectGracePeriod=False)
    return doomed


async def test_an_instance_that_died_while_the_fleet_was_frozen_is_replaced_before_the_thaw(rig: AwsRig) -> None:
    await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence())
    doomed = await lose_one(rig)
    assert doomed not in {instance.id for instance in (await replaced(rig, "v1")).instances}
    assert (await rig.fleet.replacement(rig.zone)).failure is None


async def test_an_instance_that_is_well_again_at_the_thaw_is_not_replaced_in_traffic(rig: AwsRig) -> None:
    """I13: the mark of the hour in which its zone was dead is taken away before repairs are thawed."""
    await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence())
    before = {instance.id for instance in (await rig.fleet.describe(rig.zone)).instances}
    await lose_one(rig)
    await rig.fleet.set_autoscaling(rig.zone, enabled=True, fence=OpenFence())
    group = rig.zone.fleet["auto_scaling_group"]
    answer = hand(rig, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    told = {i["InstanceId"]: i["HealthStatus"] for i in answer["AutoScalingGroups"][0]["Instances"]}
    assert told == dict.fromkeys(before, "Healthy")


async def test_a_refresh_that_waits_for_an_instance_that_died_begins_anew(rig: AwsRig) -> None:
    aws, group = hand(rig, "autoscaling"), {"AutoScalingGroupName": rig.zone.fleet["auto_scaling_group"]}
    await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence())
    aws.suspend_processes(ScalingProcesses=["Launch"], **group)
    await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
    await until(rig, lambda: rig.fleet.describe(rig.zone), lambda seen: not seen.instances, "the old ones are gone")
    aws.suspend_processes(ScalingProcesses=["InstanceRefresh"], **group)
    aws.resume_processes(ScalingProcesses=["Launch"], **group)
    await until(
        rig,
        lambda: rig.fleet.describe(rig.zone),
        lambda seen: [("v2", True)] * 3 == [(i.version, i.running) for i in seen.instances],
        "new ones are in service",
    )
    doomed = await lose_one(rig)
    aws.resume_processes(ScalingProcesses=["InstanceRefresh"], **group)
    assert (await rig.fleet.replacement(rig.zone)).running
    assert doomed not in {instance.id for instance in (await replaced(rig, "v2")).instances}


async def test_all_zones_of_a_region_share_one_template_version_and_keep_the_rest_of_it(rig: AwsRig) -> None:
    for zone in rig.region.zones[:2]:
        await rig.fleet.replace(zone, "v2", rig.image("v2"), OpenFence())
    template = rig.zone.fleet["launch_template_id"]
    found = hand(rig, "ec2").describe_launch_template_versions(LaunchTemplateId=template)["LaunchTemplateVersions"]
    newest, first = found
    assert newest["VersionDescription"] == "failout v2 sha256:v2"
    assert newest["LaunchTemplateData"]["SecurityGroupIds"] == first["LaunchTemplateData"]["SecurityGroupIds"]


async def test_an_image_with_unknown_words_is_refused_before_anything_is_written(rig: AwsRig) -> None:
    before = rig.writes()
    with pytest.raises(Rejected, match="ami"):
        await rig.fleet.replace(rig.zone, "v2", replace(image("v2"), data={"ami": "ami-1"}), OpenFence())
    assert rig.writes() == before


async def test_more_instances_than_people_allowed_is_a_want_of_capacity(rig: AwsRig) -> None:
    with pytest.raises(NoCapacity, match="gates-us-east-1a allows 4"):
        await rig.fleet.scale(rig.zone, 5, OpenFence())


async def test_a_zone_without_room_is_no_capacity_when_asked_again_and_scaled_once_there_is_room(rig: AwsRig) -> None:
    async def refused() -> bool:
        try:
            await rig.fleet.scale(rig.zone, 4, OpenFence())
        except NoCapacity as error:
            return "sufficient" in str(error)
        return False

    rig.aws.limit_capacity(rig.zone.id, 3)
    await until(rig, refused, bool, "it says that there is no room")
    assert "sufficient" in (await rig.fleet.describe(rig.zone)).no_room
    rig.aws.limit_capacity(rig.zone.id, None)

    async def asked() -> bool:
        return not await refused()  # It may have tried in vain once more before there was room.

    await until(rig, asked, bool, "it takes the order")
    await until(rig, lambda: rig.fleet.describe(rig.zone), lambda seen: len(seen.instances) == 4, "one more")


async def test_a_fleet_that_is_not_there_is_named(rig: AwsRig) -> None:
    with pytest.raises(NotFound, match="aws/us-east-1a: no Auto Scaling group gone"):
        await rig.fleet.describe(replace(rig.zone, fleet=dict(rig.zone.fleet, auto_scaling_group="gone")))


async def test_an_api_that_does_not_answer_is_worth_trying_again(rig: AwsRig) -> None:
    rig.aws.stop()
    with pytest.raises(Transient, match="aws/us-east-1: Describe"):
        await rig.traffic.read(rig.region)


def records(rig: AwsRig) -> list[dict[str, Any]]:
    zone = rig.tier.attributes["hosted_zone_id"]
    found = hand(rig, "route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return [record for record in found if "Weight" in record]


async def test_a_record_keeps_all_but_its_weight(rig: AwsRig) -> None:
    before = records(rig)
    await rig.global_traffic.apply({"aws/us-east-1": 0, "azure/eastus": 9}, OpenFence())
    after = records(rig)
    assert [0, 9] == [record["Weight"] for record in after]
    assert [r | {"Weight": 0} for r in before] == [r | {"Weight": 0} for r in after]


async def test_a_process_that_comes_after_a_crash_waits_for_a_change_of_its_own_to_spread(rig: AwsRig) -> None:
    wanted = {"aws/us-east-1": 0, "azure/eastus": 60}
    await rig.global_traffic.apply(wanted, OpenFence())
    reborn, before = Route53(rig.session, rig.tier), rig.writes()
    await reborn.apply(wanted, OpenFence())
    assert rig.writes() - before == 1
    await until(rig, reborn.read, lambda seen: seen.in_sync, "the change has spread")
    await reborn.apply(wanted, OpenFence())
    assert rig.writes() - before == 1


async def test_many_calls_at_once_share_one_client(rig: AwsRig) -> None:
    seen = await asyncio.gather(*(rig.fleet.describe(zone) for zone in rig.region.zones))
    assert [3, 3, 3] == [len(fleet.instances) for fleet in seen]
