"""Target groups, listeners, zonal shift and Route 53 in the lab's AWS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aws_world import FAST, GROUP, AwsWorld, eventually, provisioned
from botocore.exceptions import ClientError

from orchestrator.lab.aws import EmulatedAws
from orchestrator.lab.aws.provision import client, forward
from orchestrator.lab.timeline import Timeline


def set_delay(world: AwsWorld, seconds: int) -> None:
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(seconds)}
    world.elbv2.modify_target_group_attributes(
        TargetGroupArn=world.front["steady_target_group_arn"], Attributes=[delay]
    )


def detach(world: AwsWorld, pool: str = "steady") -> None:
    arn = world.front[f"{pool}_target_group_arn"]
    world.autoscaling.detach_load_balancer_target_groups(AutoScalingGroupName=GROUP, TargetGroupARNs=[arn])


def attach(world: AwsWorld, pool: str) -> None:
    arn = world.front[f"{pool}_target_group_arn"]
    world.autoscaling.attach_load_balancer_target_groups(AutoScalingGroupName=GROUP, TargetGroupARNs=[arn])


def attached(world: AwsWorld) -> dict[str, str]:
    found = world.autoscaling.describe_load_balancer_target_groups(AutoScalingGroupName=GROUP)
    return {t["LoadBalancerTargetGroupARN"].split("/")[1]: t["State"] for t in found["LoadBalancerTargetGroups"]}


def test_a_detached_group_drains_for_the_whole_delay_and_is_gone_then(world: AwsWorld) -> None:
    set_delay(world, 1)
    ids = {i.id for i in world.desired("1a")}
    detach(world)
    assert {"draining"} == {state for i, state in world.health().items() if i in ids}
    assert [True, True] == [m.draining for m in world.members("steady", "1a")]
    assert {"gates-steady": "Removing"} == attached(world)
    eventually(lambda: not ids & world.health().keys(), within_s=3)
    eventually(lambda: [] == world.members("steady", "1a"), within_s=1)  # the snapshot is a tick behind
    assert {} == attached(world)
    assert ids == {i.id for i in world.desired("1a")}


def test_a_target_that_was_never_registered_is_unused(world: AwsWorld) -> None:
    target = {"Id": world.desired("1a")[0].id}
    arn = world.front["ramp_target_group_arn"]
    told = world.elbv2.describe_target_health(TargetGroupArn=arn, Targets=[target])["TargetHealthDescriptions"][0]
    assert ("unused", "Target.NotRegistered") == (told["TargetHealth"]["State"], told["TargetHealth"]["Reason"])


def test_targets_of_a_group_at_weight_0_are_checked(world: AwsWorld) -> None:
    attach(world, "ramp")
    eventually(lambda: ["healthy", "healthy"] == list(world.health("ramp").values()))
    assert {"gates-steady": "InService", "gates-ramp": "InService"} == attached(world)


def test_targets_of_a_group_that_no_listener_uses_are_unused(world: AwsWorld) -> None:
    attach(world, "ramp")
    action = forward({world.front["steady_target_group_arn"]: 100})
    world.elbv2.modify_listener(ListenerArn=world.front["listener_arn"], DefaultActions=[action])
    assert ["unused", "unused"] == list(world.health("ramp").values())


def test_until_the_data_plane_has_checked_a_target_it_is_initial(world: AwsWorld) -> None:
    world.machines.stop()
    attach(world, "ramp")
    assert ["initial", "initial"] == list(world.health("ramp").values())


def test_detaching_what_is_not_attached_is_refused(world: AwsWorld) -> None:
    with pytest.raises(ClientError, match="not part of the group"):
        detach(world, "ramp")


def test_deregistering_an_unknown_target_succeeds(world: AwsWorld) -> None:
    arn = world.front["ramp_target_group_arn"]
    world.elbv2.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": world.desired("1a")[0].id}])


def test_a_zone_comes_back_through_ramp_and_its_weights_reach_the_load_balancer(world: AwsWorld) -> None:
    detach(world)
    attach(world, "ramp")
    steady, ramp = world.front["steady_target_group_arn"], world.front["ramp_target_group_arn"]
    world.elbv2.modify_listener(
        ListenerArn=world.front["listener_arn"], DefaultActions=[forward({steady: 200, ramp: 10})]
    )
    front = world.aws.desired()[0].fronts[0]
    assert {"gates-steady": 200, "gates-ramp": 10} == front.weights
    assert (4, 2) == (len(world.members("steady")), len(world.members("ramp")))


def test_traffic_sources_are_the_same_attachments(world: AwsWorld) -> None:
    source = {"Identifier": world.front["ramp_target_group_arn"], "Type": "elbv2"}
    world.autoscaling.attach_traffic_sources(AutoScalingGroupName=GROUP, TrafficSources=[source])
    told = world.autoscaling.describe_traffic_sources(AutoScalingGroupName=GROUP)["TrafficSources"]
    assert 2 == len(told)
    world.autoscaling.detach_traffic_sources(AutoScalingGroupName=GROUP, TrafficSources=[source])
    assert [] == world.members("ramp")


def test_a_listener_takes_at_most_5_groups(world: AwsWorld) -> None:
    vpc = world.ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["127.21.0.0/16"]}])["Vpcs"][0]["VpcId"]
    arns = [
        world.elbv2.create_target_group(Name=f"more-{n}", Protocol="HTTP", Port=8080, VpcId=vpc)["TargetGroups"][0]
        for n in range(6)
    ]
    action = forward({group["TargetGroupArn"]: 1 for group in arns})
    with pytest.raises(ClientError, match="at most 5 target groups"):
        world.elbv2.modify_listener(ListenerArn=world.front["listener_arn"], DefaultActions=[action])


def test_a_weight_beyond_999_is_refused(world: AwsWorld) -> None:
    action = forward({world.front["steady_target_group_arn"]: 1000})
    with pytest.raises(ClientError, match="between 0 and 999"):
        world.elbv2.modify_listener(ListenerArn=world.front["listener_arn"], DefaultActions=[action])


def test_the_balancer_has_a_node_per_zone_and_its_probe_follows_the_health_check(world: AwsWorld) -> None:
    front = world.aws.desired()[0].fronts[0]
    assert {f"aws/us-east-1{z}": f"127.21.0.{n}" for z, n in (("a", 10), ("b", 11), ("c", 12))} == front.nodes
    pool = front.pools[0]
    assert ("/admit", 0.2, 2, 2) == (pool.probe_path, pool.probe_interval_s, pool.healthy_after, pool.unhealthy_after)


# Zonal shift: us-east-1a is use1-az6 in the emulated account.


def shift(world: AwsWorld, zone: str = "use1-az6", expires: str = "30m") -> str:
    return world.arc_zonal_shift.start_zonal_shift(
        resourceIdentifier=world.front["load_balancer_arn"], awayFrom=zone, expiresIn=expires, comment="test"
    )["zonalShiftId"]


def away(world: AwsWorld) -> frozenset[str]:
    return world.aws.desired()[0].fronts[0].away


def test_a_zonal_shift_takes_the_zone_away_until_it_is_cancelled(world: AwsWorld) -> None:
    started = shift(world)
    assert {"aws/us-east-1a"} == away(world)
    listed = world.arc_zonal_shift.list_zonal_shifts(status="ACTIVE")["items"]
    assert [(started, "use1-az6", "ZONAL_SHIFT")] == [
        (s["zonalShiftId"], s["awayFrom"], s["shiftType"]) for s in listed
    ]
    world.arc_zonal_shift.cancel_zonal_shift(zonalShiftId=started)
    assert frozenset() == away(world)
    with pytest.raises(ClientError, match="not active"):
        world.arc_zonal_shift.cancel_zonal_shift(zonalShiftId=started)


def test_a_second_shift_of_the_same_balancer_conflicts(world: AwsWorld) -> None:
    started = shift(world)
    with pytest.raises(ClientError) as error:
        shift(world, "use1-az1")
    assert "ConflictException" == error.value.response["Error"]["Code"]
    assert (started, "ZonalShiftAlreadyExists") == (
        error.value.response["zonalShiftId"],
        error.value.response["reason"],
    )


def test_an_expiry_can_be_moved(world: AwsWorld) -> None:
    started = shift(world)
    before = world.arc_zonal_shift.list_zonal_shifts()["items"][0]["expiryTime"]
    after = world.arc_zonal_shift.update_zonal_shift(zonalShiftId=started, expiresIn="3h")["expiryTime"]
    assert after > before


@pytest.mark.parametrize(("zone", "expires"), [("use1-az6", "73h"), ("use1-az6", "soon"), ("us-east-1a", "1h")])
def test_a_shift_beyond_72_hours_or_of_no_zone_id_is_invalid(world: AwsWorld, zone: str, expires: str) -> None:
    with pytest.raises(ClientError) as error:
        shift(world, zone, expires)
    assert "ValidationException" == error.value.response["Error"]["Code"]


# Route 53.


def records(world: AwsWorld) -> dict[str, tuple[int, str, tuple[str, ...]]]:
    return {r.set_id: (r.weight, r.front, r.addresses) for r in world.aws.desired_dns().records}


def test_weighted_records_name_the_balancer_or_an_address(world: AwsWorld) -> None:
    eventually(lambda: records(world))
    assert {
        "aws/us-east-1": (100, "gates-us-east-1", ()),
        "azure/eastus": (50, "", ("127.22.0.20",)),
    } == records(world)
    checks = {(c.front, c.address, c.path, c.interval_s, c.failures) for c in world.aws.desired_dns().checks}
    assert {("gates-us-east-1", "", "/readyz", 0.5, 3), ("", "127.22.0.20", "/readyz", 0.5, 3)} == checks


def test_a_change_is_pending_and_old_answers_stand_until_it_is_in_sync(world: AwsWorld) -> None:
    eventually(lambda: records(world))
    zone = world.dns["attributes"]["hosted_zone_id"]
    listed = world.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    record = next(r for r in listed if r.get("SetIdentifier") == "azure/eastus")
    batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": {**record, "Weight": 0}}]}
    change = world.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)["ChangeInfo"]
    assert "PENDING" == change["Status"]
    assert 50 == records(world)["azure/eastus"][0]
    eventually(lambda: "INSYNC" == world.route53.get_change(Id=change["Id"])["ChangeInfo"]["Status"])
    eventually(lambda: 0 == records(world)["azure/eastus"][0])


def test_a_weight_beyond_255_is_refused(world: AwsWorld) -> None:
    record = {"Name": "gates.lab.", "Type": "A", "SetIdentifier": "x", "Weight": 256, "TTL": 5}
    batch = {
        "Changes": [
            {"Action": "UPSERT", "ResourceRecordSet": {**record, "ResourceRecords": [{"Value": "127.22.0.20"}]}}
        ]
    }
    with pytest.raises(ClientError) as error:
        world.route53.change_resource_record_sets(
            HostedZoneId=world.dns["attributes"]["hosted_zone_id"], ChangeBatch=batch
        )
    assert "InvalidChangeBatch" == error.value.response["Error"]["Code"]


# The endpoint.


def test_every_call_is_in_the_timeline_with_its_status(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    with EmulatedAws(times=FAST, timeline=Timeline(path)) as aws:
        client("sts", aws.endpoint, "us-east-1").get_caller_identity()
        client("route53", aws.endpoint, "us-east-1").list_hosted_zones()
        with pytest.raises(ClientError):
            client("elbv2", aws.endpoint, "us-east-1").describe_target_health(TargetGroupArn="none")
    calls = [json.loads(line) for line in path.read_text().splitlines()]
    assert [
        ("api", "aws", "sts.GetCallerIdentity", 200),
        ("api", "aws", "route53.ListHostedZones", 200),
        ("api", "aws", "elbv2.DescribeTargetHealth", 400),
    ] == [(c["kind"], c["cloud"], c["call"], c["status"]) for c in calls]


def test_only_one_emulated_aws_runs_in_a_process(world: AwsWorld) -> None:
    with pytest.raises(RuntimeError, match="runs in this process already"):
        EmulatedAws().start()


def test_a_new_one_starts_empty() -> None:
    with provisioned() as first:
        assert 6 == len(first.desired())
    with EmulatedAws() as second:
        assert (
            []
            == client("autoscaling", second.endpoint, "us-east-1").describe_auto_scaling_groups()["AutoScalingGroups"]
        )
        assert () == second.desired_dns().records
