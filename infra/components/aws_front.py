"""The region tier on AWS: one load balancer, target groups `steady` and `ramp`, the admission path as health check.

steady holds all zones (so the load balancer's own failover and zonal shift keep working), ramp the zone that is coming
back. Weights belong to Failout after creation, hence ignored here.
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/zonal-shift.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.settings import AwsRegionSettings, Service

ADMISSION_PATH = "/admit"
KEEP_ALIVE_S = 300  # a connection that outlives a zonal shift keeps its zone; AWS's default is an hour


@dataclass(frozen=True, slots=True)
class AwsFrontArgs:
    """`subnets`: zone -> public subnet. `log_bucket` is the bucket's name."""

    service: Service
    region: AwsRegionSettings
    vpc_id: Input[str]
    subnets: Mapping[str, Input[str]]
    security_group: Input[str]
    log_bucket: Input[str]

    @property
    def port(self) -> int:
        return front_port(self.service, self.region)


def front_port(service: Service, region: AwsRegionSettings) -> int:
    return service.front_port or (443 if region.certificate_arn else 80)


class AwsFront(pulumi.ComponentResource):
    """`attributes` is the region's `front` in the topology document; `dns_name`, `zone_id` are for an alias record."""

    dns_name: Output[str]
    zone_id: Output[str]
    steady_arn: Output[str]
    attributes: dict[str, Output[str]]

    def __init__(self, name: str, args: AwsFrontArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Front", name, None, opts)
        balancer = aws.lb.LoadBalancer(
            name,
            region=args.region.name,
            name=name,
            load_balancer_type="application",
            internal=False,
            subnets=list(args.subnets.values()),
            security_groups=[args.security_group],
            client_keep_alive=KEEP_ALIVE_S,
            enable_zonal_shift=True,
            enable_cross_zone_load_balancing=True,
            enable_deletion_protection=args.service.protect,
            drop_invalid_header_fields=True,
            access_logs={"bucket": args.log_bucket, "prefix": "access", "enabled": True},
            tags=args.service.labels("front"),
            opts=ResourceOptions(parent=self, protect=args.service.protect),
        )
        steady, ramp = (self._target_group(f"{name}-{kind}", kind, args) for kind in ("steady", "ramp"))
        listener = self._listener(name, args, balancer.arn, steady.arn, ramp.arn)
        self.dns_name, self.zone_id, self.steady_arn = balancer.dns_name, balancer.zone_id, steady.arn
        self.attributes = {
            "load_balancer_arn": balancer.arn,
            "listener_arn": listener.arn,
            "steady_target_group_arn": steady.arn,
            "ramp_target_group_arn": ramp.arn,
        }
        self.register_outputs({"dns_name": self.dns_name, **self.attributes})

    def _target_group(self, name: str, kind: str, args: AwsFrontArgs) -> aws.lb.TargetGroup:
        times = args.service.timing
        return aws.lb.TargetGroup(
            name,
            region=args.region.name,
            name=f"{args.service.service}-{kind}",
            port=args.service.service_port,
            protocol="HTTP",
            vpc_id=args.vpc_id,
            target_type="instance",
            deregistration_delay=times.deregistration_delay_s,
            health_check={
                "path": ADMISSION_PATH,
                "protocol": "HTTP",
                "matcher": "200",
                "interval": times.health_interval_s,
                "timeout": max(2, times.health_interval_s // 2),
                "healthy_threshold": 2,
                "unhealthy_threshold": 2,
            },
            tags=args.service.labels("front"),
            opts=ResourceOptions(parent=self),
        )

    def _listener(
        self, name: str, args: AwsFrontArgs, balancer: Output[str], steady: Output[str], ramp: Output[str]
    ) -> aws.lb.Listener:
        groups = [{"arn": steady, "weight": 100}, {"arn": ramp, "weight": 0}]
        forward: Any = {"target_groups": groups, "stickiness": {"enabled": False, "duration": 1}}
        tls: dict[str, Any] = {"protocol": "HTTP"}
        if args.region.certificate_arn:
            tls = {
                "protocol": "HTTPS",
                "certificate_arn": args.region.certificate_arn,
                "ssl_policy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
            }
            self._redirect(name, args, balancer)
        return aws.lb.Listener(
            name,
            region=args.region.name,
            load_balancer_arn=balancer,
            port=args.port,
            default_actions=[{"type": "forward", "forward": forward}],
            tags=args.service.labels("front"),
            opts=ResourceOptions(parent=self, ignore_changes=["default_actions"]),
            **tls,
        )

    def _redirect(self, name: str, args: AwsFrontArgs, balancer: Output[str]) -> None:
        redirect = {"port": str(args.port), "protocol": "HTTPS", "status_code": "HTTP_301"}
        aws.lb.Listener(
            f"{name}-redirect",
            region=args.region.name,
            load_balancer_arn=balancer,
            port=80,
            protocol="HTTP",
            default_actions=[{"type": "redirect", "redirect": redirect}],
            tags=args.service.labels("front"),
            opts=ResourceOptions(parent=self),
        )
