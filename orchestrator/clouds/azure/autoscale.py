"""A zone's autoscale setting at Azure Monitor: what else changes the number of its instances, and between which bounds.

A setting is known by what it is for: among those of the region's resource group, the one whose target is the zone's scale
set (Azure allows one for each). None there means that this zone has no autoscaler; one in another group is not seen.
https://learn.microsoft.com/rest/api/monitor/autoscale-settings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from orchestrator.clouds.azure.machines import Place
from orchestrator.core.errors import Rejected, Transient
from orchestrator.ports import Autoscaler, Fence

if TYPE_CHECKING:
    from orchestrator.clouds.azure.sdk import Clients

Json = dict[str, Any]

API: Final = "api-version=2022-10-01"
SETTINGS: Final = "/providers/Microsoft.Insights/autoscaleSettings"


@dataclass(frozen=True, slots=True)
class Setting:
    """One reading. Of several profiles (a schedule) the highest bounds count: which is in force is Azure's to say."""

    id: str
    enabled: bool
    profiles: Sequence[Json]

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]

    @property
    def bounds(self) -> Autoscaler:
        def of(bound: str) -> list[int]:
            return [int(profile["capacity"][bound]) for profile in self.profiles]

        return Autoscaler(max(of("minimum")), max(of("maximum")), self.enabled)

    def with_minimum(self, minimum: int) -> Sequence[Json] | None:
        """The profiles with that minimum; None when nothing is to be changed, or a schedule has minimums of its own."""
        if len(self.profiles) != 1 or self.bounds.minimum == minimum:
            return None
        profile = self.profiles[0]
        low, start, high = (int(profile["capacity"][key]) for key in ("minimum", "default", "maximum"))
        start = minimum if start == low else min(max(start, minimum), high)
        return [{**profile, "capacity": {"minimum": str(minimum), "default": str(start), "maximum": str(high)}}]


async def read(place: Place) -> Setting | None:
    """The setting of the scale set at `place`; None: it has no autoscaler."""
    return await place.arm.ask("ListAutoscaleSettings", place.id, lambda c: _find(c, place))


async def write(place: Place, setting: Setting, profiles: Sequence[Json], fence: Fence, *, enabled: bool) -> None:
    """Write both and read them back. Transient when Azure does not show them yet.

    Profiles are sent along with `enabled` because the specification requires them of every write.
    """
    await fence.check()
    body = {"properties": {"profiles": [_without_nulls(p) for p in profiles], "enabled": enabled}}
    await place.arm.ask("PatchAutoscaleSetting", place.id, lambda c: _send(c, "PATCH", setting.id, body))
    seen = _setting(await place.arm.ask("GetAutoscaleSetting", place.id, lambda c: _send(c, "GET", setting.id)))
    wanted = Setting(setting.id, enabled, profiles)
    if seen.bounds != wanted.bounds:
        raise Transient(f"azure PatchAutoscaleSetting for {place.id}: {setting.name} does not show the change yet")


def _find(clients: Clients, place: Place) -> Setting | None:
    group = f"/subscriptions/{place.arm.subscription_id}/resourceGroups/{place.group}"
    target = f"{group}/providers/Microsoft.Compute/virtualMachineScaleSets/{place.name}".lower()
    page, query = group + SETTINGS, API
    while page:
        listed = _send(clients, "GET", page, query=query)
        for setting in listed["value"]:
            if str(setting["properties"].get("targetResourceUri")).lower() == target:
                return _setting(setting)
        following = urlsplit(listed.get("nextLink") or "")  # only its path: our credential is shown to no other host
        page, query = following.path, following.query
    return None


def _send(clients: Clients, method: str, path: str, body: Json | None = None, *, query: str = API) -> Json:
    from orchestrator.clouds.azure.sdk import send_json  # noqa: PLC0415

    return send_json(clients.compute, method, f"{path}?{query}", body)


def _setting(told: Mapping[str, Any]) -> Setting:
    properties = told["properties"]
    if not properties["profiles"]:
        raise Rejected(f"the autoscale setting {told['name']} has no profile")
    return Setting(str(told["id"]), bool(properties.get("enabled", True)), properties["profiles"])


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Azure answers some absent fields as null, a value that its specification does not allow in a request."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
