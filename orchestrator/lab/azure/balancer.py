"""Microsoft.Network: the Standard Load Balancer, its backend pools and the admin state of each address.

Membership lives on the scale set's network interfaces and cannot be written here ("backend pools configured via network
interface cannot be updated as part of an operation on the backend pool", Azure's backend pool management); a PUT of a pool
may only set adminState, one per address. What a PUT says is shown at once and reaches the data plane when its operation
ends. A later write to the same load balancer cancels one still at work (CanceledAndSupersededDueToAnotherOperation).
"""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy
from typing import Any

from orchestrator.lab.azure.arm import NETWORK, ArmError, Body, Params, Reply, Request, Route, check_match, not_found
from orchestrator.lab.azure.faults import FaultKind
from orchestrator.lab.azure.operations import SUCCEEDED, Ended, superseded
from orchestrator.lab.azure.state import Balancer, ScaleSet, Vm, World

BALANCER = NETWORK + "/loadBalancers/{name}"
POOL = BALANCER + "/backendAddressPools/{pool}"
PARTS = ("frontendIPConfigurations", "backendAddressPools", "probes", "loadBalancingRules")


def address_name(scale_set: ScaleSet, vm: Vm) -> str:
    """Name an instance's backend address; stable through upgrades in place, new for a new instance."""
    return f"{vm.uuid}_{scale_set.name}_{vm.id}"


