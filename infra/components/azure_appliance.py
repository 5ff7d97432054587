"""Machines that run Failout itself on Azure: the region agents, one in each zone behind one private address, and the host."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_azure_native import compute, network

from infra.components.azure_fleet import os_profile
from infra.components.boot import AGENT_PORT
from infra.components.settings import Appliance, AzureRegionSettings, Service


@dataclass(frozen=True, slots=True)
class AzureApplianceArgs:
    """One machine in `zone`. `identity` is a user-assigned identity's id; `pool` the agents' backend pool, if any."""

    service: Service
    region: AzureRegionSettings
    role: str
    zone: str
    appliance: Appliance
    user_data: Input[str]
    group: Input[str]
    subnet: Input[str]
    identity: Input[str]
    pool: Input[str] | None = None


class AzureAppliance(pulumi.ComponentResource):
    """A scale set of one machine, so that Azure starts another when it fails."""

    def __init__(self, name: str, args: AzureApplianceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:Appliance", name, None, opts)
        pools = [{"id": args.pool}] if args.pool is not None else []
        address = {
            "name": "ip",
            "primary": True,
            "subnet": {"id": args.subnet},
            "load_balancer_backend_address_pools": pools,
        }
        data = Output.from_input(args.user_data).apply(lambda text: base64.b64encode(text.encode()).decode())
        compute.VirtualMachineScaleSet(
            name,
            vm_scale_set_name=name,
            resource_group_name=args.group,
            location=args.region.name,
            zones=[args.zone],
            orchestration_mode="Uniform",
            overprovision=False,
            sku={"name": args.appliance.size, "tier": "Standard", "capacity": 1},
            upgrade_policy={"mode": "Automatic"},
            identity={"type": "UserAssigned", "user_assigned_identities": [args.identity]},
            virtual_machine_profile={
                "os_profile": {
                    **os_profile(f"{args.role}-{args.zone}-", args.region.ssh_public_key),
                    "custom_data": data,
                },
                "storage_profile": {
                    "image_reference": {"id": args.appliance.image},
                    "os_disk": {"create_option": "FromImage", "managed_disk": {"storage_account_type": "Premium_LRS"}},
                },
                "security_profile": {"encryption_at_host": True},
                "network_profile": {
                    "network_interface_configurations": [
                        {"name": "nic", "primary": True, "ip_configurations": [address]}
                    ]
                },
            },
            tags=args.service.labels(args.role, f"{args.region.name}-{args.zone}"),
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({})


@dataclass(frozen=True, slots=True)
class AzureAgentAddressArgs:
    """`address` is a free one of the subnet: the agents' own, known before they run."""

    service: Service
    region: AzureRegionSettings
    subscription: str
    group: Input[str]
    group_name: str
    subnet: Input[str]
    address: str


class AzureAgentAddress(pulumi.ComponentResource):
    """A private load balancer over the agents of all zones. `url` is the topology's `agent_url`."""

    url: str
    pool_id: Output[str]

    def __init__(self, name: str, args: AzureAgentAddressArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:AgentAddress", name, None, opts)
        own = (
            f"/subscriptions/{args.subscription}/resourceGroups/{args.group_name}"
            f"/providers/Microsoft.Network/loadBalancers/{name}"
        )
        frontend: dict[str, Any] = {
            "name": "agents",
            "subnet": {"id": args.subnet},
            "private_ip_address": args.address,
            "private_ip_allocation_method": "Static",
            "zones": list(args.region.zones),
        }
        rule = {
            "name": "agents",
            "protocol": "Tcp",
            "frontend_port": AGENT_PORT,
            "backend_port": AGENT_PORT,
            "frontend_ip_configuration": {"id": f"{own}/frontendIPConfigurations/agents"},
            "backend_address_pool": {"id": f"{own}/backendAddressPools/agents"},
            "probe": {"id": f"{own}/probes/agents"},
        }
        balancer = network.LoadBalancer(
            name,
            load_balancer_name=name,
            resource_group_name=args.group,
            location=args.region.name,
            sku={"name": "Standard"},
            frontend_ip_configurations=[frontend],
            backend_address_pools=[{"name": "agents"}],
            probes=[{"name": "agents", "protocol": "Tcp", "port": AGENT_PORT, "interval_in_seconds": 5}],
            load_balancing_rules=[rule],
            tags=args.service.labels("agent"),
            opts=ResourceOptions(parent=self),
        )
        self.url = f"http://{args.address}:{AGENT_PORT}"
        self.pool_id = balancer.id.apply(lambda made: f"{made}/backendAddressPools/agents")
        self.register_outputs({"url": self.url})
