"""Microsoft.Compute: virtual machine scale sets, one per zone.

Uniform orchestration, not Flexible: `manualupgrade` (update_instances), `latestModelApplied`, the instance list with
`instanceView`/`vmHealth` and the interfaces listed by scale set are the Uniform API, long settled. Flexible instances are
ordinary virtual machines that are read elsewhere, and upgrade policies came to them as a preview in July 2024.
"""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

from orchestrator.lab.azure import fleet, views
from orchestrator.lab.azure.arm import (
    COMPUTE,
    ArmError,
    Body,
    Params,
    Reply,
    Request,
    Route,
    check_match,
    merged,
)
from orchestrator.lab.azure.faults import FaultKind
from orchestrator.lab.azure.operations import PREEMPTED, SUCCEEDED, Ended, Judge
from orchestrator.lab.azure.state import ScaleSet, World, decoded

Work: TypeAlias = Callable[[], Judge]  # starts the work; the judge says when it is done

PATH = COMPUTE + "/virtualMachineScaleSets/{name}"
LIST = COMPUTE + "/virtualMachineScaleSets"


class ScaleSets:
    """Scale sets as resources: create, update, read, delete, instance view, repairs service."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        c = "VirtualMachineScaleSets_"
        model, update = "compute:VirtualMachineScaleSet", "compute:VirtualMachineScaleSetUpdate"
        state = "compute:OrchestrationServiceStateInput"
        view = "compute:VirtualMachineScaleSetInstanceView"
        return [
            Route("PUT", PATH, c + "CreateOrUpdate", self._put, model, model),
            Route("PATCH", PATH, c + "Update", self._patch, update, model),
            Route("GET", PATH, c + "Get", self._get, None, model),
            Route("DELETE", PATH, c + "Delete", self._delete),
            Route("GET", LIST, c + "List", self._list, None, "compute:[VirtualMachineScaleSet]"),
            Route("GET", PATH + "/instanceView", c + "GetInstanceView", self._view, None, view),
            Route("POST", PATH + "/setOrchestrationServiceState", c + "SetOrchestrationServiceState", self._set, state),
        ]

    def _get(self, request: Request, params: Params) -> Reply:
        found = self._world.scale_set(request.path, params["group"])
        return Reply(200, views.scale_set(found, user_data=request.expands("userData")), {"ETag": found.etag})

    def _list(self, request: Request, params: Params) -> Reply:
        prefix = request.path.lower() + "/"
        found = [s for key, s in self._world.scale_sets.items() if key.startswith(prefix)]
        return Reply(200, {"value": [views.scale_set(s, user_data=False) for s in found]})

    def _view(self, request: Request, params: Params) -> Reply:
        path = request.path.rsplit("/", 1)[0]
        return Reply(200, views.instance_view_of_all(self._world.scale_set(path, params["group"])))

    def _put(self, request: Request, params: Params) -> Reply:
        found = self._world.scale_sets.get(request.path.lower())
        check_match(request, found.etag if found else None, request.path)
        body = copy.deepcopy(request.body)
        return self._write(request, params, found, body)

    def _patch(self, request: Request, params: Params) -> Reply:
        found = self._world.scale_set(request.path, params["group"])
        check_match(request, found.etag, request.path)
        return self._write(request, params, found, merged(copy.deepcopy(found.document), request.body))

    def _write(self, request: Request, params: Params, found: ScaleSet | None, body: Body) -> Reply:
        """Take the new model over at once; capacity follows as a long-running operation."""
        old_capacity = found.capacity if found else 0
        region, zone = self._check(body, found)
        if found is not None and (region, zone) != (found.region, found.zone):
            raise ArmError(
                409, "PropertyChangeNotAllowed", "Changing properties 'location' and 'zones' is not allowed."
            )
        self._check_quota(region, body["sku"]["capacity"] - old_capacity)
        body["properties"].setdefault("orchestrationMode", "Uniform")
        properties = {"provisioningState": "Updating" if found else "Creating", "uniqueId": self._world.new_id()}
        if found:
            properties["uniqueId"] = found.document["properties"]["uniqueId"]
        body["properties"] |= properties
        body |= {
            "id": request.path,
            "name": params["name"],
            "type": "Microsoft.Compute/virtualMachineScaleSets",
            "etag": f'"{self._world.new_id()}"',
        }
        status = 200 if found else 201
        if found is None:
            found = ScaleSet(body, region, zone, params["group"], created=request.now)
            self._world.scale_sets[request.path.lower()] = found
        found.document = body
        return self._resize(request, found, status)

    def _resize(self, request: Request, found: ScaleSet, status: int) -> Reply:
        operations = self._world.operations
        what = "VirtualMachineScaleSets_CreateOrUpdate" if request.method == "PUT" else "VirtualMachineScaleSets_Update"
        if found.write is not None:
            found.write.end(PREEMPTED, request.now)

        def on_end(ended: Ended) -> None:
            if ended is not PREEMPTED:
                found.document["properties"]["provisioningState"] = ended.status

        if request.fault is not None and request.fault.kind is FaultKind.FAIL:
            operation = operations.start_failed(request, found.region, what, on_end)
        else:
            short = fleet.resize(self._world, found, request.now)
            new = [vm for vm in found.vms.values() if vm.provisioning == "Creating"]
            judge = fleet.until_running(self._world, found, new, request.now, short)
            operation = operations.start(request, found.region, what, judge, on_end)
        found.write = operation
        headers = operations.headers(operation, request, location=False) | {"ETag": found.etag}
        headers["x-ms-ratelimit-remaining-resource"] = "Microsoft.Compute/UpdateVMScaleSet3Min;299"
        return Reply(status, views.scale_set(found, user_data=False), headers)

    def _delete(self, request: Request, params: Params) -> Reply:
        found = self._world.scale_sets.get(request.path.lower())
        if found is None:
            return Reply(204)
        check_match(request, found.etag, request.path)
        return accepted(self._world, request, found, "VirtualMachineScaleSets_Delete", lambda: self._drop(found))

    def _drop(self, found: ScaleSet) -> Judge:
        del self._world.scale_sets[found.id.lower()]
        return lambda _now: SUCCEEDED

    def _set(self, request: Request, params: Params) -> Reply:
        path = request.path.rsplit("/", 1)[0]
        found = self._world.scale_set(path, params["group"])
        if request.body["serviceName"] != "AutomaticRepairs":
            raise ArmError(400, "InvalidParameter", f"The service {request.body['serviceName']} is not available.")
        policy = found.document["properties"].get("automaticRepairsPolicy") or {}
        if not policy.get("enabled"):
            message = "The orchestration service AutomaticRepairs is not running: automatic repairs are not enabled."
            raise ArmError(409, "OperationNotAllowed", message)

        def work() -> Judge:
            found.repairs_suspended = request.body["action"] == "Suspend"
            return lambda _now: SUCCEEDED

        return accepted(self._world, request, found, "VirtualMachineScaleSets_SetOrchestrationServiceState", work)

    def _check(self, body: Body, found: ScaleSet | None) -> tuple[str, str]:
        """Refuse what Azure would refuse, and what the lab cannot emulate. Returns location and zone."""
        region = str(body.get("location") or (found.region if found else "")).replace(" ", "").lower()
        if region not in self._world.regions:
            known = ", ".join(self._world.regions)
            message = f"The provided location '{region}' is not available for resource type; locations are {known}."
            raise ArmError(400, "LocationNotAvailableForResourceType", message)
        zones, properties = body.get("zones") or [], body.get("properties") or {}
        if len(zones) != 1:
            raise _invalid("zones", "the lab keeps one scale set per zone, so exactly one zone must be named")
        if (properties.get("orchestrationMode") or "Uniform") != "Uniform":
            raise _invalid("orchestrationMode", "the lab emulates Uniform orchestration only")
        if not isinstance((body.get("sku") or {}).get("capacity"), int) or body["sku"]["capacity"] < 0:
            raise _invalid("sku.capacity", "a number of instances is required")
        try:
            profile = properties["virtualMachineProfile"]
            decoded(profile.get("userData"))
            self._check_image(profile["storageProfile"]["imageReference"])
            nic = profile["networkProfile"]["networkInterfaceConfigurations"][0]
            ip = nic["properties"]["ipConfigurations"][0]["properties"]
            self._check_references(ip)
            if policy := properties.get("automaticRepairsPolicy"):
                self._check_repairs(policy, profile)
        except (KeyError, IndexError, TypeError) as error:
            raise _invalid("virtualMachineProfile", f"{error} is required") from error
        except ValueError as error:
            raise _invalid("virtualMachineProfile", str(error)) from error
        return region, str(zones[0])

    def _check_image(self, image: Body) -> None:
        if not (image.get("id") or image.get("version")):
            raise ValueError("imageReference names neither an id nor a version")

    def _check_references(self, ip: Body) -> None:
        subnet = ip["subnet"]["id"]
        if str(subnet).lower() not in self._world.network:
            raise ArmError(
                400, "InvalidResourceReference", f"Resource {subnet} referenced by the scale set was not found."
            )
        for pool in ip.get("loadBalancerBackendAddressPools") or []:
            if not any(pool["id"].lower() in balancer.admin for balancer in self._world.balancers.values()):
                message = f"Resource {pool['id']} referenced by the scale set was not found."
                raise ArmError(400, "InvalidResourceReference", message)

    def _check_repairs(self, policy: Body, profile: Body) -> None:
        """Azure: a grace of 10 to 90 minutes, and a health signal to act on."""
        if not policy.get("enabled"):
            return
        if not 10 <= fleet.minutes(policy.get("gracePeriod", "PT10M")) <= 90:
            raise ValueError("automaticRepairsPolicy.gracePeriod must lie between PT10M and PT90M")
        extensions = (profile.get("extensionProfile") or {}).get("extensions") or []
        if not any(e.get("properties", {}).get("type", "").startswith("ApplicationHealth") for e in extensions):
            raise ValueError("automatic repairs need the Application Health extension or a health probe")

    def _check_quota(self, region: str, more: int) -> None:
        quota = self._world.quota.get(region)
        used = sum(len(s.vms) for s in self._world.scale_sets.values() if s.region == region)
        if quota is not None and more > 0 and used + more > quota:
            message = (
                "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. "
                f"Location: {region}, Current Limit: {quota}, Current Usage: {used}, Additional Required: {more}."
            )
            raise ArmError(409, "OperationNotAllowed", message)


def accepted(world: World, request: Request, found: ScaleSet, what: str, work: Work) -> Reply:
    """Answer 202 with both links. `work` runs now, unless a fault makes the operation fail without it."""
    if request.fault is not None and request.fault.kind is FaultKind.FAIL:
        operation = world.operations.start_failed(request, found.region, what)
    else:
        operation = world.operations.start(request, found.region, what, work())
    return Reply(202, None, world.operations.headers(operation, request, location=True))


def _invalid(target: str, why: str) -> ArmError:
    return ArmError(400, "InvalidParameter", f"The value of parameter {target} is invalid: {why}.")
