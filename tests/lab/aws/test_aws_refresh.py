"""Instance refresh in the lab's AWS."""

from __future__ import annotations

import pytest
from aws_world import GROUP, AwsWorld, eventually
from botocore.exceptions import ClientError


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def test_with_min_healthy_0_all_instances_are_replaced_at_once(world: AwsWorld) -> None:
    old = {i.id for i in world.desired("1a")}
    world.refresh(world.new_version("v2"))
    fewest = 2
    while world.last_refresh()["Status"] in ("Pending", "InProgress"):
        fewest = min(fewest, len(world.desired("1a")))
    assert fewest == 0
    assert world.last_refresh()["Status"] == "Successful"
    assert ["v2", "v2"] == [i.version for i in world.desired("1a")]
    assert not old & {i.id for i in world.desired("1a")}
    assert ["v1", "v1"] == [i.version for i in world.desired("1b")]


def test_with_min_healthy_50_one_of_two_serves_all_the_time(world: AwsWorld) -> None:
    world.refresh(world.new_version("v2"), MinHealthyPercentage=50)
    fewest = 2
    while world.last_refresh()["Status"] in ("Pending", "InProgress"):
        fewest = min(fewest, len(world.desired("1a")))
    assert fewest == 1
    assert ["v2", "v2"] == [i.version for i in world.desired("1a")]


def test_the_group_takes_the_desired_configuration_only_when_the_refresh_succeeds(world: AwsWorld) -> None:
    version = world.new_version("v2")
    world.refresh(version)
    assert "1" == world.group()["LaunchTemplate"]["Version"]
    done = world.refreshed()
    assert (done["Status"], done["PercentageComplete"], done["InstancesToUpdate"]) == ("Successful", 100, 0)
    assert version == world.group()["LaunchTemplate"]["Version"]
    assert [version, version] == [i["LaunchTemplate"]["Version"] for i in world.group()["Instances"]]


def test_skip_matching_leaves_instances_that_run_the_version_alone(world: AwsWorld) -> None:
    before = world.desired("1a")
    world.refresh("1")
    assert ("Successful", 100) == (world.refreshed()["Status"], world.last_refresh()["PercentageComplete"])
    assert before == world.desired("1a")


def test_without_skip_matching_they_are_replaced_too(world: AwsWorld) -> None:
    before = {i.id for i in world.desired("1a")}
    world.refresh("1", SkipMatching=False)
    world.refreshed()
    assert not before & {i.id for i in world.desired("1a")}


def test_it_fails_when_new_instances_do_not_get_well_and_the_group_keeps_its_version(world: AwsWorld) -> None:
    world.machines.sick.add("v2")
    world.refresh(world.new_version("v2"))
    done = world.refreshed()
    assert "Failed" == done["Status"]
    assert "did not become healthy" in done["StatusReason"]
    assert (0, 2) == (done["PercentageComplete"], done["InstancesToUpdate"])
    assert "1" == world.group()["LaunchTemplate"]["Version"]


def test_one_instance_that_does_not_get_well_fails_it_and_is_named(world: AwsWorld) -> None:
    suspended = {"AutoScalingGroupName": GROUP, "ScalingProcesses": ["ReplaceUnhealthy"]}
    world.autoscaling.suspend_processes(**suspended)
    world.refresh(world.new_version("v2"), InstanceWarmup=1)
    sick, _ = eventually(lambda: len(ids := [i.id for i in world.desired("1a") if i.version == "v2"]) == 2 and ids)
    world.machines.sick.add(sick)
    done = world.refreshed()
    assert ("Failed", 50) == (done["Status"], done["PercentageComplete"])
    assert f"did not become healthy: {sick}." in done["StatusReason"]


def test_auto_rollback_brings_the_old_version_back(world: AwsWorld) -> None:
    world.machines.sick.add("v2")
    world.refresh(world.new_version("v2"), AutoRollback=True)
    done = world.refreshed()
    assert "RollbackSuccessful" == done["Status"]
    assert 0 == done["RollbackDetails"]["PercentageCompleteOnRollback"]
    assert ["v1", "v1"] == [i.version for i in world.desired("1a")]


