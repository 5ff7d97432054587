"""Auto Scaling groups, launch templates and addresses in the lab's AWS."""

from __future__ import annotations

import pytest
from aws_world import GROUP, AwsWorld, eventually, provisioned
from botocore.exceptions import ClientError

from orchestrator.lab.model import ScaledFleet


def test_each_zone_has_its_instances_on_its_own_subnet_from_10_on(world: AwsWorld) -> None:
    addresses = {i.zone: [] for i in world.desired()}
    for instance in world.desired():
        addresses[instance.zone].append(instance.address)
    assert {
        "aws/us-east-1a": ["127.21.1.10", "127.21.1.11"],
        "aws/us-east-1b": ["127.21.2.10", "127.21.2.11"],
        "aws/us-east-1c": ["127.21.3.10", "127.21.3.11"],
    } == addresses


def test_ec2_reports_the_addresses_that_the_machines_have(world: AwsWorld) -> None:
    reservations = world.ec2.describe_instances()["Reservations"]
    told = {i["InstanceId"]: i["PrivateIpAddress"] for r in reservations for i in r["Instances"]}
    assert {i.id: i.address for i in world.desired()} == told


def test_an_address_is_not_given_out_again_at_once(world: AwsWorld) -> None:
    old = {i.address for i in world.desired("1a")}
    world.refresh("1", SkipMatching=False)
    world.refreshed()
    assert {"127.21.1.12", "127.21.1.13"} == {i.address for i in world.desired("1a")}
    assert not old & {i.address for i in world.desired("1a")}


def test_scaling_out_launches_and_registers_in_the_groups_target_groups(world: AwsWorld) -> None:
    world.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=4, DesiredCapacity=4)
    eventually(lambda: 4 == len(world.members("steady", "1a")))
    eventually(lambda: ["InService"] * 4 == world.lifecycle())
    eventually(lambda: ["healthy"] * 8 == list(world.health().values()))


def test_scaling_in_drains_before_it_terminates(world: AwsWorld) -> None:
    arn = world.front["steady_target_group_arn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": "1"}
    world.elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
    world.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    eventually(lambda: [False, True] == sorted(m.draining for m in world.members("steady", "1a")))
    assert 2 == len(world.desired("1a"))
    eventually(lambda: 1 == len(world.desired("1a")))
    eventually(lambda: ["InService"] == world.lifecycle())


def test_desired_capacity_beyond_the_maximum_is_refused(world: AwsWorld) -> None:
    with pytest.raises(ClientError, match="must be between the specified min size:0 and max size:9"):
        world.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=10)
    with pytest.raises(ClientError, match="Desired capacity:5 must be between"):
        world.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MaxSize=4, DesiredCapacity=5)
    assert (9, 2) == (world.group()["MaxSize"], world.group()["DesiredCapacity"])


def test_desired_capacity_follows_a_higher_minimum(world: AwsWorld) -> None:
    world.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=3)
    assert 3 == world.group()["DesiredCapacity"]


def test_an_unknown_group_is_the_callers_error(world: AwsWorld) -> None:
    with pytest.raises(ClientError, match="AutoScalingGroup 'gone' not found"):
        world.autoscaling.set_desired_capacity(AutoScalingGroupName="gone", DesiredCapacity=1)


def test_a_sick_instance_is_replaced(world: AwsWorld) -> None:
    sick = world.desired("1a")[0].id
    world.machines.sick.add(sick)
    eventually(lambda: sick not in {i.id for i in world.desired("1a")} and len(world.desired("1a")) == 2)
    eventually(lambda: ["InService", "InService"] == world.lifecycle())


def test_within_its_grace_period_it_is_not_replaced() -> None:
    with provisioned(health_check_grace_s=60) as world:
        sick = world.desired("1a")[0].id
        world.machines.sick.add(sick)
        eventually(lambda: "unhealthy" in world.health().values())
        assert ["Healthy", "Healthy"] == [i["HealthStatus"] for i in world.group()["Instances"]]


@pytest.mark.parametrize("process", ["HealthCheck", "ReplaceUnhealthy"])
def test_a_suspended_process_leaves_a_sick_instance_alone(world: AwsWorld, process: str) -> None:
    world.autoscaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=[process])
    world.machines.sick.add(world.desired("1a")[0].id)
    before, marked = world.desired("1a"), ["Healthy", "Unhealthy"] if process == "ReplaceUnhealthy" else ["Healthy"] * 2
    eventually(lambda: "unhealthy" in world.health().values())
    eventually(lambda: marked == sorted(i["HealthStatus"] for i in world.group()["Instances"]))
    assert before == world.desired("1a")


def test_an_instance_that_is_not_admitted_is_not_replaced_by_a_group_with_ec2_checks(world: AwsWorld) -> None:
    instance = world.desired("1a")[0].id
    world.machines.unadmitted.add(instance)
    eventually(lambda: "unhealthy" == world.health()[instance])
    assert ["Healthy", "Healthy"] == [i["HealthStatus"] for i in world.group()["Instances"]]


def test_a_group_with_elb_checks_does_replace_it(world: AwsWorld) -> None:
    world.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, HealthCheckType="ELB")
    instance = world.desired("1a")[0].id
    world.machines.unadmitted.add(instance)
    eventually(lambda: instance not in {i.id for i in world.desired("1a")})


def test_suspended_launch_leaves_the_group_short(world: AwsWorld) -> None:
    world.autoscaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Launch"])
    world.ec2.terminate_instances(InstanceIds=[world.desired("1a")[0].id])
    eventually(lambda: ["InService"] == world.lifecycle())
    world.autoscaling.resume_processes(AutoScalingGroupName=GROUP)
    eventually(lambda: ["InService", "InService"] == world.lifecycle())


