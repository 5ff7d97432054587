"""Provision the service in the emulated AWS through its API, in the order and with the settings that Pulumi uses."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from orchestrator.lab.model import AGENT_PORT, FRONT_PORT, SERVICE_PORT

CREDENTIALS = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab"}


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """One region of the service. `block` is its second octet L; `digest` and `image_id` belong to `version`.

    `deregistration_delay_s` must outlast the longest request. Seconds are AWS's, see Times for those that the lab scales.
    """

    service: str
    region: str
    block: int
    zones: tuple[str, ...]
    version: str
    digest: str = "sha256:0"
    image_id: str = "ami-0f000000000000001"
    instances: int = 3
    instances_max: int = 9
    instances_min: int = 0
    rps_per_instance: float = 40
    weight: int = 100
    deregistration_delay_s: int = 2
    health_interval_s: int = 10
    health_check_grace_s: int = 10
    instance_type: str = "t3.micro"


@dataclass(frozen=True, slots=True)
class Region:
    """`topology` is the region's part of the topology document; the alias is for its Route 53 record."""

    topology: dict[str, Any]
    alias_dns_name: str
    alias_zone_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """One weighted record: an alias of an AWS region's load balancer, or a plain address elsewhere."""

    set_id: str
    weight: int
    alias: Region | None = None
    address: str = ""


def client(service: str, endpoint: str, region: str) -> Any:
    config = Config(retries={"mode": "standard", "max_attempts": 2}, connect_timeout=2, read_timeout=10)
    return boto3.client(service, region_name=region, endpoint_url=endpoint, config=config, **CREDENTIALS)  # type: ignore[call-overload]


def provision_region(endpoint: str, plan: RegionPlan) -> Region:
    """Create network, launch template, load balancer, target groups and one Auto Scaling group per zone.

    Returns before the instances run. Not idempotent: a lab is new or it is not.
    """
    ec2, elb, asg = (client(service, endpoint, plan.region) for service in ("ec2", "elbv2", "autoscaling"))
    vpc, subnets, security_group = _network(ec2, plan)
    template = _template(ec2, plan, security_group)
    balancer = elb.create_load_balancer(
        Name=f"{plan.service}-{plan.region}",
        Subnets=list(subnets.values()),
        SecurityGroups=[security_group],
        Type="application",
    )["LoadBalancers"][0]
    arn = balancer["LoadBalancerArn"]
    attributes = {
        "client_keep_alive.seconds": "300",
        "zonal_shift.config.enabled": "true",
        "load_balancing.cross_zone.enabled": "true",
    }
    elb.modify_load_balancer_attributes(
        LoadBalancerArn=arn, Attributes=[{"Key": key, "Value": value} for key, value in attributes.items()]
    )
    steady, ramp = (_target_group(elb, plan, vpc, kind) for kind in ("steady", "ramp"))
    listener = elb.create_listener(
        LoadBalancerArn=arn, Protocol="HTTP", Port=FRONT_PORT, DefaultActions=[forward({steady: 100, ramp: 0})]
    )["Listeners"][0]["ListenerArn"]
    for zone, subnet in subnets.items():
        _group(asg, plan, zone, subnet, template, steady)
    front = {
        "load_balancer_arn": arn,
        "listener_arn": listener,
        "steady_target_group_arn": steady,
        "ramp_target_group_arn": ramp,
    }
    return Region(_topology(endpoint, plan, front, template), balancer["DNSName"], balancer["CanonicalHostedZoneId"])


def provision_dns(endpoint: str, service: str, records: Sequence[Record], *, ttl_s: int = 5) -> dict[str, Any]:
    """Create the hosted zone and one health-checked weighted record per region; return the document's `global` part."""
    dns, name = client("route53", endpoint, "us-east-1"), f"{service}.lab."
    zone = dns.create_hosted_zone(Name=name, CallerReference=service)["HostedZone"]["Id"].rsplit("/", 1)[-1]
    changes = [{"Action": "UPSERT", "ResourceRecordSet": _record(dns, name, record, ttl_s)} for record in records]
    dns.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})
    return {
        "kind": "route53",
        "ttl_s": ttl_s,
        "record": name,
        "attributes": {"hosted_zone_id": zone},
        "api": {"endpoint_url": endpoint, "region": "us-east-1"},
    }


def forward(weights: dict[str, int]) -> dict[str, Any]:
    groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    return {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}


