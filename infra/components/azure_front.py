"""The region tier on Azure: one zone-redundant address, one pool over all zones, the probe on the admission path.

A flag in the data plane (`/admit`) can thus empty a zone. Backend states belong to Failout and live on the pool's
addresses, which are no input of the load balancer.
https://learn.microsoft.com/azure/load-balancer/load-balancer-standard-availability-zones
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_azure_native import monitor, network

from infra.components.settings import AzureRegionSettings, Service

ADMISSION_PATH = "/admit"


@dataclass(frozen=True, slots=True)
class AzureFrontArgs:
    service: Service
    region: AzureRegionSettings
    subscription: str
    group: Input[str]
    group_name: str
    log_storage: Input[str]


class AzureFront(pulumi.ComponentResource):
    """`attributes` is the region's `front` in the topology document; `address` users'; `pool_id` the scale sets'."""

    address: Output[str]
    pool_id: Output[str]
    attributes: Mapping[str, Input[str]]

    def __init__(self, name: str, args: AzureFrontArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:Front", name, None, opts)
        service, region = args.service, args.region
        common: dict[str, Any] = {
            "resource_group_name": args.group,
            "location": region.name,
            "sku": {"name": "Standard"},
            "tags": service.labels("front"),
        }
        mine = ResourceOptions(parent=self, protect=service.protect)
        address = network.PublicIPAddress(
            name,
            public_ip_address_name=name,
            zones=list(region.zones),
            public_ip_allocation_method="Static",
            opts=mine,
            **common,
        )
        own = (
            f"/subscriptions/{args.subscription}/resourceGroups/{args.group_name}"
            f"/providers/Microsoft.Network/loadBalancers/{name}"
        )
        balancer = network.LoadBalancer(
            name,
            load_balancer_name=name,
            frontend_ip_configurations=[{"name": "users", "public_ip_address": {"id": address.id}}],
            backend_address_pools=[{"name": service.service}],
            probes=[_probe(service)],
            load_balancing_rules=[_users(own, service)],
            # A write of the load balancer writes its pool too, with the admin states that Failout has set there.
            opts=mine.merge(ResourceOptions(ignore_changes=["backendAddressPools"])),
            **common,
        )
        # A load balancer passes packets and has no access log: its metrics and health events are kept instead.
        monitor.DiagnosticSetting(
            name,
            name="failout",
            resource_uri=balancer.id,
            storage_account_id=args.log_storage,
            logs=[{"category_group": "allLogs", "enabled": True}],
            metrics=[{"category": "AllMetrics", "enabled": True}],
            opts=ResourceOptions(parent=self),
        )
        self.address = address.ip_address
        self.pool_id = balancer.id.apply(lambda made: f"{made}/backendAddressPools/{service.service}")
        self.attributes = {
            "subscription_id": args.subscription,
            "resource_group": args.group,
            "load_balancer": balancer.name,
            "backend_pool": service.service,
        }
        self.register_outputs({"address": self.address, "pool_id": self.pool_id})


def _probe(service: Service) -> dict[str, Any]:
    """Five seconds is the least that Azure takes; one miss closes an instance to new connections."""
    return {
        "name": "admit",
        "protocol": "Http",
        "port": service.service_port,
        "request_path": ADMISSION_PATH,
        "interval_in_seconds": 5,
        "number_of_probes": 1,
        "probe_threshold": 2,
    }


def _users(own: str, service: Service) -> dict[str, Any]:
    return {
        "name": "users",
        "protocol": "Tcp",
        "frontend_port": service.front_port or 80,
        "backend_port": service.service_port,
        "frontend_ip_configuration": {"id": f"{own}/frontendIPConfigurations/users"},
        "backend_address_pool": {"id": f"{own}/backendAddressPools/{service.service}"},
        "probe": {"id": f"{own}/probes/admit"},
        "enable_tcp_reset": True,
        "idle_timeout_in_minutes": 4,
        "disable_outbound_snat": True,  # each zone goes out by its own NAT gateway
    }