def test_a_rollback_fails_when_the_old_version_does_not_get_well_either(world: AwsWorld) -> None:
    world.machines.sick.add("v2")
    world.refresh(world.new_version("v2"), AutoRollback=True)
    eventually(lambda: "RollbackInProgress" == world.last_refresh()["Status"])
    world.machines.sick.add("v1")
    assert "RollbackFailed" == world.refreshed()["Status"]


def test_auto_rollback_needs_a_numbered_version(world: AwsWorld) -> None:
    with pytest.raises(ClientError) as error:
        world.refresh("$Latest", AutoRollback=True)
    assert "ValidationError" == code(error)


def test_a_second_refresh_is_refused_while_one_runs(world: AwsWorld) -> None:
    version = world.new_version("v2")
    world.refresh(version)
    with pytest.raises(ClientError) as error:
        world.refresh(version)
    assert "InstanceRefreshInProgress" == code(error)


def test_cancel_stops_replacing_and_rolls_nothing_back(world: AwsWorld) -> None:
    world.refresh(world.new_version("v2"), MinHealthyPercentage=50, InstanceWarmup=60)
    eventually(lambda: "v2" in [i.version for i in world.desired("1a")])
    world.autoscaling.cancel_instance_refresh(AutoScalingGroupName=GROUP)
    assert "Cancelled" == world.refreshed()["Status"]
    assert ["v1", "v2"] == sorted(i.version for i in world.desired("1a"))
    with pytest.raises(ClientError) as error:
        world.autoscaling.cancel_instance_refresh(AutoScalingGroupName=GROUP)
    assert "ActiveInstanceRefreshNotFound" == code(error)


def test_rollback_on_request_restores_every_instance(world: AwsWorld) -> None:
    world.refresh(world.new_version("v2"), MinHealthyPercentage=50, InstanceWarmup=60)
    eventually(lambda: "v2" in [i.version for i in world.desired("1a")])
    world.autoscaling.rollback_instance_refresh(AutoScalingGroupName=GROUP)
    eventually(lambda: ["v1", "v1"] == [i.version for i in world.desired("1a")])
    assert "RollbackInProgress" == world.last_refresh()["Status"]  # the warm-up of 60 s holds for the way back too


def test_rollback_without_a_desired_configuration_is_irreversible(world: AwsWorld) -> None:
    world.autoscaling.start_instance_refresh(AutoScalingGroupName=GROUP, Preferences={"InstanceWarmup": 60})
    with pytest.raises(ClientError) as error:
        world.autoscaling.rollback_instance_refresh(AutoScalingGroupName=GROUP)
    assert "IrreversibleInstanceRefresh" == code(error)


def test_a_suspended_refresh_pauses_and_goes_on(world: AwsWorld) -> None:
    group = {"AutoScalingGroupName": GROUP, "ScalingProcesses": ["InstanceRefresh"]}
    world.autoscaling.suspend_processes(**group)
    world.refresh(world.new_version("v2"))
    assert "Pending" == world.last_refresh()["Status"]
    world.autoscaling.resume_processes(**group)
    assert "Successful" == world.refreshed()["Status"]


def test_an_instance_in_traffic_is_drained_before_it_is_replaced(world: AwsWorld) -> None:
    arn = world.front["steady_target_group_arn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": "1"}
    world.elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
    world.refresh(world.new_version("v2"))
    eventually(lambda: [True, True] == [m.draining for m in world.members("steady", "1a")])
    assert ["v1", "v1"] == [i.version for i in world.desired("1a")]
    assert ["Terminating", "Terminating"] == world.lifecycle()
    assert "Successful" == world.refreshed()["Status"]
    eventually(lambda: [False, False] == [m.draining for m in world.members("steady", "1a")])


def test_no_capacity_makes_the_refresh_fail_with_the_reason(world: AwsWorld) -> None:
    world.aws.limit_capacity("aws/us-east-1a", 0)
    world.refresh(world.new_version("v2"))
    done = world.refreshed()
    assert "Failed" == done["Status"]
    assert "do not have sufficient t3.micro capacity" in done["StatusReason"]
