"""One Azure region of the service, whole; and a stack's worth of them."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_azure_native import managedidentity, resources

from infra.components.azure_access import (
    KEY_VAULT_SECRETS_USER,
    ORCHESTRATOR_ACTIONS,
    SUBSCRIPTION_ACTIONS,
    AzureRole,
    AzureRoleArgs,
    assign,
)
from infra.components.azure_appliance import (
    AzureAgentAddress,
    AzureAgentAddressArgs,
    AzureAppliance,
    AzureApplianceArgs,
)
from infra.components.azure_fleet import AzureZoneFleet, AzureZoneFleetArgs
from infra.components.azure_front import AzureFront, AzureFrontArgs
from infra.components.azure_logs import AzureLogs, AzureLogsArgs, flow_log
from infra.components.azure_network import AzureNetwork, AzureNetworkArgs
from infra.components.boot import agent_command, azure_token, script
from infra.components.settings import Appliance, AzureRegionSettings, AzureSettings
from infra.components.topology import region_document, zone_document


@dataclass(frozen=True, slots=True)
class AzureRegionArgs:
    settings: AzureSettings
    region: AzureRegionSettings


class AzureRegion(pulumi.ComponentResource):
    """`document`: the region's part of the topology. `front`: what its DNS record needs. `group_id`, `network`."""

    document: Output[dict[str, Any]]
    front: Output[dict[str, Any]]
    group_id: Output[str]
    network: AzureNetwork

    def __init__(self, name: str, args: AzureRegionArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:Region", name, None, opts)
        me, service, region = ResourceOptions(parent=self), args.settings, args.region
        group = resources.ResourceGroup(
            name,
            resource_group_name=name,
            location=region.name,
            tags=service.labels("group"),
            opts=ResourceOptions(parent=self, protect=service.protect),
        )
        logs_args = AzureLogsArgs(service, region.name, group.name, _account_name(args), args.settings.log_days)
        logs = AzureLogs(f"{name}-logs", logs_args, me)
        self.network = AzureNetwork(name, AzureNetworkArgs(service, region, group.name), me)
        flow_log(f"{name}-flows", logs_args, self.network.network_id, logs.storage_id, self)
        subscription = args.settings.subscription_id
        front_args = AzureFrontArgs(service, region, subscription, group.name, name, logs.storage_id)
        front = AzureFront(name, front_args, me)
        zones = []
        for zone in region.zones:
            where = f"{region.name}-{zone}"
            fleet_args = AzureZoneFleetArgs(
                service, region, zone, group.name, self.network.subnets[zone], front.pool_id
            )
            fleet = AzureZoneFleet(f"{service.service}-{where}", fleet_args, me)
            names = {"scale_set": fleet.scale_set, "autoscale_setting": fleet.autoscale_setting}
            zones.append(zone_document(f"azure/{where}", zone, region.capacity, names))
        self.group_id, self.group = group.id, group.name
        self._args, self._name = args, name
        url = self._agents(region.agent) if region.agent else region.agent_url
        self.document = region_document("azure", service, region, Output.from_input(url), front.attributes, zones)
        self.front = front.address.apply(lambda it: {"kind": "address", "address": it, "weight": region.weight})
        self.register_outputs({"document": self.document})

    def identity(self, name: str, role: str) -> Any:
        return managedidentity.UserAssignedIdentity(
            name,
            resource_name_=name,
            resource_group_name=self.group,
            location=self._args.region.name,
            tags=self._args.settings.labels(role),
            opts=ResourceOptions(parent=self),
        )

    def _agents(self, agent: Appliance) -> str:
        settings, region, me = self._args.settings, self._args.region, ResourceOptions(parent=self)
        name, first = f"{self._name}-agent", region.zones[0]
        identity = self.identity(name, "agent")
        _may_read_token(name, settings, agent, identity.principal_id, me)
        # The last usable address of the first zone's block: Azure hands out from the front.
        address = ipaddress.IPv4Network(region.block(1)).broadcast_address - 1
        where = AzureAgentAddress(
            name,
            AzureAgentAddressArgs(
                settings,
                region,
                settings.subscription_id,
                self.group,
                self._name,
                self.network.subnets[first],
                str(address),
            ),
            me,
        )
        command = agent_command(region.cidr, settings.service_port)
        boot = identity.client_id.apply(lambda it: script(agent, azure_token(agent, it), command))
        for zone, subnet in self.network.subnets.items():
            AzureAppliance(
                f"{name}-{zone}",
                AzureApplianceArgs(
                    settings, region, "agent", zone, agent, boot, self.group, subnet, identity.id, where.pool_id
                ),
                me,
            )
        return where.url


def _account_name(args: AzureRegionArgs) -> str:
    unique = hashlib.sha256(f"{args.settings.subscription_id} {args.settings.service} {args.region.name}".encode())
    return f"failout{unique.hexdigest()[:16]}"


def _may_read_token(
    name: str, settings: AzureSettings, appliance: Appliance, principal: Input[str], opts: ResourceOptions | None
) -> None:
    role = (
        f"/subscriptions/{settings.subscription_id}/providers/Microsoft.Authorization"
        f"/roleDefinitions/{KEY_VAULT_SECRETS_USER}"
    )
    assign(f"{name}-token", role, appliance.token_vault_id, principal, opts)


@dataclass(frozen=True, slots=True)
class AzureStack:
    """What the `azure` program exports."""

    documents: list[Output[dict[str, Any]]]
    fronts: dict[str, Output[dict[str, Any]]]


def provision(settings: AzureSettings) -> AzureStack:
    """Register everything that an Azure stack has."""
    service = settings.service
    regions = {r.name: AzureRegion(f"{service}-{r.name}", AzureRegionArgs(settings, r)) for r in settings.regions}
    principal = _orchestrator(settings, regions)
    if principal:
        for name, region in regions.items():
            AzureRole(
                f"{service}-orchestrator-{name}",
                AzureRoleArgs(service, region.group_id, name, ORCHESTRATOR_ACTIONS, principal),
            )
        whole = f"/subscriptions/{settings.subscription_id}"
        AzureRole(
            f"{service}-orchestrator-operations",
            AzureRoleArgs(service, whole, "operations", SUBSCRIPTION_ACTIONS, principal),
        )
    return AzureStack([r.document for r in regions.values()], {f"azure/{name}": r.front for name, r in regions.items()})


def _orchestrator(settings: AzureSettings, regions: dict[str, AzureRegion]) -> Input[str] | None:
    """Return who the orchestrator is: the principal that settings name, or the identity of the machine made here."""
    host = settings.orchestrator
    if host is None:
        return settings.orchestrator_principal or None
    region, name = regions[host.region], f"{settings.service}-orchestrator"
    of_region = next(r for r in settings.regions if r.name == host.region)
    zone = of_region.zones[0]
    identity = region.identity(name, "orchestrator")
    _may_read_token(name, settings, host.appliance, identity.principal_id, None)
    boot = identity.client_id.apply(lambda it: script(host.appliance, azure_token(host.appliance, it), host.command))
    AzureAppliance(
        name,
        AzureApplianceArgs(
            settings,
            of_region,
            "orchestrator",
            zone,
            host.appliance,
            boot,
            region.group,
            region.network.subnets[zone],
            identity.id,
        ),
    )
    return Output.from_input(identity.principal_id)
