"""Microsoft.Resources: resource groups, which everything else lives in."""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy

from orchestrator.lab.azure.arm import GROUP, ArmError, Params, Reply, Request, Route
from orchestrator.lab.azure.operations import SUCCEEDED
from orchestrator.lab.azure.state import World


class Groups:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        return [
            Route("PUT", GROUP, "ResourceGroups_CreateOrUpdate", self._put),
            Route("GET", GROUP, "ResourceGroups_Get", self._get),
            Route("HEAD", GROUP, "ResourceGroups_CheckExistence", self._head),
            Route("DELETE", GROUP, "ResourceGroups_Delete", self._delete),
        ]

    def check(self, params: Params) -> None:
        """Raise ArmError 404 when the path names a group that does not exist."""
        group = params.get("group")
        if group is not None and group.lower() not in self._world.groups:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")

    def _put(self, request: Request, params: Params) -> Reply:
        old = self._world.groups.get(params["group"].lower())
        location = str(request.body.get("location", "")).replace(" ", "").lower()
        if location not in self._world.regions:
            raise ArmError(400, "LocationNotAvailableForResourceGroup", f"The location '{location}' is not available.")
        body = {
            "id": request.path,
            "name": params["group"],
            "type": "Microsoft.Resources/resourceGroups",
            "location": location,
            "tags": dict(request.body.get("tags") or {}),
            "properties": {"provisioningState": "Succeeded"},
        }
        self._world.groups[params["group"].lower()] = body
        return Reply(200 if old else 201, copy.deepcopy(body))

    def _get(self, request: Request, params: Params) -> Reply:
        self.check(params)
        return Reply(200, copy.deepcopy(self._world.groups[params["group"].lower()]))

    def _head(self, request: Request, params: Params) -> Reply:
        return Reply(204 if params["group"].lower() in self._world.groups else 404)

    def _delete(self, request: Request, params: Params) -> Reply:
        """Everything in the group goes with it."""
        self.check(params)
        group = self._world.groups.pop(params["group"].lower())
        prefix = str(group["id"]).lower() + "/"
        world = self._world
        for table in (world.scale_sets, world.balancers, world.network, world.profiles, world.autoscale):
            for key in [k for k in table if k.startswith(prefix)]:
                del table[key]
        what = "ResourceGroups_Delete"
        operation = world.operations.start(request, str(group["location"]), what, lambda _now: SUCCEEDED)
        return Reply(202, None, world.operations.headers(operation, request, location=True))
