"""What `failout doctor` can tell of Azure: the reads that the adapters make, and the caller's own list of permissions.

https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from orchestrator.clouds.azure import autoscale
from orchestrator.clouds.azure.arm import Azure
from orchestrator.clouds.azure.machines import Place, attribute, front, scale_set
from orchestrator.core.errors import FailoutError
from orchestrator.core.topology import Region, Zone
from orchestrator.ports import Finding

if TYPE_CHECKING:
    from orchestrator.clouds.azure.sdk import Clients

SKEW_MAX_S: Final = 240.0  # tokens carry instants, and are refused some minutes off
PERMISSIONS: Final = "/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
# What fleet.py, autoscale.py, machines.py and traffic.py do, in Azure's names.
ACTIONS: Final = (
    "Microsoft.Compute/virtualMachineScaleSets/read",
    "Microsoft.Compute/virtualMachineScaleSets/instanceView/read",
    "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
    "Microsoft.Compute/virtualMachineScaleSets/write",
    "Microsoft.Compute/virtualMachineScaleSets/manualUpgrade/action",
    "Microsoft.Compute/virtualMachineScaleSets/delete/action",
    "Microsoft.Compute/virtualMachineScaleSets/setOrchestrationServiceState/action",
    "Microsoft.Insights/autoscaleSettings/read",
    "Microsoft.Insights/autoscaleSettings/write",
    "Microsoft.Network/loadBalancers/backendAddressPools/read",
    "Microsoft.Network/loadBalancers/backendAddressPools/write",
    "Microsoft.Network/networkInterfaces/read",
)


class AzureInspector:
    """One pass costs about six calls a region, and two for each zone."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    async def inspect(self, region: Region, now: datetime) -> Sequence[Finding]:
        try:
            place = front(self._azure, region)
            date, allowed = await place.arm.ask("ListPermissions", region.id, lambda c: _permissions(c, place))
        except FailoutError as error:
            return [Finding("credentials", "failed", str(error))]
        found = [
            Finding("credentials", "ok", f"{region.id}: {place.arm.endpoint_url} answers"),
            _skew(region, date, now),
        ]
        found += [_permitted(region, action, allowed) for action in ACTIONS]
        found.append(await self._pool(place, region))
        for zone in region.zones:
            found += [await self._fleet(region, zone.id), await self._autoscaler(region, zone)]
        return found

    async def _pool(self, place: Place, region: Region) -> Finding:
        try:
            name = attribute(region.front, "backend_pool", region.id)
            await place.arm.ask(
                "GetBackendPool",
                region.id,
                lambda c: c.network.load_balancer_backend_address_pools.get(place.group, place.name, name),
            )
        except FailoutError as error:
            return Finding("topology", "failed", str(error))
        return Finding("topology", "ok", f"{region.id}: backend pool {name} of {place.name} is there")

    async def _fleet(self, region: Region, zone_id: str) -> Finding:
        zone = next(z for z in region.zones if z.id == zone_id)
        place = front(self._azure, region)
        try:
            name = attribute(zone.fleet, "scale_set", zone.id)
            model = await place.arm.ask(
                "GetScaleSet", zone.id, lambda c: c.compute.virtual_machine_scale_sets.get(place.group, name)
            )
        except FailoutError as error:
            return Finding("topology", "failed", str(error))
        policy = model.properties.upgrade_policy if model.properties else None
        named = policy.mode if policy else None
        mode, zones = str(getattr(named, "value", named)), model.zones or []
        told = f"{zone.id}: scale set {name} is in zone {', '.join(zones) or 'none'}, upgrade mode {mode}"
        return Finding("topology", "ok" if zones == [zone.name] and mode == "Manual" else "failed", told)

    async def _autoscaler(self, region: Region, zone: Zone) -> Finding:
        """A zone need not have one; the one that the topology names must be there."""
        named = zone.fleet.get("autoscale_setting", "")
        try:
            setting = await autoscale.read(scale_set(self._azure, region, zone))
        except FailoutError as error:
            return Finding("topology", "failed", str(error))
        if setting is None:
            told = f"the topology names {named}" if named else "Failout alone changes its size"
            return Finding("topology", "failed" if named else "ok", f"{zone.id}: no autoscale setting; {told}")
        bounds = setting.bounds
        state = "enabled" if bounds.enabled else "frozen"
        told = f"autoscale setting {setting.name}, {state}, {bounds.minimum} to {bounds.maximum} instances"
        known = not named or named.lower() == setting.name.lower()
        wrong = "" if known else f"; the topology names {named}"
        return Finding("topology", "ok" if known else "failed", f"{zone.id}: {told}{wrong}")


def _permissions(clients: Clients, place: Place) -> tuple[str | None, list[Mapping[str, Any]] | None]:
    """The Date of the answer and what the caller may do in the resource group; None when Azure does not say."""
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415
    from azure.core.rest import HttpRequest  # noqa: PLC0415
    from azure.mgmt.core.exceptions import ARMErrorFormat  # noqa: PLC0415

    path = f"/subscriptions/{place.arm.subscription_id}/resourceGroups/{place.group}{PERMISSIONS}"
    response = clients.compute.send_request(HttpRequest("GET", place.arm.endpoint_url + path))
    if response.status_code == 401:  # noqa: PLR2004
        raise HttpResponseError(response=response, error_format=ARMErrorFormat)
    date = response.headers.get("Date")
    if response.status_code != 200:  # noqa: PLR2004
        return date, None
    return date, json.loads(response.text()).get("value", [])


def _permitted(region: Region, action: str, allowed: Sequence[Mapping[str, Any]] | None) -> Finding:
    if allowed is None:
        return Finding(
            action, "unchecked", f"{region.id} does not list the caller's permissions; the first use will tell"
        )
    if any(_matches(action, p.get("actions", [])) and not _matches(action, p.get("notActions", [])) for p in allowed):
        return Finding(action, "ok", f"{region.id}: granted")
    return Finding(action, "failed", f"{region.id}: no role of the caller grants it")


def _matches(action: str, patterns: Sequence[str]) -> bool:
    """Azure's names are compared without regard to case, and * stands for anything."""
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def _skew(region: Region, told: str | None, now: datetime) -> Finding:
    if told is None:
        return Finding("clock", "unchecked", f"{region.id} does not say what time it is")
    skew_s = abs((parsedate_to_datetime(told).astimezone(UTC) - now).total_seconds())
    return Finding("clock", "ok" if skew_s <= SKEW_MAX_S else "failed", f"{skew_s:.0f} s off {region.id}'s, allowed {SKEW_MAX_S:.0f} s")  # fmt: skip
