"""Makes in the emulated AWS what the lab's data plane needs; the rest is written down (recorded.py).

Made for real: networks, security groups, launch templates, load balancers, target groups, listeners, Auto Scaling
groups, hosted zones, health checks, records. An update writes every field that its API call takes, also those that did not change: as
harsh as a provider may be, so that a program that forgets what belongs to Failout is found out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.lab import recorded
from infra.lab.recorded import Json

CREDENTIALS = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab"}
GONE = ("NotFound", "NoSuch", "does not exist", "not found")


class AwsLab:
    """Create, read, update, delete by Pulumi's type names and input names."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._create: dict[str, Callable[[str, Json], tuple[str, Json]]] = {
            "aws:ec2/vpc:Vpc": self._vpc,
            "aws:ec2/subnet:Subnet": self._subnet,
            "aws:ec2/securityGroup:SecurityGroup": self._security_group,
            "aws:ec2/launchTemplate:LaunchTemplate": self._template,
            "aws:lb/loadBalancer:LoadBalancer": self._balancer,
            "aws:lb/targetGroup:TargetGroup": self._target_group,
            "aws:lb/listener:Listener": self._listener,
            "aws:autoscaling/group:Group": self._group,
            "aws:route53/zone:Zone": self._zone,
            "aws:route53/healthCheck:HealthCheck": self._health_check,
            "aws:route53/record:Record": self._record,
        }
        self._read: dict[str, Callable[[str, Json], Json]] = {
            "aws:lb/listener:Listener": self._listener_now,
            "aws:autoscaling/group:Group": self._group_now,
            "aws:ec2/launchTemplate:LaunchTemplate": self._template_now,
            "aws:route53/record:Record": self._record_now,
        }

    def create(self, kind: str, name: str, inputs: Json) -> tuple[str, Json]:
        make = self._create.get(kind)
        if make is None:
            return recorded.answer(kind, name, inputs)
        made, outputs = make(name, inputs)
        return made, {**inputs, **outputs}

    def read(self, kind: str, id_: str, inputs: Json) -> Json | None:
        """Return the inputs as the cloud has them now; None when the resource is gone."""
        look = self._read.get(kind)
        if look is None:
            return inputs
        try:
            return {**inputs, **look(id_, inputs)}
        except ClientError as error:
            if any(word in str(error) for word in GONE):
                return None
            raise

    def update(self, kind: str, id_: str, inputs: Json) -> Json:
        """Write `inputs`, all of them, and return the outputs that changed."""
        region = str(inputs.get("region", ""))
        if kind == "aws:autoscaling/group:Group":
            self._client("autoscaling", region).update_auto_scaling_group(AutoScalingGroupName=id_, **_sizes(inputs))
            self._client("autoscaling", region).create_or_update_tags(Tags=_tags(id_, inputs))
        elif kind == "aws:lb/listener:Listener":
            self._client("elbv2", region).modify_listener(ListenerArn=id_, DefaultActions=_actions(inputs))
        elif kind == "aws:lb/targetGroup:TargetGroup":
            self._client("elbv2", region).modify_target_group(TargetGroupArn=id_, **_health(inputs))
            self._delay(id_, inputs)
        elif kind == "aws:route53/record:Record":
            self._upsert(inputs)
        elif kind == "aws:ec2/launchTemplate:LaunchTemplate":
            made = self._client("ec2", region).create_launch_template_version(
                LaunchTemplateId=id_, VersionDescription=inputs.get("description", ""), LaunchTemplateData=_data(inputs)
            )
            return {**inputs, "latestVersion": made["LaunchTemplateVersion"]["VersionNumber"]}
        return dict(inputs)

    def delete(self, kind: str, id_: str, inputs: Json) -> None:
        """Delete it; a resource that is gone already, or was only written down, is none to delete."""
        region = str(inputs.get("region", ""))
        calls: dict[str, tuple[str, str, Json]] = {
            "aws:autoscaling/group:Group": (
                "autoscaling",
                "delete_auto_scaling_group",
                {"AutoScalingGroupName": id_, "ForceDelete": True},
            ),
            "aws:lb/listener:Listener": ("elbv2", "delete_listener", {"ListenerArn": id_}),
            "aws:lb/targetGroup:TargetGroup": ("elbv2", "delete_target_group", {"TargetGroupArn": id_}),
            "aws:lb/loadBalancer:LoadBalancer": ("elbv2", "delete_load_balancer", {"LoadBalancerArn": id_}),
            "aws:ec2/launchTemplate:LaunchTemplate": ("ec2", "delete_launch_template", {"LaunchTemplateId": id_}),
        }
        if kind == "aws:route53/record:Record":
            self._change("DELETE", inputs)
        elif kind in calls:
            service, call, arguments = calls[kind]
            getattr(self._client(service, region), call)(**arguments)

    def _client(self, service: str, region: str) -> Any:
        key = (service, region or "us-east-1")
        with self._lock:  # clients are safe to share between threads, making them is not
            if key not in self._clients:
                config = Config(retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=20)
                self._clients[key] = boto3.client(  # type: ignore[call-overload]
                    service, region_name=key[1], endpoint_url=self._endpoint, config=config, **CREDENTIALS
                )
            return self._clients[key]

    # EC2

    def _vpc(self, _name: str, i: Json) -> tuple[str, Json]:
        return str(self._client("ec2", i["region"]).create_vpc(CidrBlock=i["cidrBlock"])["Vpc"]["VpcId"]), {}

    def _subnet(self, _name: str, i: Json) -> tuple[str, Json]:
        made = self._client("ec2", i["region"]).create_subnet(
            VpcId=i["vpcId"], CidrBlock=i["cidrBlock"], AvailabilityZone=i["availabilityZone"]
        )
        return str(made["Subnet"]["SubnetId"]), {}

    def _security_group(self, _name: str, i: Json) -> tuple[str, Json]:
        ec2 = self._client("ec2", i["region"])
        group = ec2.create_security_group(GroupName=i["name"], Description=i["description"], VpcId=i["vpcId"])[
            "GroupId"
        ]
        if rules := [_permission(rule) for rule in i.get("ingress") or []]:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
        return str(group), {}

    def _template(self, _name: str, i: Json) -> tuple[str, Json]:
        made = self._client("ec2", i["region"]).create_launch_template(
            LaunchTemplateName=i["name"], VersionDescription=i.get("description", ""), LaunchTemplateData=_data(i)
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"]), {"latestVersion": 1}

    def _template_now(self, id_: str, i: Json) -> Json:
        """What the provider reads back is the newest version, whoever made it."""
        newest = self._client("ec2", i["region"]).describe_launch_template_versions(
            LaunchTemplateId=id_, Versions=["$Latest"]
        )["LaunchTemplateVersions"][0]
        data = newest["LaunchTemplateData"]
        return {
            "description": newest.get("VersionDescription", ""),
            "imageId": data.get("ImageId", ""),
            "userData": data.get("UserData", ""),
        }

    # Load balancing

    def _balancer(self, _name: str, i: Json) -> tuple[str, Json]:
        elb = self._client("elbv2", i["region"])
        made = elb.create_load_balancer(
            Name=i["name"], Subnets=i["subnets"], SecurityGroups=i["securityGroups"], Type=i["loadBalancerType"]
        )["LoadBalancers"][0]
        attributes = {
            "client_keep_alive.seconds": str(i["clientKeepAlive"]),
            "zonal_shift.config.enabled": str(i["enableZonalShift"]).lower(),
            "load_balancing.cross_zone.enabled": str(i["enableCrossZoneLoadBalancing"]).lower(),
        }
        arn = str(made["LoadBalancerArn"])
        elb.modify_load_balancer_attributes(
            LoadBalancerArn=arn, Attributes=[{"Key": k, "Value": v} for k, v in attributes.items()]
        )
        return arn, {"arn": arn, "dnsName": made["DNSName"], "zoneId": made["CanonicalHostedZoneId"]}

    def _target_group(self, _name: str, i: Json) -> tuple[str, Json]:
        made = self._client("elbv2", i["region"]).create_target_group(
            Name=i["name"],
            Protocol=i["protocol"],
            Port=i["port"],
            VpcId=i["vpcId"],
            TargetType=i["targetType"],
            **_health(i),
        )
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        self._delay(arn, i)
        return arn, {"arn": arn}

    def _delay(self, arn: str, i: Json) -> None:
        delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(i["deregistrationDelay"])}
        self._client("elbv2", i["region"]).modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])

    def _listener(self, _name: str, i: Json) -> tuple[str, Json]:
        made = self._client("elbv2", i["region"]).create_listener(
            LoadBalancerArn=i["loadBalancerArn"], Protocol=i["protocol"], Port=i["port"], DefaultActions=_actions(i)
        )
        arn = str(made["Listeners"][0]["ListenerArn"])
        return arn, {"arn": arn}

    def _listener_now(self, id_: str, i: Json) -> Json:
        found = self._client("elbv2", i["region"]).describe_listeners(ListenerArns=[id_])["Listeners"][0]
        weights = {
            g["TargetGroupArn"]: g["Weight"] for g in found["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
        }
        forward = i["defaultActions"][0]["forward"]
        groups = [{**g, "weight": weights.get(g["arn"], g["weight"])} for g in forward["targetGroups"]]
        return {"defaultActions": [{**i["defaultActions"][0], "forward": {**forward, "targetGroups": groups}}]}

    # Auto Scaling

    def _group(self, _name: str, i: Json) -> tuple[str, Json]:
        self._client("autoscaling", i["region"]).create_auto_scaling_group(
            AutoScalingGroupName=i["name"],
            VPCZoneIdentifier=",".join(i["vpcZoneIdentifiers"]),
            TargetGroupARNs=i["targetGroupArns"],
            HealthCheckType=i["healthCheckType"],
            HealthCheckGracePeriod=i.get("healthCheckGracePeriod", 0),
            Tags=_tags(i["name"], i),
            **_sizes(i),
        )
        return str(i["name"]), {}

    def _group_now(self, id_: str, i: Json) -> Json:
        found = self._client("autoscaling", i["region"]).describe_auto_scaling_groups(AutoScalingGroupNames=[id_])
        if not found["AutoScalingGroups"]:
            raise ClientError({"Error": {"Code": "NotFound"}}, "DescribeAutoScalingGroups")
        group = found["AutoScalingGroups"][0]
        template = group["LaunchTemplate"]
        return {
            "minSize": group["MinSize"],
            "maxSize": group["MaxSize"],
            "desiredCapacity": group["DesiredCapacity"],
            "targetGroupArns": group["TargetGroupARNs"],
            "launchTemplate": {"id": template["LaunchTemplateId"], "version": template["Version"]},
        }

    # Route 53

    def _zone(self, name: str, i: Json) -> tuple[str, Json]:
        made = self._client("route53", "").create_hosted_zone(Name=i["name"], CallerReference=name)["HostedZone"]["Id"]
        zone = str(made).rsplit("/", 1)[-1]
        return zone, {"zoneId": zone}

    def _health_check(self, name: str, i: Json) -> tuple[str, Json]:
        where = {"FullyQualifiedDomainName": i["fqdn"]} if "fqdn" in i else {"IPAddress": i["ipAddress"]}
        config = {
            "Type": i["type"],
            "Port": i["port"],
            "ResourcePath": i["resourcePath"],
            "RequestInterval": i["requestInterval"],
            "FailureThreshold": i["failureThreshold"],
            **where,
        }
        made = self._client("route53", "").create_health_check(CallerReference=name, HealthCheckConfig=config)
        return str(made["HealthCheck"]["Id"]), {}

    def _record(self, _name: str, i: Json) -> tuple[str, Json]:
        self._upsert(i)
        return f"{i['zoneId']}_{i['name']}_{i['type']}_{i['setIdentifier']}", {"fqdn": i["name"].rstrip(".")}

    def _record_now(self, _id: str, i: Json) -> Json:
        found = self._client("route53", "").list_resource_record_sets(HostedZoneId=i["zoneId"])["ResourceRecordSets"]
        weight = next(r["Weight"] for r in found if r.get("SetIdentifier") == i["setIdentifier"])
        return {"weightedRoutingPolicies": [{"weight": weight}]}

    def _upsert(self, i: Json) -> None:
        self._change("UPSERT", i)

    def _change(self, action: str, i: Json) -> None:
        answer: Json = {"TTL": i.get("ttl"), "ResourceRecords": [{"Value": value} for value in i.get("records") or []]}
        if i.get("aliases"):
            alias = i["aliases"][0]
            target = {"HostedZoneId": alias["zoneId"], "DNSName": alias["name"], "EvaluateTargetHealth": False}
            answer = {"AliasTarget": target}
        record = {
            "Name": i["name"],
            "Type": i["type"],
            "SetIdentifier": i["setIdentifier"],
            "Weight": i["weightedRoutingPolicies"][0]["weight"],
            "HealthCheckId": i["healthCheckId"],
            **answer,
        }
        self._client("route53", "").change_resource_record_sets(
            HostedZoneId=i["zoneId"], ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        )


def _permission(rule: Json) -> Json:
    return {
        "IpProtocol": rule["protocol"],
        "FromPort": rule["fromPort"],
        "ToPort": rule["toPort"],
        "IpRanges": [{"CidrIp": cidr} for cidr in rule.get("cidrBlocks") or []],
        "UserIdGroupPairs": [{"GroupId": group} for group in rule.get("securityGroups") or []],
    }


def _data(i: Json) -> Json:
    groups = [group for nic in i.get("networkInterfaces") or [] for group in nic["securityGroups"]]
    return {
        "ImageId": i["imageId"],
        "InstanceType": i["instanceType"],
        "UserData": i["userData"],
        "SecurityGroupIds": groups,
    }


def _health(i: Json) -> Json:
    check = i["healthCheck"]
    return {
        "HealthCheckPath": check["path"],
        "HealthCheckIntervalSeconds": check["interval"],
        "HealthCheckTimeoutSeconds": check["timeout"],
        "HealthyThresholdCount": check["healthyThreshold"],
        "UnhealthyThresholdCount": check["unhealthyThreshold"],
    }


def _actions(i: Json) -> list[Json]:
    groups = i["defaultActions"][0]["forward"]["targetGroups"]
    forward = {"TargetGroups": [{"TargetGroupArn": g["arn"], "Weight": g["weight"]} for g in groups]}
    return [{"Type": "forward", "ForwardConfig": forward}]


def _sizes(i: Json) -> Json:
    return {
        "MinSize": i["minSize"],
        "MaxSize": i["maxSize"],
        "DesiredCapacity": i["desiredCapacity"],
        "LaunchTemplate": {"LaunchTemplateId": i["launchTemplate"]["id"], "Version": i["launchTemplate"]["version"]},
    }


def _tags(group: str, i: Json) -> list[Json]:
    return [
        {
            "Key": tag["key"],
            "Value": tag["value"],
            "PropagateAtLaunch": tag["propagateAtLaunch"],
            "ResourceId": group,
            "ResourceType": "auto-scaling-group",
        }
        for tag in i.get("tags") or []
    ]
