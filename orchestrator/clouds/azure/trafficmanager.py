"""The global tier over Azure Traffic Manager: one profile with weighted routing, one endpoint per region.

An endpoint's name is its region's id with a dash for the slash. A weight is 1..1000 there, so weight 0 is an endpoint
that is Disabled. All endpoints change in one PATCH of the profile: it is a synchronous call, and DNS answers follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from orchestrator.clouds.azure.arm import Azure
from orchestrator.clouds.azure.machines import attribute
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.topology import GlobalTier
from orchestrator.ports import Fence, GlobalSeen

if TYPE_CHECKING:
    from azure.mgmt.trafficmanager.models import Endpoint, Profile

    from orchestrator.clouds.azure.sdk import Clients

WHERE = "the global tier"
WEIGHT_MAX = 1000


class TrafficManager:
    """Implements ports.GlobalTraffic for `regions` (ids). Endpoints of other names are left alone."""

    def __init__(self, azure: Azure, tier: GlobalTier, regions: Iterable[str]) -> None:
        subscription = attribute(tier.attributes, "subscription_id", WHERE)
        self._arm = azure.arm(subscription, tier.api.get("endpoint_url"))
        self._group = attribute(tier.attributes, "resource_group", WHERE)
        self._profile = attribute(tier.attributes, "profile", WHERE)
        self._regions = {region.replace("/", "-"): region for region in regions}

    async def read(self) -> GlobalSeen:
        endpoints = self._endpoints(await self._get())
        return GlobalSeen({region: _weight(endpoint) for region, endpoint in endpoints.items()}, in_sync=True)

    async def apply(self, weights: Mapping[str, int], fence: Fence) -> None:
        profile = await self._get()
        endpoints = self._endpoints(profile)
        if missing := sorted(set(weights) - set(endpoints)):
            raise NotFound(f"profile {self._profile} has no endpoint for {', '.join(missing)}")
        if wrong := sorted(region for region, weight in weights.items() if not 0 <= weight <= WEIGHT_MAX):
            raise Rejected(f"a weight must lie in 0..{WEIGHT_MAX}: {', '.join(wrong)}")
        standing = {region: _weight(endpoint) for region, endpoint in endpoints.items()}
        if not any((standing | dict(weights)).values()):
            raise Rejected("all weights would be 0: the service's name would have no answer")
        changed = {region: weight for region, weight in weights.items() if standing[region] != weight}
        if not changed:
            return
        for region, weight in changed.items():
            _set(endpoints[region], weight)

        def patch(c: Clients) -> Profile:
            from azure.mgmt.trafficmanager import models  # noqa: PLC0415

            of_profile = profile.properties.endpoints if profile.properties else None
            update = models.Profile(properties=models.ProfileProperties(endpoints=of_profile))
            return c.traffic_manager.profiles.update(self._group, self._profile, update)

        await fence.check()
        await self._arm.ask("PatchTrafficManagerProfile", WHERE, patch)

    async def _get(self) -> Profile:
        return await self._arm.ask(
            "GetTrafficManagerProfile", WHERE, lambda c: c.traffic_manager.profiles.get(self._group, self._profile)
        )

    def _endpoints(self, profile: Profile) -> dict[str, Endpoint]:
        listed = (profile.properties.endpoints if profile.properties else None) or []
        return {self._regions[e.name]: e for e in listed if e.name in self._regions}


def _weight(endpoint: Endpoint) -> int:
    properties = endpoint.properties
    if properties is None or properties.endpoint_status == "Disabled":
        return 0
    return int(properties.weight or 1)


def _set(endpoint: Endpoint, weight: int) -> None:
    """A disabled endpoint keeps the weight it had."""
    assert endpoint.properties is not None
    endpoint.properties.endpoint_status = "Enabled" if weight else "Disabled"
    if weight:
        endpoint.properties.weight = weight
