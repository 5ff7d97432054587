"""Microsoft.Network: virtual networks, subnets, public addresses, security groups."""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy
import ipaddress
from collections.abc import Mapping

from orchestrator.lab.azure.arm import NETWORK, ArmError, Body, Params, Reply, Request, Route, check_match, not_found
from orchestrator.lab.azure.faults import FaultKind
from orchestrator.lab.azure.operations import SUCCEEDED, Ended
from orchestrator.lab.azure.state import World

# Resource type -> (SDK model, name in Azure's REST specification)
KINDS: Mapping[str, tuple[str, str]] = {
    "virtualNetworks": ("VirtualNetwork", "VirtualNetworks"),
    "publicIPAddresses": ("PublicIPAddress", "PublicIPAddresses"),
    "networkSecurityGroups": ("NetworkSecurityGroup", "NetworkSecurityGroups"),
}
SUBNET = NETWORK + "/virtualNetworks/{network}/subnets/{name}"


class Networks:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        routes = []
        for kind, (model, call) in KINDS.items():
            path, schema = f"{NETWORK}/{kind}/{{name}}", f"network:{model}"
            routes += [
                Route("PUT", path, call + "_CreateOrUpdate", self._put, schema, schema),
                Route("GET", path, call + "_Get", self._get, None, schema),
                Route("DELETE", path, call + "_Delete", self._delete),
                Route("GET", f"{NETWORK}/{kind}", call + "_List", self._list, None, f"network:[{model}]"),
            ]
        subnet = "network:Subnet"
        return [
            *routes,
            Route("PUT", SUBNET, "Subnets_CreateOrUpdate", self._put_subnet, subnet, subnet),
            Route("GET", SUBNET, "Subnets_Get", self._get, None, subnet),
            Route("DELETE", SUBNET, "Subnets_Delete", self._delete),
        ]

    def _get(self, request: Request, params: Params) -> Reply:
        return Reply(200, self._shown(self._find(request.path, params)))

    def _list(self, request: Request, params: Params) -> Reply:
        prefix, depth = request.path.lower() + "/", request.path.count("/") + 1
        network = self._world.network
        found = [d for k, d in network.items() if k.startswith(prefix) and k.count("/") == depth]
        return Reply(200, {"value": [self._shown(document) for document in found]})

    def _put(self, request: Request, params: Params) -> Reply:
        key = request.path.lower()
        old = self._world.network.get(key)
        check_match(request, str(old["etag"]) if old else None, request.path)
        body = copy.deepcopy(request.body)
        self._location(body)
        body.setdefault("properties", {})
        kind = request.path.split("/")[-2]
        if kind.lower() == "publicipaddresses":
            body["properties"]["ipAddress"] = self._address(body, old)
        if kind.lower() == "virtualnetworks":
            # Subnets live as documents of their own; naming them here creates them, leaving them out keeps them.
            for subnet in body["properties"].pop("subnets", None) or []:
                self._store(f"{request.path}/subnets/{subnet['name']}", self._checked_subnet(subnet, body), "subnets")
        self._store(request.path, body, kind)
        return self._accept(request, str(body["location"]), body, created=old is None)

    def _put_subnet(self, request: Request, params: Params) -> Reply:
        network = self._find(request.path.rsplit("/subnets/", 1)[0], params)
        old = self._world.network.get(request.path.lower())
        check_match(request, str(old["etag"]) if old else None, request.path)
        body = self._checked_subnet(copy.deepcopy(request.body), network)
        self._store(request.path, body, "subnets")
        return self._accept(request, str(network["location"]), body, created=old is None)

    def _delete(self, request: Request, params: Params) -> Reply:
        key = request.path.lower()
        document = self._world.network.get(key)
        if document is None:
            return Reply(204)
        if any(
            s.ip_configuration()["properties"]["subnet"]["id"].lower().startswith(key)
            for s in self._world.scale_sets.values()
        ):
            raise ArmError(400, "InUseSubnetCannotBeDeleted", f"{request.path} is in use by a scale set.")
        for inner in [k for k in self._world.network if k == key or k.startswith(key + "/")]:
            del self._world.network[inner]
        location = str(document.get("location") or next(iter(self._world.regions)))
        return write(self._world, request, location, None, 202)

    def _accept(self, request: Request, location: str, body: Body, *, created: bool) -> Reply:
        reply = write(self._world, request, location, body, 201 if created else 200)
        reply.body = self._shown(body)
        return reply

    def _store(self, path: str, body: Body, kind: str) -> None:
        body |= {
            "id": path,
            "name": path.rsplit("/", 1)[-1],
            "type": "Microsoft.Network/" + ("virtualNetworks/subnets" if kind == "subnets" else kind),
            "etag": f'W/"{self._world.new_id()}"',
        }
        body["properties"]["provisioningState"] = "Succeeded"
        self._world.network[path.lower()] = body

    def _shown(self, document: Body) -> Body:
        body = copy.deepcopy(document)
        if body["type"] == "Microsoft.Network/virtualNetworks":
            prefix = str(body["id"]).lower() + "/subnets/"
            subnets = [d for key, d in self._world.network.items() if key.startswith(prefix)]
            body["properties"]["subnets"] = copy.deepcopy(subnets)
        return body

    def _find(self, path: str, params: Params) -> Body:
        document = self._world.network.get(path.lower())
        if document is None:
            kind, name = path.split("/")[-2:]
            raise not_found(f"Microsoft.Network/{kind}", name, params["group"])
        return document

    def _location(self, body: Body) -> None:
        location = str(body.get("location", "")).replace(" ", "").lower()
        if location not in self._world.regions:
            known = ", ".join(self._world.regions)
            message = f"The provided location '{location}' is not available; locations are {known}."
            raise ArmError(400, "LocationNotAvailableForResourceType", message)
        body["location"] = location

    def _address(self, body: Body, old: Body | None) -> str:
        """The first public address of a region is its TCP front's; further ones follow it."""
        if old is not None:
            return str(old["properties"]["ipAddress"])
        first = ipaddress.ip_address(self._world.regions[body["location"]].tcp_front)
        taken = {d["properties"].get("ipAddress") for d in self._world.network.values()}
        return next(str(first + n) for n in range(32) if str(first + n) not in taken)

    def _checked_subnet(self, subnet: Body, network: Body) -> Body:
        properties = subnet.get("properties") or {}
        prefix = properties.get("addressPrefix") or (properties.get("addressPrefixes") or [None])[0]
        spaces = [ipaddress.ip_network(p) for p in network["properties"]["addressSpace"]["addressPrefixes"]]
        try:
            inside = any(ipaddress.ip_network(str(prefix)).subnet_of(space) for space in spaces)  # type: ignore[arg-type]
        except ValueError as error:
            raise ArmError(
                400, "InvalidCIDRNotation", f"The address prefix {prefix} is not in CIDR notation."
            ) from error
        if not inside:
            message = (
                f"Subnet '{subnet.get('name')}' is not valid: its address range is outside of the virtual network's."
            )
            raise ArmError(400, "NetcfgSubnetRangeOutsideVnet", message)
        subnet["properties"] = properties | {"addressPrefix": prefix}
        return subnet


def write(world: World, request: Request, location: str, body: Body | None, status: int) -> Reply:
    """Answer a network write with a long-running operation that ends `network_write_s` later."""
    what = f"Microsoft.Network {request.method}"
    if request.fault is not None and request.fault.kind is FaultKind.FAIL:
        operation = world.operations.start_failed(request, location, what)
    else:
        end = request.now + world.network_write_s

        def judge(now: float) -> Ended | None:
            return SUCCEEDED if now >= end else None

        operation = world.operations.start(request, location, what, judge)
    return Reply(status, body, world.operations.headers(operation, request, location=status == 202))
