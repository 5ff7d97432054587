"""Microsoft.Insights/autoscaleSettings: kept and shown, one for a scale set. Who acts on them is the lab's business.

https://learn.microsoft.com/rest/api/monitor/autoscale-settings
"""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.lab.azure.arm import (
    GROUP,
    SUBSCRIPTION,
    ArmError,
    Body,
    Params,
    Reply,
    Request,
    Route,
    merged,
    not_found,
)
from orchestrator.lab.azure.autoscale_model import LIST, PATCH, SETTING
from orchestrator.lab.azure.state import World

TYPE = "Microsoft.Insights/autoscaleSettings"
OF_GROUP = GROUP + "/providers/" + TYPE
PATH = OF_GROUP + "/{name}"


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """One setting and the scale set that it is for, now. `profile`: the default one (no date, no recurrence)."""

    zone: str
    group: str
    scale_set: str
    capacity: int
    enabled: bool
    minimum: int
    maximum: int
    profile: Body


def autoscalers(world: World) -> Iterator[Autoscaler]:
    """Settings whose scale set is there; the others do nothing."""
    for document in world.autoscale.values():
        properties = document["properties"]
        found = world.scale_sets.get(str(properties.get("targetResourceUri", "")).lower())
        if found is None:
            continue
        profiles = properties["profiles"]
        profile = next((p for p in profiles if not (p.get("fixedDate") or p.get("recurrence"))), profiles[0])
        bounds = (int(profile["capacity"]["minimum"]), int(profile["capacity"]["maximum"]))
        told = copy.deepcopy(profile)
        yield Autoscaler(found.zone_id, found.group, found.name, found.capacity, properties["enabled"], *bounds, told)


class AutoscaleSettings:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        c = "AutoscaleSettings_"
        return [
            Route("PUT", PATH, c + "CreateOrUpdate", self._put, SETTING, SETTING),
            Route("PATCH", PATH, c + "Update", self._patch, PATCH, SETTING),
            Route("GET", PATH, c + "Get", self._get, None, SETTING),
            Route("DELETE", PATH, c + "Delete", self._delete),
            Route("GET", OF_GROUP, c + "ListByResourceGroup", self._list, None, LIST),
            Route("GET", f"{SUBSCRIPTION}/providers/{TYPE}", c + "ListBySubscription", self._list_all, None, LIST),
        ]

    def _put(self, request: Request, params: Params) -> Reply:
        known = request.path.lower() in self._world.autoscale
        return Reply(200 if known else 201, self._store(request, params, copy.deepcopy(request.body)))

    def _patch(self, request: Request, params: Params) -> Reply:
        return Reply(200, self._store(request, params, merged(self._found(request, params), request.body)))

    def _get(self, request: Request, params: Params) -> Reply:
        return Reply(200, self._found(request, params))

    def _delete(self, request: Request, params: Params) -> Reply:
        return Reply(204 if self._world.autoscale.pop(request.path.lower(), None) is None else 200)

    def _list(self, request: Request, params: Params) -> Reply:
        prefix = request.path.lower() + "/"
        return Reply(200, {"value": [d for key, d in self._world.autoscale.items() if key.startswith(prefix)]})

    def _list_all(self, request: Request, params: Params) -> Reply:
        return Reply(200, {"value": list(self._world.autoscale.values())})

    def _found(self, request: Request, params: Params) -> Body:
        found = self._world.autoscale.get(request.path.lower())
        if found is None:
            raise not_found(TYPE, params["name"], params["group"])
        return found

    def _store(self, request: Request, params: Params, body: Body) -> Body:
        body |= {"id": request.path, "name": params["name"], "type": TYPE}
        body["location"] = str(body["location"]).replace(" ", "").lower()
        properties = body["properties"]
        properties["enabled"] = properties.get("enabled", True)
        properties["name"] = params["name"]
        self._check(request, body["location"], properties)
        self._world.autoscale[request.path.lower()] = body
        return body

    def _check(self, request: Request, location: str, properties: Body) -> None:
        """Refuse what Azure would refuse: a target that is not there or has a setting, bounds that contradict."""
        if location not in self._world.regions:
            message = f"The provided location '{location}' is not available for resource type '{TYPE}'."
            raise ArmError(400, "LocationNotAvailableForResourceType", message)
        target = str(properties.get("targetResourceUri", ""))
        if target.lower() not in self._world.scale_sets:
            raise ArmError(400, "BadRequest", f"The target resource '{target}' was not found.")
        for key, other in self._world.autoscale.items():
            if key != request.path.lower() and other["properties"]["targetResourceUri"].lower() == target.lower():
                raise ArmError(409, "Conflict", f"'{target}' has the autoscale setting '{other['name']}' already.")
        if not properties["profiles"]:
            raise ArmError(400, "BadRequest", "An autoscale setting needs at least one profile.")
        for profile in properties["profiles"]:
            low, start, high = (int(profile["capacity"][k]) for k in ("minimum", "default", "maximum"))
            if not low <= start <= high:
                message = (
                    f"Profile '{profile['name']}': minimum {low}, default {start}, maximum {high} are not in order."
                )
                raise ArmError(400, "BadRequest", message)