class Balancers:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        lb, pool, b = "network:LoadBalancer", "network:BackendAddressPool", "LoadBalancerBackendAddressPools_"
        return [
            Route("PUT", BALANCER, "LoadBalancers_CreateOrUpdate", self._put, lb, lb),
            Route("GET", BALANCER, "LoadBalancers_Get", self._get, None, lb),
            Route("GET", NETWORK + "/loadBalancers", "LoadBalancers_List", self._list, None, "network:[LoadBalancer]"),
            Route("DELETE", BALANCER, "LoadBalancers_Delete", self._delete),
            Route("PUT", POOL, b + "CreateOrUpdate", self._put_pool, pool, pool),
            Route("GET", POOL, b + "Get", self._get_pool, None, pool),
            Route(
                "GET", BALANCER + "/backendAddressPools", b + "List", self._list_pools, None, f"network:[{pool[8:]}]"
            ),
        ]

    # -- the load balancer

    def _find(self, params: Params) -> Balancer:
        path = BALANCER.format(**params)
        found = self._world.balancers.get(path.lower())
        if found is None:
            raise not_found("Microsoft.Network/loadBalancers", params["name"], params["group"])
        refresh_etag(self._world, found)
        return found

    def _get(self, request: Request, params: Params) -> Reply:
        return Reply(200, self._shown(self._find(params)))

    def _list(self, request: Request, params: Params) -> Reply:
        prefix = request.path.lower() + "/"
        found = [b for key, b in self._world.balancers.items() if key.startswith(prefix)]
        return Reply(200, {"value": [self._shown(balancer) for balancer in found]})

    def _delete(self, request: Request, params: Params) -> Reply:
        found = self._world.balancers.get(request.path.lower())
        if found is None:
            return Reply(204)
        if any(True for pool in found.admin for _ in self._world.members(pool)):
            raise ArmError(400, "InUseBackendAddressPoolCannotBeDeleted", f"{request.path} is used by a scale set.")
        del self._world.balancers[request.path.lower()]
        return self._write(request, found, 202, None)

    def _put(self, request: Request, params: Params) -> Reply:
        path = request.path.lower()
        old = self._world.balancers.get(path)
        if old is not None:
            refresh_etag(self._world, old)
        check_match(request, str(old.document["etag"]) if old else None, request.path)
        body = copy.deepcopy(request.body)
        region = str(body.get("location", "")).replace(" ", "").lower()
        if region not in self._world.regions:
            raise ArmError(400, "LocationNotAvailableForResourceType", f"The location '{region}' is not available.")
        body |= {"id": request.path, "name": params["name"], "type": "Microsoft.Network/loadBalancers"}
        properties = body.setdefault("properties", {})
        for part in PARTS:
            for item in properties.get(part) or []:
                item["id"] = f"{request.path}/{part}/{item['name']}"
                item.setdefault("properties", {})["provisioningState"] = "Succeeded"
        self._check(body)
        pools = [str(pool["id"]).lower() for pool in properties.get("backendAddressPools") or []]
        lost = [pool for pool in (old.admin if old else {}) if pool not in pools]
        if any(True for pool in lost for _ in self._world.members(pool)):
            raise ArmError(400, "InUseBackendAddressPoolCannotBeDeleted", f"{', '.join(lost)} is used by a scale set.")
        for pool in properties.get("backendAddressPools") or []:
            pool["properties"].pop("loadBalancerBackendAddresses", None)
        balancer = old or Balancer(body, region)
        balancer.document = body
        balancer.admin = {pool: balancer.admin.get(pool, {}) for pool in pools}
        self._world.balancers[path] = balancer
        touch(self._world, balancer)
        return self._write(request, balancer, 200 if old else 201, self._shown(balancer))

    def _check(self, body: Body) -> None:
        """Every reference must lead somewhere, as the real API insists (InvalidResourceReference)."""
        properties = body["properties"]
        own = {item["id"].lower() for part in PARTS for item in properties.get(part) or []}
        wanted: list[Any] = []
        for rule in properties.get("loadBalancingRules") or []:
            p = rule["properties"]
            wanted += [p.get("frontendIPConfiguration"), p.get("backendAddressPool"), p.get("probe")]
        for frontend in properties.get("frontendIPConfigurations") or []:
            wanted.append(frontend["properties"].get("publicIPAddress"))
        for reference in (r for r in wanted if r):
            target = str(reference["id"]).lower()
            if target not in own and target not in self._world.network:
                message = f"Resource {reference['id']} referenced by resource {body['id']} was not found."
                raise ArmError(400, "InvalidResourceReference", message)
        for probe in properties.get("probes") or []:
            if probe["properties"].get("intervalInSeconds", 15) < 5:
                raise ArmError(
                    400, "InvalidProbeInterval", f"Probe {probe['name']}: the interval is at least 5 seconds."
                )

    # -- backend pools

    def _get_pool(self, request: Request, params: Params) -> Reply:
        balancer = self._find(params)
        return Reply(200, self._pool(balancer, self._pool_document(balancer, params)))

    def _list_pools(self, request: Request, params: Params) -> Reply:
        balancer = self._find(params)
        pools = balancer.document["properties"].get("backendAddressPools") or []
        return Reply(200, {"value": [self._pool(balancer, pool) for pool in pools]})

    def _pool_document(self, balancer: Balancer, params: Params) -> Body:
        for pool in balancer.document["properties"].get("backendAddressPools") or []:
            if pool["name"].lower() == params["pool"].lower():
                return pool  # type: ignore[no-any-return]
        raise not_found("Microsoft.Network/loadBalancers/backendAddressPools", params["pool"], params["group"])

    def _put_pool(self, request: Request, params: Params) -> Reply:
        balancer = self._find(params)
        pool = self._pool_document(balancer, params)
        check_match(request, str(balancer.document["etag"]), request.path)
        written = (request.body.get("properties") or {}).get("loadBalancerBackendAddresses")
        if written is not None:
            balancer.admin[str(pool["id"]).lower()] = self._admin_states(str(pool["id"]), written)
        touch(self._world, balancer)
        return self._write(request, balancer, 200, self._pool(balancer, pool))

    def _admin_states(self, pool_id: str, written: list[Body]) -> dict[str, str]:
        """Read adminState per address. Raises ArmError 400 when the addresses are not those of the members.

        The status and the rule are Azure's; the error's code is the lab's own, the real one is not documented.
        """
        members = {address_name(s, vm): vm.address for s, vm in self._world.members(pool_id)}
        names = [str(address.get("name")) for address in written]
        if sorted(names) != sorted(members):
            message = (
                f"Backend pool {pool_id} is configured via network interfaces; its members cannot be changed here. "
                f"Missing: {sorted(set(members) - set(names))}; unknown: {sorted(set(names) - set(members))}."
            )
            raise ArmError(400, "BackendPoolMembersCannotBeChanged", message)
        states = {}
        for address in written:
            properties = address.get("properties") or {}
            name = str(address["name"])
            if properties.get("ipAddress") not in (None, members[name]):
                raise ArmError(400, "BackendPoolMembersCannotBeChanged", f"{name} has address {members[name]}.")
            states[name] = str(properties.get("adminState") or "None")
        return states

    def _write(self, request: Request, balancer: Balancer, status: int, body: Body | None) -> Reply:
        """Start the operation that brings the written state to the data plane; it cancels the one at work."""
        operations, now = self._world.operations, request.now
        pool = "/backendaddresspools/" in request.path.lower()
        what = f"{request.method.title()}LoadBalancer{'BackendAddressPool' if pool else ''}Operation"
        if balancer.write is not None:
            old = f"{balancer.write.what} ({balancer.write.id})"
            balancer.write.end(superseded(old, what), now)
        if request.fault is not None and request.fault.kind is FaultKind.FAIL:
            operation = operations.start_failed(request, balancer.region, what)
        else:
            end = now + self._world.network_write_s

            def judge(now: float) -> Ended | None:
                if now < end:
                    return None
                balancer.applied = copy.deepcopy(balancer.admin)
                return SUCCEEDED

            operation = operations.start(request, balancer.region, what, judge)
        balancer.write = operation
        return Reply(status, body, operations.headers(operation, request, location=status == 202))

    # -- views

    def _shown(self, balancer: Balancer) -> Body:
        body = copy.deepcopy(balancer.document)
        properties = body["properties"]
        properties["backendAddressPools"] = [
            self._pool(balancer, pool) for pool in balancer.document["properties"].get("backendAddressPools") or []
        ]
        for part in PARTS:
            for item in properties.get(part) or []:
                item["etag"] = body["etag"]
        properties["provisioningState"] = self._state(balancer)
        return body

    def _state(self, balancer: Balancer) -> str:
        write = balancer.write
        if write is not None and write.ended is None:
            return "Updating"
        return "Failed" if write is not None and write.ended and write.ended.status == "Failed" else "Succeeded"

    def _pool(self, balancer: Balancer, pool: Body) -> Body:
        admin = balancer.admin.get(str(pool["id"]).lower(), {})
        members = list(self._world.members(str(pool["id"])))
        body = copy.deepcopy(pool)
        body |= {"etag": balancer.document["etag"], "type": "Microsoft.Network/loadBalancers/backendAddressPools"}
        body["properties"]["provisioningState"] = self._state(balancer)
        body["properties"]["backendIPConfigurations"] = [{"id": s.ip_configuration_id(vm)} for s, vm in members]
        body["properties"]["loadBalancerBackendAddresses"] = [
            {
                "name": address_name(scale_set, vm),
                "properties": {
                    "ipAddress": vm.address,
                    "networkInterfaceIPConfiguration": {"id": scale_set.ip_configuration_id(vm)},
                    "adminState": admin.get(address_name(scale_set, vm), "None"),
                },
            }
            for scale_set, vm in members
        ]
        return body


def touch(world: World, balancer: Balancer) -> None:
    """Give the load balancer a new etag; its pools share it, as in Azure."""
    balancer.document["etag"] = f'W/"{world.new_id()}"'
    balancer.members = _members(world, balancer)


def refresh_etag(world: World, balancer: Balancer) -> None:
    """A member that came or went changes the etag: a PUT that was built before then meets 412."""
    if balancer.members != _members(world, balancer):
        touch(world, balancer)


def _members(world: World, balancer: Balancer) -> tuple[str, ...]:
    return tuple(vm.uuid for pool in balancer.admin for _, vm in world.members(pool))