def test_an_instance_terminated_by_hand_leaves_its_target_group_and_is_replaced(world: AwsWorld) -> None:
    gone = world.desired("1a")[0].id
    world.ec2.terminate_instances(InstanceIds=[gone])
    assert gone not in {i.id for i in world.desired("1a")}  # the machine dies with the call: nothing has drained
    eventually(lambda: gone not in world.health() and 6 == len(world.health()))


def test_terminating_in_the_group_replaces_or_shrinks(world: AwsWorld) -> None:
    one, two = (i.id for i in world.desired("1a"))
    terminate = world.autoscaling.terminate_instance_in_auto_scaling_group
    terminate(InstanceId=one, ShouldDecrementDesiredCapacity=True)
    eventually(lambda: [two] == [i["InstanceId"] for i in world.group()["Instances"]])
    terminate(InstanceId=two, ShouldDecrementDesiredCapacity=False)
    eventually(lambda: ["InService"] == world.lifecycle() and two != world.group()["Instances"][0]["InstanceId"])


def test_an_instance_in_standby_leaves_traffic_and_keeps_running(world: AwsWorld) -> None:
    one = world.desired("1a")[0].id
    ids = {"AutoScalingGroupName": GROUP, "InstanceIds": [one]}
    world.autoscaling.enter_standby(ShouldDecrementDesiredCapacity=True, **ids)
    assert ["InService", "Standby"] == world.lifecycle()
    assert one not in {m.instance for m in world.members("steady")}
    assert one in {i.id for i in world.desired("1a")}
    world.autoscaling.exit_standby(**ids)
    eventually(lambda: one in {m.instance for m in world.members("steady")})


def test_a_stopped_instance_is_replaced(world: AwsWorld) -> None:
    stopped = world.desired("1a")[0].id
    world.ec2.stop_instances(InstanceIds=[stopped])
    eventually(lambda: stopped not in {i["InstanceId"] for i in world.group()["Instances"]})
    eventually(lambda: ["InService", "InService"] == world.lifecycle())


def test_a_group_with_instances_is_deleted_by_force_only(world: AwsWorld) -> None:
    with pytest.raises(ClientError) as error:
        world.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP)
    assert "ResourceInUse" == error.value.response["Error"]["Code"]
    world.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    assert [] == world.desired("1a")
    assert [] == world.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"]


def test_no_capacity_is_an_activity_that_says_so(world: AwsWorld) -> None:
    world.aws.limit_capacity("us-east-1a", 2)
    world.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=3)

    def last() -> dict[str, str]:
        return world.autoscaling.describe_scaling_activities(AutoScalingGroupName=GROUP)["Activities"][0]

    eventually(lambda: "Failed" == last()["StatusCode"])
    assert "We currently do not have sufficient t3.micro capacity" in last()["StatusMessage"]
    world.aws.limit_capacity("us-east-1a", None)
    eventually(lambda: ["InService"] * 3 == world.lifecycle())


def test_a_template_version_starts_from_its_source_and_keeps_its_description(world: AwsWorld) -> None:
    world.new_version("v2")
    versions = world.ec2.describe_launch_template_versions(LaunchTemplateId=world.template)["LaunchTemplateVersions"]
    assert [2, 1] == [v["VersionNumber"] for v in versions]
    assert "failout v2 sha256:v2" == versions[0]["VersionDescription"]
    assert versions[1]["LaunchTemplateData"]["ImageId"] == versions[0]["LaunchTemplateData"]["ImageId"]
    assert "VkVSU0lPTj12Mgo=" == versions[0]["LaunchTemplateData"]["UserData"]


def test_more_than_15_template_versions_are_all_described(world: AwsWorld) -> None:
    for n in range(2, 20):
        world.new_version(f"v{n}")
    pages = world.ec2.get_paginator("describe_launch_template_versions").paginate(
        LaunchTemplateId=world.template, PaginationConfig={"PageSize": 8}
    )
    assert list(range(19, 0, -1)) == [v["VersionNumber"] for page in pages for v in page["LaunchTemplateVersions"]]


def test_an_unknown_template_version_is_refused(world: AwsWorld) -> None:
    with pytest.raises(ClientError, match=r"InvalidLaunchTemplateId\.VersionNotFound"):
        world.ec2.describe_launch_template_versions(LaunchTemplateId=world.template, Versions=["7"])


def test_a_machine_without_a_version_in_its_user_data_runs_nothing(world: AwsWorld) -> None:
    subnet = world.group()["VPCZoneIdentifier"]
    world.ec2.run_instances(ImageId="ami-0f000000000000001", MinCount=1, MaxCount=1, SubnetId=subnet)
    assert 2 == len(world.desired("1a"))


def test_a_reboot_starts_the_machine_anew(world: AwsWorld) -> None:
    world.ec2.reboot_instances(InstanceIds=[world.desired("1a")[0].id])
    assert [2, 1] == [i.incarnation for i in world.desired("1a")]


def test_an_autoscaler_sees_its_bounds_and_is_frozen_when_alarms_may_not_notify(world: AwsWorld) -> None:
    def fleet() -> ScaledFleet:
        return next(f for f in world.aws.fleets() if f.zone == "aws/us-east-1a")

    assert ScaledFleet("aws/us-east-1a", 2, 2, 0, 9, frozen=False) == fleet()
    world.autoscaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["AlarmNotification"])
    assert fleet().frozen
    world.aws.limit_capacity("us-east-1a", 2)
    world.aws.resize("aws/us-east-1a", 4)
    eventually(lambda: "sufficient" in fleet().refused)
    assert (4, 2) == (fleet().desired, fleet().there)
