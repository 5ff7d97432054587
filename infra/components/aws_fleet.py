"""The service's fleets on AWS: one launch template for a region, one Auto Scaling group for a zone.

After creation Failout owns what an Auto Scaling group launches, how many, and which target groups it serves: those
inputs are ignored, so that `pulumi up` in the middle of a deploy moves nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, Resource, ResourceOptions

from infra.components.settings import AwsRegionSettings, Service

# Suspended processes too: the provider would resume what Failout froze for an upgrade.
OWNED_BY_FAILOUT = (
    "desired_capacity",
    "min_size",
    "launch_template",
    "target_group_arns",
    "traffic_sources",
    "suspended_processes",
)
TEMPLATE_OWNED_BY_FAILOUT = ("image_id", "user_data", "description", "instance_type", "default_version")


@dataclass(frozen=True, slots=True)
class AwsTemplateArgs:
    service: Service
    region: AwsRegionSettings
    security_group: Input[str]
    instance_profile: Input[str]


class AwsTemplate(pulumi.ComponentResource):
    """What instances of a region are launched from: private, encrypted, IMDSv2 only. `id`, `version` (the first)."""

    template_id: Output[str]
    version: Output[str]

    def __init__(self, name: str, args: AwsTemplateArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Template", name, None, opts)
        release, tags = args.service.release, args.service.labels("fleet")
        template = aws.ec2.LaunchTemplate(
            name,
            region=args.region.name,
            name=args.service.service,
            # The words by which Failout finds which release a numbered version carries.
            description=f"failout {release.version} {release.digest}",
            image_id=args.region.image_id,
            instance_type=args.region.instance_type,
            user_data=base64.b64encode(release.user_data.encode()).decode(),
            iam_instance_profile={"arn": args.instance_profile},
            network_interfaces=[
                {"associate_public_ip_address": "false", "security_groups": [args.security_group], "device_index": 0}
            ],
            block_device_mappings=[
                {
                    "device_name": args.region.root_device,
                    "ebs": {"encrypted": "true", "volume_type": "gp3", "delete_on_termination": "true"},
                }
            ],
            metadata_options={"http_tokens": "required", "http_endpoint": "enabled", "http_put_response_hop_limit": 1},
            monitoring={"enabled": True},
            tag_specifications=[{"resource_type": kind, "tags": tags} for kind in ("instance", "volume")],
            tags=tags,
            opts=ResourceOptions(parent=self, ignore_changes=list(TEMPLATE_OWNED_BY_FAILOUT)),
        )
        self.template_id, self.version = template.id, template.latest_version.apply(lambda number: str(int(number)))
        self.register_outputs({"template_id": template.id})


@dataclass(frozen=True, slots=True)
class AwsZoneFleetArgs:
    service: Service
    region: AwsRegionSettings
    zone: str
    subnet: Input[str]
    template_id: Input[str]
    version: Input[str]
    target_group: Input[str]
    after: Sequence[Resource] = ()


class AwsZoneFleet(pulumi.ComponentResource):
    """One zone's instances, in one subnet, that scale by their own CPU. `group` is the Auto Scaling group's name.

    Health is EC2's alone: were it the load balancer's, whose path is `/admit`, a drained zone would be terminated.
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-health-checks.html
    """

    group: Output[str]

    def __init__(self, name: str, args: AwsZoneFleetArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:ZoneFleet", name, None, opts)
        capacity, zones = args.region.capacity, len(args.region.zones)
        labels = args.service.labels("fleet", args.zone, **{"failout-zones": str(zones), "failout-cloud": "aws"})
        group = aws.autoscaling.Group(
            name,
            region=args.region.name,
            name=f"{args.service.service}-{args.zone}",
            min_size=capacity.instances,
            desired_capacity=capacity.instances,
            max_size=capacity.instances_max,
            vpc_zone_identifiers=[args.subnet],
            target_group_arns=[args.target_group],
            launch_template={"id": args.template_id, "version": args.version},
            health_check_type="EC2",
            health_check_grace_period=args.service.timing.grace_s,
            wait_for_capacity_timeout="0",  # the orchestrator waits, with reasons; a deploy's state must not fail `up`
            enabled_metrics=["GroupInServiceInstances", "GroupDesiredCapacity"],
            tags=[{"key": key, "value": value, "propagate_at_launch": True} for key, value in labels.items()],
            opts=ResourceOptions(parent=self, ignore_changes=list(OWNED_BY_FAILOUT), depends_on=list(args.after)),
        )
        aws.autoscaling.Policy(
            name,
            region=args.region.name,
            name=f"{args.service.service}-{args.zone}-cpu",
            autoscaling_group_name=group.name,
            policy_type="TargetTrackingScaling",
            target_tracking_configuration={
                "predefined_metric_specification": {"predefined_metric_type": "ASGAverageCPUUtilization"},
                "target_value": round(100 * capacity.scaling_target(zones), 1),
            },
            opts=ResourceOptions(parent=self),
        )
        self.group = group.name
        self.register_outputs({"group": group.name})
