"""Machines that run Failout itself on AWS: the region agents, one in each zone behind one private address, and the host.

Agents hold no state, so any of them answers for the region; one per zone, so that a lost zone leaves the others.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.boot import AGENT_PORT
from infra.components.settings import Appliance, Service


@dataclass(frozen=True, slots=True)
class AwsApplianceArgs:
    """`groups`: name of an Auto Scaling group of one machine -> its subnets. `security_group` is the machines' own."""

    service: Service
    region: str
    role: str
    appliance: Appliance
    user_data: str
    groups: Mapping[str, list[Input[str]]]
    security_group: Input[str]
    profile: Input[str]
    target_group: Input[str] | None = None


class AwsAppliance(pulumi.ComponentResource):
    """Auto Scaling groups of one machine each."""

    def __init__(self, name: str, args: AwsApplianceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Appliance", name, None, opts)
        me, tags = ResourceOptions(parent=self), args.service.labels(args.role)
        template = aws.ec2.LaunchTemplate(
            name,
            region=args.region,
            name=name,
            image_id=args.appliance.image,
            instance_type=args.appliance.size,
            user_data=base64.b64encode(args.user_data.encode()).decode(),
            iam_instance_profile={"arn": args.profile},
            network_interfaces=[
                {"associate_public_ip_address": "false", "security_groups": [args.security_group], "device_index": 0}
            ],
            metadata_options={"http_tokens": "required", "http_endpoint": "enabled", "http_put_response_hop_limit": 1},
            tag_specifications=[{"resource_type": kind, "tags": tags} for kind in ("instance", "volume")],
            update_default_version=True,
            tags=tags,
            opts=me,
        )
        for group, subnets in args.groups.items():
            aws.autoscaling.Group(
                group,
                region=args.region,
                name=group,
                min_size=1,
                max_size=1,
                desired_capacity=1,
                vpc_zone_identifiers=subnets,
                target_group_arns=[args.target_group] if args.target_group is not None else [],
                launch_template={"id": template.id, "version": template.latest_version.apply(lambda n: str(int(n)))},
                health_check_type="EC2",
                wait_for_capacity_timeout="0",
                tags=[{"key": key, "value": value, "propagate_at_launch": True} for key, value in tags.items()],
                opts=me,
            )
        self.register_outputs({})


@dataclass(frozen=True, slots=True)
class AwsAgentAddressArgs:
    service: Service
    region: str
    vpc_id: Input[str]
    subnets: list[Input[str]]
    security_group: Input[str]


class AwsAgentAddress(pulumi.ComponentResource):
    """A private network load balancer over the agents of all zones. `url` is the topology's `agent_url`."""

    url: Output[str]
    target_group_arn: Output[str]

    def __init__(self, name: str, args: AwsAgentAddressArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:AgentAddress", name, None, opts)
        me, tags = ResourceOptions(parent=self), args.service.labels("agent")
        balancer = aws.lb.LoadBalancer(
            name,
            region=args.region,
            name=name,
            load_balancer_type="network",
            internal=True,
            subnets=args.subnets,
            security_groups=[args.security_group],
            enable_cross_zone_load_balancing=True,
            tags=tags,
            opts=me,
        )
        group = aws.lb.TargetGroup(
            name,
            region=args.region,
            name=name,
            port=AGENT_PORT,
            protocol="TCP",
            vpc_id=args.vpc_id,
            target_type="instance",
            deregistration_delay=10,
            health_check={"protocol": "TCP", "interval": 10},
            tags=tags,
            opts=me,
        )
        aws.lb.Listener(
            name,
            region=args.region,
            load_balancer_arn=balancer.arn,
            port=AGENT_PORT,
            protocol="TCP",
            default_actions=[{"type": "forward", "target_group_arn": group.arn}],
            tags=tags,
            opts=me,
        )
        self.url = Output.concat("http://", balancer.dns_name, f":{AGENT_PORT}")
        self.target_group_arn = group.arn
        self.register_outputs({"url": self.url})
