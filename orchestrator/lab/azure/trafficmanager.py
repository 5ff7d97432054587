"""Microsoft.Network/trafficManagerProfiles: weighted endpoints behind one DNS name. Synchronous, as the real one is."""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy

from orchestrator.lab.azure.arm import NETWORK, ArmError, Body, Params, Reply, Request, Route, merged, not_found
from orchestrator.lab.azure.state import World
from orchestrator.lab.model import DesiredDns, DnsHealthCheck, DnsRecord

PROFILE = NETWORK + "/trafficmanagerprofiles/{name}"
ENDPOINT = PROFILE + "/{kind}/{endpoint}"
TYPE = "Microsoft.Network/trafficManagerProfiles"


class Profiles:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        profile, endpoint = "trafficmanager:Profile", "trafficmanager:Endpoint"
        listed, deleted = "trafficmanager:[Profile]", "trafficmanager:DeleteOperationResult"
        return [
            Route("PUT", PROFILE, "Profiles_CreateOrUpdate", self._put, profile, profile),
            Route("PATCH", PROFILE, "Profiles_Update", self._put, profile, profile),
            Route("GET", PROFILE, "Profiles_Get", self._get, None, profile),
            Route("DELETE", PROFILE, "Profiles_Delete", self._delete, None, deleted),
            Route("GET", NETWORK + "/trafficmanagerprofiles", "Profiles_List", self._list, None, listed),
            Route("PUT", ENDPOINT, "Endpoints_CreateOrUpdate", self._put_endpoint, endpoint, endpoint),
            Route("PATCH", ENDPOINT, "Endpoints_Update", self._put_endpoint, endpoint, endpoint),
            Route("GET", ENDPOINT, "Endpoints_Get", self._get_endpoint, None, endpoint),
            Route("DELETE", ENDPOINT, "Endpoints_Delete", self._delete_endpoint, None, deleted),
        ]

    def _find(self, params: Params) -> Body:
        profile = self._world.profiles.get(PROFILE.format(**params).lower())
        if profile is None:
            raise not_found(TYPE, params["name"], params["group"])
        return profile

    def _get(self, request: Request, params: Params) -> Reply:
        return Reply(200, copy.deepcopy(self._find(params)))

    def _list(self, request: Request, params: Params) -> Reply:
        prefix = request.path.lower() + "/"
        found = [copy.deepcopy(p) for key, p in self._world.profiles.items() if key.startswith(prefix)]
        return Reply(200, {"value": found})

    def _put(self, request: Request, params: Params) -> Reply:
        old = self._world.profiles.get(request.path.lower())
        body = copy.deepcopy(request.body)
        if request.method == "PATCH":
            body = merged(copy.deepcopy(self._find(params)), body)
        body |= {"id": request.path, "name": params["name"], "type": TYPE}
        properties: Body = body.setdefault("properties", {})
        if (properties.get("trafficRoutingMethod") or "Weighted") != "Weighted":
            raise ArmError(400, "BadRequest", "The lab emulates the Weighted routing method only.")
        try:
            dns = properties["dnsConfig"]
            dns["fqdn"] = f"{dns['relativeName']}.trafficmanager.net"
        except (KeyError, TypeError) as error:
            raise ArmError(400, "BadRequest", f"The profile lacks {error}.") from error
        properties.setdefault("profileStatus", "Enabled")
        properties["endpoints"] = [self._checked(request.path, e) for e in properties.get("endpoints") or []]
        self._world.profiles[request.path.lower()] = body
        return Reply(200 if old else 201, copy.deepcopy(body))

    def _delete(self, request: Request, params: Params) -> Reply:
        return _deleted() if self._world.profiles.pop(request.path.lower(), None) else Reply(204)

    def _index(self, profile: Body, params: Params) -> int | None:
        wanted = (params["kind"].lower(), params["endpoint"].lower())
        for i, endpoint in enumerate(profile["properties"]["endpoints"]):
            if (endpoint["type"].rsplit("/", 1)[-1].lower(), endpoint["name"].lower()) == wanted:
                return i
        return None

    def _get_endpoint(self, request: Request, params: Params) -> Reply:
        profile = self._find(params)
        i = self._index(profile, params)
        if i is None:
            raise not_found(TYPE + "/" + params["kind"], params["endpoint"], params["group"])
        return Reply(200, copy.deepcopy(profile["properties"]["endpoints"][i]))

    def _put_endpoint(self, request: Request, params: Params) -> Reply:
        profile = self._find(params)
        endpoints, i = profile["properties"]["endpoints"], self._index(profile, params)
        if i is None and request.method == "PATCH":
            raise not_found(TYPE + "/" + params["kind"], params["endpoint"], params["group"])
        body = copy.deepcopy(request.body)
        if request.method == "PATCH":
            body = merged(copy.deepcopy(endpoints[i]), body)
        body |= {"name": params["endpoint"], "type": f"{TYPE}/{params['kind']}"}
        body = self._checked(PROFILE.format(**params), body)
        if i is None:
            endpoints.append(body)
        else:
            endpoints[i] = body
        return Reply(201 if i is None else 200, copy.deepcopy(body))

    def _delete_endpoint(self, request: Request, params: Params) -> Reply:
        profile = self._find(params)
        i = self._index(profile, params)
        if i is None:
            return Reply(204)
        del profile["properties"]["endpoints"][i]
        return _deleted()

    def _checked(self, profile: str, endpoint: Body) -> Body:
        """A weight is 1..1000: an endpoint is taken out with endpointStatus Disabled, not with 0."""
        properties = endpoint.setdefault("properties", {})
        weight = properties.setdefault("weight", 1)
        if not 1 <= weight <= 1000:
            raise ArmError(
                400, "BadRequest", f"The weight {weight} of endpoint '{endpoint.get('name')}' is not in 1..1000."
            )
        properties.setdefault("endpointStatus", "Enabled")
        kind = str(endpoint.get("type", "")).rsplit("/", 1)[-1] or "externalEndpoints"
        target = properties.get("targetResourceId")
        if target:
            address = self._world.network.get(str(target).lower())
            if address is None:
                raise ArmError(400, "BadRequest", f"The target resource {target} was not found.")
            properties["target"] = address["properties"]["ipAddress"]
        elif not properties.get("target"):
            raise ArmError(400, "BadRequest", f"Endpoint '{endpoint.get('name')}' names no target.")
        properties.setdefault("endpointMonitorStatus", "CheckingEndpoint")
        return endpoint | {"id": f"{profile}/{kind}/{endpoint['name']}", "type": f"{TYPE}/{kind}"}


