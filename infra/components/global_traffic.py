"""The global tier: one name, one weighted and health-checked record for each region.

Planned moves change weights (Failout owns them after creation); an emergency is the health checks' to see. They look at
`/readyz` through each region's own front, never at a target group's state: Route 53 calls a load balancer unhealthy as
soon as any of its groups is empty, which `ramp` always is.
https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-values-weighted-alias.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.aws_access import dns_statements, document
from infra.components.settings import GlobalSettings

SCHEMA = 1
HTTPS_PORT = 443
SIGNING_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class GlobalTrafficArgs:
    """`fronts`: region id -> what its stack says of its front (`fronts` output). `role`: the orchestrator's, if known."""

    settings: GlobalSettings
    fronts: Mapping[str, Output[dict[str, Any]]]
    role: Input[str] | None = None


class GlobalTraffic(pulumi.ComponentResource):
    """`document` is the `global` part of the topology."""

    document: Output[dict[str, Any]]

    def __init__(self, name: str, args: GlobalTrafficArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:global:Traffic", name, None, opts)
        settings = args.settings
        self._tags = {**settings.tags, "failout-service": settings.service, "failout-role": "dns"}
        zone = Output.from_input(settings.hosted_zone_id) if settings.hosted_zone_id else self._zone(name, settings)
        for region, front in args.fronts.items():
            self._record(f"{name}-{region.replace('/', '-')}", settings, zone, region, front)
        if args.role is not None:
            aws.iam.RolePolicy(
                name,
                role=args.role,
                name="global-traffic",
                policy=zone.apply(lambda made: document(dns_statements(made, settings.record))),
                opts=ResourceOptions(parent=self),
            )
        alias = any(region.startswith("aws/") for region in args.fronts)
        tier: dict[str, Any] = {
            "kind": "route53",
            # How long an answer may live: an alias record's is AWS's own and cannot be chosen.
            "ttl_s": max(settings.ttl_s, settings.alias_ttl_s if alias else 0),
            "record": settings.record,
            "attributes": {"hosted_zone_id": zone},
        }
        if settings.api_endpoint:
            tier["api"] = {"endpoint_url": settings.api_endpoint, "region": SIGNING_REGION}
        self.document = Output.from_input(
            {"schema": SCHEMA, "service": settings.service, "global": tier, "regions": []}
        )
        self.register_outputs({"document": self.document})

    def _zone(self, name: str, settings: GlobalSettings) -> Output[str]:
        zone = aws.route53.Zone(
            name,
            name=settings.zone_name,
            tags=self._tags,
            opts=ResourceOptions(parent=self, protect=settings.protect),
        )
        made: Output[str] = zone.zone_id
        return made

    def _record(
        self, name: str, settings: GlobalSettings, zone: Output[str], region: str, front: Output[dict[str, Any]]
    ) -> None:
        alias, me = region.startswith("aws/"), ResourceOptions(parent=self)
        where = {"fqdn": front["dns_name"]} if alias else {"ip_address": front["address"]}
        check = aws.route53.HealthCheck(
            name,
            type="HTTPS" if settings.front_port == HTTPS_PORT else "HTTP",
            port=settings.front_port,
            resource_path=settings.health_path,
            request_interval=settings.health_interval_s,
            failure_threshold=settings.health_failures,
            tags={**self._tags, "Name": region},
            opts=me,
            **where,
        )
        answer: dict[str, Any]
        if alias:
            answer = {
                "aliases": [{"name": front["dns_name"], "zone_id": front["zone_id"], "evaluate_target_health": False}]
            }
        else:
            answer = {"ttl": settings.ttl_s, "records": [front["address"]]}
        aws.route53.Record(
            name,
            zone_id=zone,
            name=settings.record,
            type="A",
            set_identifier=region,
            weighted_routing_policies=[{"weight": front["weight"]}],
            health_check_id=check.id,
            opts=ResourceOptions(parent=self, ignore_changes=["weighted_routing_policies"], protect=settings.protect),
            **answer,
        )
