"""A region's network on Azure: per zone a subnet, a NAT gateway that stands in that zone, and its address.

https://learn.microsoft.com/azure/nat-gateway/nat-availability-zones (zonal NAT gateway resource for each zone)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_azure_native import network

from infra.components.boot import AGENT_PORT
from infra.components.settings import AzureRegionSettings, Service


@dataclass(frozen=True, slots=True)
class AzureNetworkArgs:
    service: Service
    region: AzureRegionSettings
    group: Input[str]


class AzureNetwork(pulumi.ComponentResource):
    """`subnets` maps each zone to its subnet's id, and `network_id`."""

    network_id: Output[str]
    subnets: dict[str, Output[str]]

    def __init__(self, name: str, args: AzureNetworkArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:Network", name, None, opts)
        me, service, region = ResourceOptions(parent=self), args.service, args.region
        common = {"resource_group_name": args.group, "location": region.name}
        guard = network.NetworkSecurityGroup(
            name,
            network_security_group_name=service.service,
            security_rules=_rules(service, region),
            tags=service.labels("network"),
            opts=me,
            **common,
        )
        whole = network.VirtualNetwork(
            name,
            virtual_network_name=service.service,
            address_space={"address_prefixes": [region.cidr]},
            tags=service.labels("network"),
            # Subnets are resources of their own: writing them back from here would drop those made since.
            opts=ResourceOptions(parent=self, ignore_changes=["subnets"]),
            **common,
        )
        self.network_id, self.subnets = whole.id, {}
        for zone, block in region.zone_blocks().items():
            nat = self._nat(f"{name}-{zone}-nat", zone, args)
            subnet = network.Subnet(
                f"{name}-{zone}",
                subnet_name=f"zone-{zone}",
                resource_group_name=args.group,
                virtual_network_name=whole.name,
                address_prefix=str(block),
                network_security_group={"id": guard.id},
                nat_gateway={"id": nat},
                default_outbound_access=False,
                opts=me,
            )
            self.subnets[zone] = subnet.id
        self.register_outputs({"network_id": whole.id})

    def _nat(self, name: str, zone: str, args: AzureNetworkArgs) -> Output[str]:
        common: dict[str, Any] = {
            "resource_group_name": args.group,
            "location": args.region.name,
            "zones": [zone],
            "sku": {"name": "Standard"},
            "tags": args.service.labels("network", zone),
            "opts": ResourceOptions(parent=self),
        }
        address = network.PublicIPAddress(
            name, public_ip_address_name=name, public_ip_allocation_method="Static", **common
        )
        made: Output[str] = network.NatGateway(
            name, nat_gateway_name=name, public_ip_addresses=[{"id": address.id}], **common
        ).id
        return made


def _rules(service: Service, region: AzureRegionSettings) -> list[dict[str, Any]]:
    """The load balancer keeps users' addresses, so instances must take the world's; nothing else comes in.

    Azure's built-in rules would let the whole virtual network in: the last rule here takes that back.
    """
    return [
        _rule("users", 100, "Internet", str(service.service_port)),
        _rule("probes", 110, "AzureLoadBalancer", "*"),
        _rule("agents", 120, region.cidr, str(service.service_port)),
        _rule("orchestrator", 130, "10.0.0.0/8", str(AGENT_PORT)),
        _rule("nothing-else", 4000, "*", "*", access="Deny"),
    ]


def _rule(name: str, priority: int, source: str, port: str, access: str = "Allow") -> dict[str, Any]:
    return {
        "name": name,
        "priority": priority,
        "direction": "Inbound",
        "access": access,
        "protocol": "Tcp" if access == "Allow" else "*",
        "source_address_prefix": source,
        "source_port_range": "*",
        "destination_address_prefix": "*",
        "destination_port_range": port,
    }