def _deleted() -> Reply:
    return Reply(200, {"boolean": True})


def desired_dns(world: World) -> DesiredDns:
    """The records and health checks that the profiles amount to."""
    records, checks = [], []
    for profile in world.profiles.values():
        properties = profile["properties"]
        if properties["profileStatus"] != "Enabled":
            continue
        monitor = properties.get("monitorConfig") or {}
        for endpoint in properties["endpoints"]:
            p = endpoint["properties"]
            if p["endpointStatus"] != "Enabled":
                continue
            check = None
            if monitor.get("path"):
                check = f"{profile['name']}/{endpoint['name']}"
                interval_s = monitor.get("intervalInSeconds", 30) / world.azure_seconds_per_lab_second
                failures = monitor.get("toleratedNumberOfFailures", 3) + 1
                checks.append(DnsHealthCheck(check, p["target"], "", monitor["path"], interval_s, failures))
            records.append(
                DnsRecord(
                    name=properties["dnsConfig"]["fqdn"] + ".",
                    set_id=endpoint["name"],
                    weight=p["weight"],
                    ttl_s=float(properties["dnsConfig"].get("ttl", 60)),
                    addresses=(p["target"],),
                    health_check=check,
                )
            )
    return DesiredDns(tuple(records), tuple(checks))
