"""The emulated Azure: one pure handler for its API, and the two sides that the lab's data plane sees."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.azure import fleet, trafficmanager
from orchestrator.lab.azure.alerts import Alerts
from orchestrator.lab.azure.arm import ArmError, Body, Params, Reply, Request, Route, Router, retry_after
from orchestrator.lab.azure.autoscale import Autoscaler, AutoscaleSettings, autoscalers
from orchestrator.lab.azure.balancer import Balancers, address_name
from orchestrator.lab.azure.compute import ScaleSets
from orchestrator.lab.azure.faults import ANSWERS, Fault, FaultDeck, FaultKind
from orchestrator.lab.azure.instances import Instances
from orchestrator.lab.azure.limits import Limits
from orchestrator.lab.azure.network import Networks
from orchestrator.lab.azure.operations import Operations
from orchestrator.lab.azure.resources import Groups
from orchestrator.lab.azure.schema import Schemas
from orchestrator.lab.azure.server import Server
from orchestrator.lab.azure.state import Balancer, World
from orchestrator.lab.azure.trafficmanager import Profiles
from orchestrator.lab.model import (
    Admin,
    DesiredDns,
    DesiredInstance,
    DesiredRegion,
    Front,
    FrontKind,
    Member,
    Pool,
    ScaledFleet,
    SeenRegion,
)
from orchestrator.lab.timeline import Timeline

COMPUTE_API_VERSION = "2026-04-01"
SUBSCRIPTION_ID = "00000000-0000-0000-0000-000000000001"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes over the wire. `broken`: how the connection ends instead of with a complete reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    call: str
    broken: FaultKind | None = None


class EmulatedAzure:
    """One Azure with one subscription and some regions: `{"eastus": 21}` gives eastus the addresses 127.21.0.0/16.

    A ControlPlane. `start` serves its API; `handle` is the same without HTTP. Thread-safe.
    """

    def __init__(
        self,
        regions: Mapping[str, int],
        timeline: Timeline | None = None,
        *,
        subscription_id: str = SUBSCRIPTION_ID,
        azure_seconds_per_lab_second: float = 25.0,
        boot_timeout_s: float = 30.0,
        network_write_s: float = 0.1,
        rate_limits: bool = True,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.subscription_id = subscription_id
        self.faults = FaultDeck()
        self._clock = clock
        self._new_id = new_id
        self._lock = threading.RLock()
        self._schemas = Schemas()
        self._world = World(
            regions={name: RegionAddresses(octet) for name, octet in regions.items()},
            operations=Operations(new_id),
            new_id=new_id,
            azure_seconds_per_lab_second=azure_seconds_per_lab_second,
            boot_timeout_s=boot_timeout_s,
            network_write_s=network_write_s,
            timeline=timeline,
        )
        self._groups = Groups(self._world)
        providers = (ScaleSets, Instances, Networks, Balancers, Profiles, AutoscaleSettings)
        routes = [route for provider in providers for route in provider(self._world).routes()]
        self._alerts = Alerts()
        others = (self._groups, self._world.operations, self._alerts)
        self._router = Router([*routes, *(route for other in others for route in other.routes())])
        self._limits = Limits(clock()) if rate_limits else None
        self._tokens: set[str] = set()
        self._expired: set[str] = set()
        self._remembered: dict[str, tuple[Reply, str]] = {}
        self._server: Server | None = None

    # -- the API

    def start(self, port: int = 0) -> str:
        """Serve the API on 127.0.0.1 from a thread of its own; returns its URL."""
        self._server = Server(self, port)
        return self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        content: bytes = b"",
        base: str = "http://127.0.0.1",
        fault: Fault | None = None,
    ) -> Answer:
        """Answer one request. `headers` keys in lower case; `fault` is what the middleware drew for it."""
        began = time.perf_counter()
        call = "Unknown"
        try:
            self._authorize(headers)
            self._refuse(fault)
            self._throttle(method)
            route, params = self._router.find(method, path)
            call = route.call
            body = self._parsed(route, query, content)
            request = Request(method, path, query, headers, body, base, self._clock(), fault)
            reply = self._answered(route, params, request)
        except ArmError as error:
            reply = error.reply()
        except Exception:  # noqa: BLE001  (a bug of the stand-in must look like a bug of the cloud, not end the lab)
            _log.exception("the ARM stand-in failed at %s %s", method, path)
            reply = ArmError(500, "InternalServerError", "The emulated Azure failed; see the lab's log.").reply()
        return self._wire(method, call, reply, fault, began)

    def _authorize(self, headers: Mapping[str, str]) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        challenge = {
            "WWW-Authenticate": 'Bearer authorization_uri="https://login.windows.net/lab", error="invalid_token"'
        }
        if scheme.lower() != "bearer" or not token:
            message = "Authentication failed. The 'Authorization' header is missing."
            raise ArmError(401, "AuthenticationFailed", message, headers=challenge)
        if token in self._expired:
            raise ArmError(
                401, "ExpiredAuthenticationToken", "The access token expiry is earlier than now.", headers=challenge
            )
        self._tokens.add(token)

    def _refuse(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind in ANSWERS:
            status, code, message = fault.words()
            wait = retry_after(fault.retry_after_s) if fault.retry_after_s is not None else {}
            raise ArmError(status, code, message, headers=wait)

    def expire_tokens(self) -> None:
        """Every token that was used so far is refused from now on; a client must fetch a new one."""
        self._expired |= self._tokens

    def _throttle(self, method: str) -> None:
        if self._limits is None:
            return
        with self._lock:
            wait_s = self._limits.take(method, self._clock())
        if wait_s is not None:
            message = "Number of requests for the subscription exceeded the limit."
            raise ArmError(429, "SubscriptionRequestsThrottled", message, headers=retry_after(wait_s))

    def _parsed(self, route: Route, query: Mapping[str, str], content: bytes) -> Body:
        if "api-version" not in query:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise ArmError(400, "MissingApiVersionParameter", message)
        try:
            body = json.loads(content) if content else {}
        except ValueError as error:
            raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}.") from error
        errors = self._schemas.errors(route.takes, body) if route.takes and (content or route.method != "POST") else []
        if errors or not isinstance(body, dict):
            text = "; ".join(errors) or "an object is required"
            message = f"The request content was invalid and could not be deserialized: '{text}'."
            raise ArmError(400, "InvalidRequestContent", message)
        return body

    def _answered(self, route: Route, params: Params, request: Request) -> Reply:
        """Run the handler under the lock and check what it says against the SDK's models outside of it."""
        key = f"{request.path}?{sorted(request.query.items())}"
        if request.fault is not None and request.fault.kind is FaultKind.STALE and key in self._remembered:
            return self._remembered[key][0]
        with self._lock:
            if params.get("sub", self.subscription_id) != self.subscription_id:
                message = f"The subscription '{params['sub']}' could not be found."
                raise ArmError(404, "SubscriptionNotFound", message)
            if not route.call.startswith("ResourceGroups_"):
                self._groups.check(params)
            self._world.operations.advance(request.now)
            reply = route.handler(request, params)
            # A handler's reply may share objects with the state: freeze it before the lock is released.
            reply.body = json.loads(json.dumps(reply.body)) if reply.body is not None else None
        errors = self._schemas.errors(route.gives, reply.body) if route.gives and reply.status != 204 else []
        if errors:
            _log.error("the stand-in's own reply to %s is not what the SDK's models allow: %s", route.call, errors)
            raise ArmError(500, "SchemaViolation", f"The reply to {route.call} is malformed: {'; '.join(errors)}")
        if request.method == "GET" and route.gives and not self.faults.stale(request.path):
            self._remembered[key] = (reply, route.call)
        return reply

    def _wire(self, method: str, call: str, reply: Reply, fault: Fault | None, began: float) -> Answer:
        identity = self._new_id()
        headers = {"x-ms-request-id": identity, "x-ms-correlation-request-id": identity, **reply.headers}
        if self._limits is not None:
            headers |= self._limits.headers(method)
        body = b""
        if reply.body is not None:
            body = json.dumps(reply.body, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json; charset=utf-8"
        ms = round((time.perf_counter() - began) * 1000, 2)
        self._world.tell("api", cloud="azure", call=call, status=reply.status, ms=ms)
        broken = fault.kind if fault is not None and fault.kind in (FaultKind.RESET, FaultKind.CUT) else None
        return Answer(reply.status, headers, body, call, broken)

    # -- scarcity, for tests

    def set_room(self, zone_id: str, instances: int | None) -> None:
        """Give a zone ("azure/eastus-1") hardware for so many instances; beyond it launches end in AllocationFailed."""
        with self._lock:
            _set(self._world.room, zone_id, instances)

    def set_quota(self, location: str, instances: int | None) -> None:
        """Let a location hold so many instances; beyond it writes are refused (409 OperationNotAllowed)."""
        with self._lock:
            _set(self._world.quota, location, instances)

    def set_alert(self, rule: str, *, fired: bool) -> None:
        """Let an alert rule (by its id) fire, or end what it has fired."""
        with self._lock:
            if fired:
                self._alerts.fire(rule, self._clock())
            else:
                self._alerts.resolve(rule)

    def autoscalers(self) -> Sequence[Autoscaler]:
        """What the autoscale settings say of each scale set that has one, for whoever plays Azure Monitor."""
        with self._lock:
            return tuple(autoscalers(self._world))

    def fleets(self) -> Sequence[ScaledFleet]:
        """Every scale set that has an autoscale setting, as Azure Monitor goes by it."""
        with self._lock:
            return tuple(self._scaled(setting) for setting in autoscalers(self._world))

    def _scaled(self, setting: Autoscaler) -> ScaledFleet:
        found = next(s for s in self._world.scale_sets.values() if s.zone_id == setting.zone)
        bounds = (setting.minimum, setting.maximum)
        refused = found.write.ended.message if found.write is not None and found.write.ended is not None else ""
        short = len(found.vms) < found.capacity
        return ScaledFleet(
            setting.zone, found.capacity, len(found.vms), *bounds, not setting.enabled, refused if short else ""
        )

    def resize(self, zone: str, instances: int) -> None:
        """Ask the API for it, as Azure Monitor does: a write like any other, which overtakes one that is under way."""
        with self._lock:
            found = next(s for s in self._world.scale_sets.values() if s.zone_id == zone)
        body = json.dumps({"sku": {**found.document["sku"], "capacity": instances}}).encode()
        query, headers = {"api-version": COMPUTE_API_VERSION}, {"authorization": "Bearer azure-monitor"}
        self.handle("PATCH", found.id, query, headers, body)

    # -- the data plane's side (ControlPlane)

    def desired(self) -> Sequence[DesiredRegion]:
        with self._lock:
            self._advance()
            return tuple(self._region(name) for name in self._world.regions)

    def desired_dns(self) -> DesiredDns:
        with self._lock:
            return trafficmanager.desired_dns(self._world)

    def observe(self, seen: SeenRegion) -> None:
        with self._lock:
            fleet.observe(self._world, seen, self._clock())
            self._advance()

    def _advance(self) -> None:
        now = self._clock()
        self._world.operations.advance(now)
        for scale_set in self._world.scale_sets.values():
            fleet.settle(scale_set)
            fleet.repair(self._world, scale_set, now)

    def _region(self, name: str) -> DesiredRegion:
        instances = tuple(
            DesiredInstance(vm.name, s.zone_id, vm.address, vm.version, vm.incarnation)
            for s in self._world.scale_sets.values()
            if s.region == name
            for vm in s.vms.values()
        )
        fronts = [self._front(b) for b in self._world.balancers.values() if b.region == name]
        return DesiredRegion(f"azure/{name}", instances, tuple(front for front in fronts if front is not None))

    def _front(self, balancer: Balancer) -> Front | None:
        """A front exists once a rule joins a public address to a pool; one rule per load balancer, as in the lab."""
        properties = balancer.document["properties"]
        by_id = {
            str(item["id"]).lower(): item
            for part in ("frontendIPConfigurations", "backendAddressPools", "probes")
            for item in properties.get(part) or []
        }
        for rule in properties.get("loadBalancingRules") or []:
            r = rule["properties"]
            if not r.get("frontendIPConfiguration") or not r.get("backendAddressPool"):
                continue
            frontend = by_id[str(r["frontendIPConfiguration"]["id"]).lower()]["properties"]
            address = self._world.network[str(frontend["publicIPAddress"]["id"]).lower()]["properties"]["ipAddress"]
            probe = by_id[str(r["probe"]["id"]).lower()]["properties"] if r.get("probe") else None
            pool = self._pool(balancer, by_id[str(r["backendAddressPool"]["id"]).lower()], probe)
            name = str(balancer.document["name"])
            return Front(name, FrontKind.TCP, {"": str(address)}, (pool,), {pool.name: 1})
        return None

    def _pool(self, balancer: Balancer, pool: Body, probe: Body | None) -> Pool:
        """Admin state counts only on probed rules; a pool without a probe sends to every member (documented limits)."""
        admin = balancer.applied.get(str(pool["id"]).lower(), {}) if probe else {}
        members = tuple(
            Member(vm.name, vm.address, s.zone_id, Admin(admin.get(address_name(s, vm), "None")) if probe else Admin.UP)
            for s, vm in self._world.members(str(pool["id"]))
        )
        probe = probe or {}
        threshold = cast("int", probe.get("probeThreshold") or 1)
        interval_s = probe.get("intervalInSeconds", 15) / self._world.azure_seconds_per_lab_second
        return Pool(str(pool["name"]), members, str(probe.get("requestPath", "/")), interval_s, threshold, threshold)


def _set(table: dict[str, int], key: str, value: int | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
