"""Scale sets and instances as Microsoft.Compute and Microsoft.Network show them."""

from __future__ import annotations

import copy

from orchestrator.lab.azure.arm import Body
from orchestrator.lab.azure.operations import timestamp
from orchestrator.lab.azure.state import ScaleSet, Vm
from orchestrator.lab.model import Process


def scale_set(found: ScaleSet, *, user_data: bool) -> Body:
    """UserData is a secret to ARM: it is shown only when asked for with $expand=userData."""
    body = copy.deepcopy(found.document)
    if not user_data:
        body["properties"]["virtualMachineProfile"].pop("userData", None)
    return body


def instance(owner: ScaleSet, vm: Vm, *, view: bool, user_data: bool) -> Body:
    profile = vm.model["profile"]
    properties: Body = {
        "latestModelApplied": vm.model == owner.model(),
        "vmId": vm.uuid,
        "provisioningState": vm.provisioning,
        "modelDefinitionApplied": "VirtualMachineScaleSet",
        "hardwareProfile": {},
        "storageProfile": {"imageReference": copy.deepcopy(profile["storageProfile"]["imageReference"])},
        "osProfile": {"computerName": vm.name},
        "networkProfile": {"networkInterfaces": [{"id": owner.ip_configuration_id(vm).rsplit("/ipConf", 1)[0]}]},
        "timeCreated": timestamp(vm.created),
    }
    if user_data and profile.get("userData"):
        properties["userData"] = profile["userData"]
    if view:
        properties["instanceView"] = instance_view(vm)
    return {
        "id": f"{owner.id}/virtualMachines/{vm.id}",
        "name": vm.name,
        "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
        "location": owner.region,
        "instanceId": vm.id,
        "zones": [owner.zone],
        "tags": dict(vm.model["tags"]),
        "sku": {"name": vm.model["size"], "tier": "Standard"},
        "properties": properties,
    }


def instance_view(vm: Vm) -> Body:
    """`vmHealth` is what the Application Health extension sees at /healthz; a machine that does not answer is unhealthy."""
    power = "running" if vm.process in (Process.RUNNING, Process.DEAD) else "starting"
    health = "healthy" if vm.healthy else "unhealthy"
    return {
        "platformUpdateDomain": 0,
        "platformFaultDomain": 0,
        "statuses": [
            _status(f"ProvisioningState/{vm.provisioning.lower()}", f"Provisioning {vm.provisioning.lower()}"),
            _status(f"PowerState/{power}", f"VM {power}"),
        ],
        "vmHealth": {"status": _status(f"HealthState/{health}", f"The VM is reporting itself as {health}")},
    }


def instance_view_of_all(found: ScaleSet) -> Body:
    """The scale set's own instance view: counts by state, and the state of the repairs service."""
    counts: dict[str, int] = {}
    for vm in found.vms.values():
        code = f"ProvisioningState/{vm.provisioning.lower()}"
        counts[code] = counts.get(code, 0) + 1
    state = found.document["properties"]["provisioningState"].lower()
    policy = found.document["properties"].get("automaticRepairsPolicy") or {}
    body: Body = {
        "virtualMachine": {"statusesSummary": [{"code": c, "count": n} for c, n in sorted(counts.items())]},
        "statuses": [_status(f"ProvisioningState/{state}", f"Provisioning {state}")],
    }
    if policy.get("enabled"):
        service = "Suspended" if found.repairs_suspended else "Running"
        body["orchestrationServices"] = [
            {"serviceName": "AutomaticRepairs", "serviceState": service, "latestOperationStatus": "Completed"}
        ]
    return body


def network_interface(owner: ScaleSet, vm: Vm) -> Body:
    """The interface of one instance: where its private address is read. The same through upgrades in place."""
    ip_id = owner.ip_configuration_id(vm)
    nic_id = ip_id.rsplit("/ipConfigurations/", 1)[0]
    ip = owner.ip_configuration()["properties"]
    pools = [{"id": pool["id"]} for pool in ip.get("loadBalancerBackendAddressPools") or []]
    etag = f'W/"{vm.uuid}"'
    return {
        "id": nic_id,
        "name": nic_id.rsplit("/", 1)[-1],
        "etag": etag,
        "properties": {
            "provisioningState": "Succeeded",
            "primary": True,
            "virtualMachine": {"id": f"{owner.id}/virtualMachines/{vm.id}"},
            "ipConfigurations": [
                {
                    "id": ip_id,
                    "name": ip_id.rsplit("/", 1)[-1],
                    "etag": etag,
                    "properties": {
                        "provisioningState": "Succeeded",
                        "privateIPAddress": vm.address,
                        "privateIPAllocationMethod": "Dynamic",
                        "privateIPAddressVersion": "IPv4",
                        "primary": True,
                        "subnet": {"id": ip["subnet"]["id"]},
                        "loadBalancerBackendAddressPools": pools,
                    },
                }
            ],
        },
    }


def _status(code: str, text: str) -> Body:
    return {"code": code, "level": "Info", "displayStatus": text}
