"""Which machines a zone's scale set has and at which private address: Azure takes two lists to tell.

The scale set lists its machines and their network interfaces by id; a list of interfaces tells the addresses. For a
Uniform set that is the set's own, for a Flexible set (which has none) the resource group's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.clouds.azure.arm import Arm, Azure
from orchestrator.core.errors import Rejected
from orchestrator.core.topology import Region, Zone

if TYPE_CHECKING:
    from azure.mgmt.compute.models import VirtualMachineScaleSetVM

    from orchestrator.clouds.azure.sdk import Clients


@dataclass(frozen=True, slots=True)
class Place:
    """Where a zone's scale set, or a region's front, is in Azure. `id` is the zone's or the region's, for messages."""

    arm: Arm
    group: str
    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Machine:
    """`nic` is its interface's id in lower case, as ARM ids compare. `address` is empty until the interface exists."""

    nic: str
    address: str
    vm: VirtualMachineScaleSetVM

    @property
    def name(self) -> str:
        return str(self.vm.name)


def attribute(attributes: Mapping[str, str], name: str, where: str) -> str:
    """Read what the topology document must say of `where`; Rejected when it does not."""
    if not attributes.get(name):
        raise Rejected(f"the topology names no {name} for {where}")
    return attributes[name]


def front(azure: Azure, region: Region) -> Place:
    subscription = attribute(region.front, "subscription_id", region.id)
    group = attribute(region.front, "resource_group", region.id)
    balancer = attribute(region.front, "load_balancer", region.id)
    return Place(azure.arm(subscription, region.api.get("endpoint_url")), group, balancer, region.id)


def scale_set(azure: Azure, region: Region, zone: Zone) -> Place:
    of_region = front(azure, region)
    return Place(of_region.arm, of_region.group, attribute(zone.fleet, "scale_set", zone.id), zone.id)


class Machines:
    """An interface keeps its address while it exists: addresses are remembered, and listed only when one is new."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    async def of(self, place: Place, *, expand: str | None = None) -> Sequence[Machine]:
        """The machines of one scale set, by name. `expand`: "instanceView" for their states."""
        vms = await place.arm.ask(
            "ListScaleSetVMs",
            place.id,
            lambda c: list(c.compute.virtual_machine_scale_set_vms.list(place.group, place.name, expand=expand)),
        )
        nics = [_nic(vm) for vm in vms]
        unknown = {nic for nic in nics if nic and nic not in self._addresses}
        if unknown:
            uniform = any("/virtualmachinescalesets/" in nic for nic in unknown)
            listed = await place.arm.ask(
                "ListNetworkInterfaces", place.id, lambda c: _addresses(c, place, uniform=uniform)
            )
            self._addresses.update(listed)
        found = [Machine(nic, self._addresses.get(nic, ""), vm) for vm, nic in zip(vms, nics, strict=True)]
        return sorted(found, key=lambda machine: machine.name)


def _nic(vm: VirtualMachineScaleSetVM) -> str:
    profile = vm.properties.network_profile if vm.properties else None
    interfaces = (profile.network_interfaces if profile else None) or []
    return (interfaces[0].id or "").lower() if interfaces else ""


def _addresses(clients: Clients, place: Place, *, uniform: bool) -> dict[str, str]:
    interfaces = clients.network.network_interfaces
    listed = (
        interfaces.list_virtual_machine_scale_set_network_interfaces(place.group, place.name)
        if uniform
        else interfaces.list(place.group)
    )
    found: dict[str, str] = {}
    for nic in listed:
        for configuration in (nic.properties.ip_configurations if nic.properties else None) or []:
            address = configuration.properties.private_ip_address if configuration.properties else None
            if nic.id and address:
                found.setdefault(nic.id.lower(), address)
    return found
