"""Builds one region of the service in the emulated Azure, through the SDK, as Pulumi does in the real one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from azure.core.rest import HttpRequest
from azure.mgmt.compute.models import VirtualMachineScaleSet
from azure.mgmt.network import models

from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.azure.client import Clients, clients
from orchestrator.lab.model import AGENT_PORT, FRONT_PORT, SERVICE_PORT

RESOURCES_API_VERSION = "2024-11-01"
AUTOSCALE_API_VERSION = "2022-10-01"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """What to build. `octet` is the region's L in 127.L.0.0/16; `zones` are Azure's numbers ("1", "2", "3")."""

    location: str
    octet: int
    version: str
    service: str = "gates"
    zones: Sequence[str] = ("1", "2", "3")
    instances: int = 3
    instances_max: int = 9
    rps_per_instance: float = 40
    weight: int = 100
    image_version: str = "1.0.0"
    repairs: bool = True
    autoscale: bool = True

    @property
    def group(self) -> str:
        return f"{self.service}-{self.location}"


def provision(url: str, subscription_id: str, plan: RegionPlan) -> Json:
    """Create everything and wait for it; returns the region's part of the topology document.

    Scale sets are created side by side. Their instances only come up if a data plane is running; azure.core's
    HttpResponseError is raised when one does not.
    """
    made = clients(url, subscription_id)
    try:
        return build(made, url, subscription_id, plan)
    finally:
        made.close()


def build(made: Clients, url: str, subscription_id: str, plan: RegionPlan) -> Json:
    """Do the work of `provision` with clients that are at hand."""
    _group(made, plan, subscription_id)
    subnets, public_ip = _network(made, plan)
    balancer, pool = _balancer(made, plan, public_ip, subscription_id)
    names = [f"{plan.service}-{plan.location}-{zone}" for zone in plan.zones]
    pollers = [
        made.compute.virtual_machine_scale_sets.begin_create_or_update(
            plan.group, name, VirtualMachineScaleSet(_scale_set(plan, zone, subnet, pool))
        )
        for name, zone, subnet in zip(names, plan.zones, subnets, strict=True)
    ]
    for poller, name in zip(pollers, names, strict=True):
        target = str(poller.result().id)
        if plan.autoscale:
            _autoscale(made, plan, name, target)
    return _topology(url, subscription_id, plan, balancer, names)


def _group(made: Clients, plan: RegionPlan, subscription_id: str) -> None:
    """Resource groups belong to azure-mgmt-resource, which nothing else here needs."""
    path = f"/subscriptions/{subscription_id}/resourcegroups/{plan.group}"
    request = HttpRequest("PUT", path, params={"api-version": RESOURCES_API_VERSION}, json={"location": plan.location})
    made.compute.send_request(request).raise_for_status()


def _network(made: Clients, plan: RegionPlan) -> tuple[list[str], str]:
    addresses, network = RegionAddresses(plan.octet), made.network
    rules = [
        _rule("users", 100, "Internet", str(SERVICE_PORT)),
        _rule("probes", 110, "AzureLoadBalancer", "*"),
    ]
    security = network.network_security_groups.begin_create_or_update(
        plan.group,
        plan.service,
        models.NetworkSecurityGroup({"location": plan.location, "properties": {"securityRules": rules}}),
    ).result()
    space = {"addressSpace": {"addressPrefixes": [addresses.network]}}
    network.virtual_networks.begin_create_or_update(
        plan.group, plan.service, models.VirtualNetwork({"location": plan.location, "properties": space})
    ).result()
    subnets = []
    for i, zone in enumerate(plan.zones):
        body = {"properties": {"addressPrefix": addresses.subnet(i), "networkSecurityGroup": {"id": security.id}}}
        subnet = network.subnets.begin_create_or_update(
            plan.group, plan.service, f"zone-{zone}", models.Subnet(body)
        ).result()
        subnets.append(str(subnet.id))
    address = {
        "location": plan.location,
        "sku": {"name": "Standard"},
        "zones": list(plan.zones),
        "properties": {"publicIPAllocationMethod": "Static"},
    }
    public_ip = network.public_ip_addresses.begin_create_or_update(
        plan.group, plan.group, models.PublicIPAddress(address)
    ).result()
    return subnets, str(public_ip.id)


def _rule(name: str, priority: int, source: str, port: str) -> Json:
    properties = {
        "priority": priority,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefix": source,
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": port,
    }
    return {"name": name, "properties": properties}


def _balancer(made: Clients, plan: RegionPlan, public_ip: str, subscription_id: str) -> tuple[str, str]:
    """One zone-redundant address, one pool over all zones, the probe on /admit: a flag there can empty a zone."""
    name = f"{plan.service}-{plan.location}"
    own = (
        f"/subscriptions/{subscription_id}/resourceGroups/{plan.group}/providers/Microsoft.Network/loadBalancers/{name}"
    )
    rule = {
        "frontendIPConfiguration": {"id": f"{own}/frontendIPConfigurations/users"},
        "backendAddressPool": {"id": f"{own}/backendAddressPools/{plan.service}"},
        "probe": {"id": f"{own}/probes/admit"},
        "protocol": "Tcp",
        "frontendPort": FRONT_PORT,
        "backendPort": SERVICE_PORT,
        "enableTcpReset": True,
        "idleTimeoutInMinutes": 4,
    }
    probe = {
        "protocol": "Http",
        "port": SERVICE_PORT,
        "requestPath": "/admit",
        "intervalInSeconds": 5,
        "numberOfProbes": 1,
        "probeThreshold": 2,
    }
    properties = {
        "frontendIPConfigurations": [{"name": "users", "properties": {"publicIPAddress": {"id": public_ip}}}],
        "backendAddressPools": [{"name": plan.service}],
        "probes": [{"name": "admit", "properties": probe}],
        "loadBalancingRules": [{"name": "users", "properties": rule}],
    }
    body = {"location": plan.location, "sku": {"name": "Standard"}, "properties": properties}
    made.network.load_balancers.begin_create_or_update(plan.group, name, models.LoadBalancer(body)).result()
    return name, f"{own}/backendAddressPools/{plan.service}"


def _scale_set(plan: RegionPlan, zone: str, subnet: str, pool: str) -> Json:
    ip = {"subnet": {"id": subnet}, "primary": True, "loadBalancerBackendAddressPools": [{"id": pool}]}
    nic = {"primary": True, "ipConfigurations": [{"name": "ip", "properties": ip}]}
    health = {
        "publisher": "Microsoft.ManagedServices",
        "type": "ApplicationHealthLinux",
        "typeHandlerVersion": "1.0",
        "autoUpgradeMinorVersion": True,
        "settings": {"protocol": "http", "port": SERVICE_PORT, "requestPath": "/healthz"},
    }
    image = {"publisher": "failout", "offer": plan.service, "sku": "lab", "version": plan.image_version}
    profile = {
        "osProfile": {"computerNamePrefix": f"{plan.service}-{zone}-", "adminUsername": "ops"},
        "storageProfile": {"imageReference": image},
        "networkProfile": {"networkInterfaceConfigurations": [{"name": "nic", "properties": nic}]},
        "extensionProfile": {"extensions": [{"name": "health", "properties": health}]},
        "userData": base64.b64encode(f"VERSION={plan.version}\n".encode()).decode(),
    }
    properties: Json = {
        "orchestrationMode": "Uniform",
        "overprovision": False,
        "singlePlacementGroup": False,
        "upgradePolicy": {"mode": "Manual"},
        "virtualMachineProfile": profile,
    }
    if plan.repairs:
        properties["automaticRepairsPolicy"] = {"enabled": True, "gracePeriod": "PT10M", "repairAction": "Replace"}
    return {
        "location": plan.location,
        "zones": [zone],
        "sku": {"name": "Standard_B2s", "tier": "Standard", "capacity": plan.instances},
        "tags": {"failout-release": plan.version, "service": plan.service},
        "properties": properties,
    }


def _autoscale(made: Clients, plan: RegionPlan, name: str, target: str) -> None:
    """One setting for a scale set, named like it: by CPU, early enough that a lost zone's load still fits (I3)."""
    out_at = round(75 * max(1, len(plan.zones) - 1) / len(plan.zones), 1)
    rules = [
        _scale_rule(target, "GreaterThan", out_at, "Increase"),
        _scale_rule(target, "LessThan", out_at / 2, "Decrease"),
    ]
    capacity = {"minimum": str(plan.instances), "maximum": str(plan.instances_max), "default": str(plan.instances)}
    profile = {"name": "cpu", "capacity": capacity, "rules": rules}
    body = {
        "location": plan.location,
        "properties": {"enabled": True, "targetResourceUri": target, "profiles": [profile]},
    }
    path = f"{target.partition('/providers/')[0]}/providers/Microsoft.Insights/autoscaleSettings/{name}"
    request = HttpRequest("PUT", path, params={"api-version": AUTOSCALE_API_VERSION}, json=body)
    made.compute.send_request(request).raise_for_status()


