"""The service's fleet in one zone on Azure: one scale set, upgraded by Failout's order only, and what scales it.

Azure Monitor looks back five minutes, so it is no answer to a lost zone: the smallest size carries that already
(`Capacity`), and Failout scales survivors itself. While a zone is out its setting is switched off.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_azure_native import compute, monitor

from infra.components.settings import AzureRegionSettings, Service

# A scale set is written whole (PUT), so what Failout changes by PATCH must never come from the program again.
OWNED_BY_FAILOUT = (
    "sku.capacity",
    'tags["failout-release"]',
    'tags["failout-digest"]',
    "virtualMachineProfile.storageProfile.imageReference",
    "virtualMachineProfile.userData",
)
# Failout switches it off and on, and makes the number of instances that it asked for the minimum.
AUTOSCALE_OWNED_BY_FAILOUT = ("enabled", "profiles[0].capacity.minimum", "profiles[0].capacity.default")


@dataclass(frozen=True, slots=True)
class AzureZoneFleetArgs:
    service: Service
    region: AzureRegionSettings
    zone: str
    group: Input[str]
    subnet: Input[str]
    pool: Input[str]


class AzureZoneFleet(pulumi.ComponentResource):
    """One zone's instances, that scale by their own CPU. `scale_set` and `autoscale_setting` are names, the same one.

    Health is `/healthz` by the Application Health extension, never `/admit`: repairs would replace a drained zone.
    https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-automatic-instance-repairs
    """

    scale_set: Output[str]
    autoscale_setting: Output[str]

    def __init__(self, name: str, args: AzureZoneFleetArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:ZoneFleet", name, None, opts)
        service, region = args.service, args.region
        more = {
            "failout-zones": str(len(region.zones)),
            "failout-instances-max": str(region.capacity.instances_max),
            "failout-rps-per-instance": f"{region.capacity.rps_per_instance:g}",
            "failout-peak-rps": f"{region.capacity.peak_rps:g}",
            "failout-release": service.release.version,
            "failout-digest": service.release.digest,
        }
        made = compute.VirtualMachineScaleSet(
            name,
            vm_scale_set_name=name,
            resource_group_name=args.group,
            location=region.name,
            zones=[args.zone],
            orchestration_mode="Uniform",
            overprovision=False,
            single_placement_group=False,
            sku={"name": region.size, "tier": "Standard", "capacity": region.capacity.instances},
            upgrade_policy={"mode": "Manual"},
            automatic_repairs_policy={"enabled": True, "grace_period": "PT10M", "repair_action": "Replace"},
            virtual_machine_profile=_profile(args),
            tags=service.labels("fleet", f"{region.name}-{args.zone}", **more),
            opts=ResourceOptions(parent=self, ignore_changes=list(OWNED_BY_FAILOUT)),
        )
        setting = monitor.AutoscaleSetting(
            name,
            autoscale_setting_name=name,
            resource_group_name=args.group,
            location=region.name,
            enabled=True,
            target_resource_uri=made.id,
            profiles=[_by_cpu(region, made.id)],
            tags=service.labels("fleet", f"{region.name}-{args.zone}"),
            opts=ResourceOptions(parent=self, ignore_changes=list(AUTOSCALE_OWNED_BY_FAILOUT)),
        )
        self.scale_set, self.autoscale_setting = made.name, setting.name
        self.register_outputs({"scale_set": made.name, "autoscale_setting": setting.name})


def _by_cpu(region: AzureRegionSettings, target: Input[str]) -> dict[str, Any]:
    """Out above AWS's target, in below half of it: Azure does not scale in where it would have to scale out again.

    https://learn.microsoft.com/azure/azure-monitor/autoscale/autoscale-best-practices
    """
    capacity, out_at = region.capacity, round(100 * region.capacity.scaling_target(len(region.zones)), 1)
    least, most = str(capacity.instances), str(capacity.instances_max)
    return {
        "name": "cpu",
        "capacity": {"minimum": least, "maximum": most, "default": least},
        "rules": [
            _rule(target, "GreaterThan", out_at, "Increase"),
            _rule(target, "LessThan", round(out_at / 2, 1), "Decrease"),
        ],
    }


def _rule(target: Input[str], operator: str, threshold: float, direction: str) -> dict[str, Any]:
    return {
        "metric_trigger": {
            "metric_name": "Percentage CPU",
            "metric_resource_uri": target,
            "time_grain": "PT1M",
            "statistic": "Average",
            "time_window": "PT5M",
            "time_aggregation": "Average",
            "operator": operator,
            "threshold": threshold,
        },
        "scale_action": {"direction": direction, "type": "ChangeCount", "value": "1", "cooldown": "PT5M"},
    }


def _profile(args: AzureZoneFleetArgs) -> dict[str, Any]:
    service, region = args.service, args.region
    address = {
        "name": "ip",
        "primary": True,
        "subnet": {"id": args.subnet},
        "load_balancer_backend_address_pools": [{"id": args.pool}],
    }
    health = {
        "name": "health",
        "publisher": "Microsoft.ManagedServices",
        "type": "ApplicationHealthLinux",
        "type_handler_version": "1.0",
        "auto_upgrade_minor_version": True,
        "settings": {"protocol": "http", "port": service.service_port, "requestPath": "/healthz"},
    }
    return {
        "os_profile": os_profile(f"{service.service}-{args.zone}-", region.ssh_public_key),
        "storage_profile": storage_profile(region.image),
        "network_profile": {
            "network_interface_configurations": [{"name": "nic", "primary": True, "ip_configurations": [address]}]
        },
        "extension_profile": {"extensions": [health]},
        "security_profile": {"encryption_at_host": True},
        "user_data": base64.b64encode(service.release.user_data.encode()).decode(),
    }


def os_profile(prefix: str, ssh_public_key: str) -> dict[str, Any]:
    """Passwords are off; nothing lets SSH in from outside, people come by Bastion."""
    keys = [{"path": "/home/ops/.ssh/authorized_keys", "key_data": ssh_public_key}]
    return {
        "computer_name_prefix": prefix,
        "admin_username": "ops",
        "linux_configuration": {"disable_password_authentication": True, "ssh": {"public_keys": keys}},
    }


def storage_profile(image: dict[str, str]) -> dict[str, Any]:
    return {
        "image_reference": dict(image),
        "os_disk": {"create_option": "FromImage", "managed_disk": {"storage_account_type": "Premium_LRS"}},
    }