def _network(ec2: Any, plan: RegionPlan) -> tuple[str, dict[str, str], str]:
    vpc = ec2.create_vpc(CidrBlock=f"127.{plan.block}.0.0/16")["Vpc"]["VpcId"]
    subnets = {
        zone: ec2.create_subnet(VpcId=vpc, CidrBlock=f"127.{plan.block}.{index + 1}.0/24", AvailabilityZone=zone)[
            "Subnet"
        ]["SubnetId"]
        for index, zone in enumerate(plan.zones)
    }
    group = ec2.create_security_group(GroupName=plan.service, Description=plan.service, VpcId=vpc)["GroupId"]
    peers = {
        "IpProtocol": "tcp",
        "FromPort": SERVICE_PORT,
        "ToPort": SERVICE_PORT,
        "IpRanges": [{"CidrIp": f"127.{plan.block}.0.0/24"}],
    }
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[peers])
    return vpc, subnets, group


def _template(ec2: Any, plan: RegionPlan, security_group: str) -> str:
    data = {
        "ImageId": plan.image_id,
        "InstanceType": plan.instance_type,
        "SecurityGroupIds": [security_group],
        "UserData": base64.b64encode(f"VERSION={plan.version}\n".encode()).decode(),
    }
    return str(
        ec2.create_launch_template(
            LaunchTemplateName=plan.service,
            VersionDescription=f"failout {plan.version} {plan.digest}",
            LaunchTemplateData=data,
        )["LaunchTemplate"]["LaunchTemplateId"]
    )


def _target_group(elb: Any, plan: RegionPlan, vpc: str, kind: str) -> str:
    arn = elb.create_target_group(
        Name=f"{plan.service}-{kind}",
        Protocol="HTTP",
        Port=SERVICE_PORT,
        VpcId=vpc,
        TargetType="instance",
        HealthCheckPath="/admit",
        HealthCheckIntervalSeconds=plan.health_interval_s,
        HealthCheckTimeoutSeconds=max(2, plan.health_interval_s // 2),
        HealthyThresholdCount=2,
        UnhealthyThresholdCount=2,
    )["TargetGroups"][0]["TargetGroupArn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(plan.deregistration_delay_s)}
    elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
    return str(arn)


def _group(asg: Any, plan: RegionPlan, zone: str, subnet: str, template: str, steady: str) -> None:
    asg.create_auto_scaling_group(
        AutoScalingGroupName=f"{plan.service}-{zone}",
        MinSize=plan.instances_min,
        MaxSize=plan.instances_max,
        DesiredCapacity=plan.instances,
        VPCZoneIdentifier=subnet,
        TargetGroupARNs=[steady],
        HealthCheckType="EC2",
        HealthCheckGracePeriod=plan.health_check_grace_s,
        LaunchTemplate={"LaunchTemplateId": template, "Version": "1"},
        Tags=[{"Key": "service", "Value": plan.service, "PropagateAtLaunch": True}],
    )


def _topology(endpoint: str, plan: RegionPlan, front: dict[str, str], template: str) -> dict[str, Any]:
    zones = [
        {
            "id": f"aws/{zone}",
            "name": zone,
            "instances": plan.instances,
            "instances_max": plan.instances_max,
            "rps_per_instance": plan.rps_per_instance,
            "fleet": {"auto_scaling_group": f"{plan.service}-{zone}", "launch_template_id": template},
        }
        for zone in plan.zones
    ]
    return {
        "id": f"aws/{plan.region}",
        "cloud": "aws",
        "name": plan.region,
        "weight": plan.weight,
        "agent_url": f"http://127.{plan.block}.0.5:{AGENT_PORT}",
        "front": front,
        "api": {"endpoint_url": endpoint},
        "zones": zones,
    }


def _record(dns: Any, name: str, record: Record, ttl_s: int) -> dict[str, Any]:
    where = {"FullyQualifiedDomainName": record.alias.alias_dns_name} if record.alias else {"IPAddress": record.address}
    check = dns.create_health_check(
        CallerReference=f"{name}{record.set_id}",
        HealthCheckConfig={
            "Type": "HTTP",
            "Port": FRONT_PORT,
            "ResourcePath": "/readyz",
            "RequestInterval": 10,
            "FailureThreshold": 3,
            **where,
        },
    )["HealthCheck"]["Id"]
    answer: dict[str, Any] = {"TTL": ttl_s, "ResourceRecords": [{"Value": record.address}]}
    if record.alias is not None:
        alias = {
            "HostedZoneId": record.alias.alias_zone_id,
            "DNSName": record.alias.alias_dns_name,
            "EvaluateTargetHealth": False,
        }
        answer = {"AliasTarget": alias}
    return {
        "Name": name,
        "Type": "A",
        "SetIdentifier": record.set_id,
        "Weight": record.weight,
        "HealthCheckId": check,
        **answer,
    }