def _scale_rule(target: str, operator: str, threshold: float, direction: str) -> Json:
    trigger = {
        "metricName": "Percentage CPU",
        "metricResourceUri": target,
        "timeGrain": "PT1M",
        "statistic": "Average",
        "timeWindow": "PT5M",
        "timeAggregation": "Average",
        "operator": operator,
        "threshold": threshold,
    }
    action = {"direction": direction, "type": "ChangeCount", "value": "1", "cooldown": "PT5M"}
    return {"metricTrigger": trigger, "scaleAction": action}


def _topology(url: str, subscription_id: str, plan: RegionPlan, balancer: str, names: Sequence[str]) -> Json:
    return {
        "id": f"azure/{plan.location}",
        "cloud": "azure",
        "name": plan.location,
        "weight": plan.weight,
        "agent_url": f"http://{RegionAddresses(plan.octet).agent}:{AGENT_PORT}",
        "front": {
            "subscription_id": subscription_id,
            "resource_group": plan.group,
            "load_balancer": balancer,
            "backend_pool": plan.service,
        },
        "api": {"endpoint_url": url},
        "zones": [
            {
                "id": f"azure/{plan.location}-{zone}",
                "name": zone,
                "instances": plan.instances,
                "instances_max": plan.instances_max,
                "rps_per_instance": plan.rps_per_instance,
                "fleet": {"scale_set": name, **({"autoscale_setting": name} if plan.autoscale else {})},
            }
            for zone, name in zip(plan.zones, names, strict=True)
        ],
    }
