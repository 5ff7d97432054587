"""Makes in the emulated Azure what the lab's data plane needs; the rest is written down (recorded.py).

ARM is uniform: a resource's id is its path, PUT writes it whole. azure-native flattens ARM's `properties`; the SDK's own
models say what belongs there. A PUT carries every field, so what a program remembers wrongly is written back: in the
real provider too (pulumi-azure-native issue 2032).
"""

from __future__ import annotations

import time
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from infra.lab import recorded
from infra.lab.recorded import Json
from orchestrator.lab.azure.client import clients
from orchestrator.lab.azure.schema import Schemas

API_VERSIONS = {"resources": "2024-11-01", "compute": "2026-04-01", "network": "2026-03-01", "monitor": "2022-10-01"}
DONE = frozenset({"Succeeded", "Failed", "Canceled"})
POLL_S = 0.05
TIMEOUT_S = 60.0

# What is made for real: Pulumi's type -> the SDK's model.
MODELS = {
    "azure-native:network:VirtualNetwork": "network:VirtualNetwork",
    "azure-native:network:Subnet": "network:Subnet",
    "azure-native:network:NetworkSecurityGroup": "network:NetworkSecurityGroup",
    "azure-native:network:PublicIPAddress": "network:PublicIPAddress",
    "azure-native:network:LoadBalancer": "network:LoadBalancer",
    "azure-native:compute:VirtualMachineScaleSet": "compute:VirtualMachineScaleSet",
    "azure-native:monitor:AutoscaleSetting": "monitor:AutoscaleSettingResource",
}
GROUP = "azure-native:resources:ResourceGroup"
ROLES_MADE = frozenset({"network", "front", "fleet"})  # of `failout-role`: agents and hosts are the lab's own


class AzureLab:
    """Create, read, update, delete by Pulumi's type names and input names."""

    def __init__(self, url: str) -> None:
        self._clients = clients(url, recorded.SUBSCRIPTION)
        self._schemas = Schemas()

    def create(self, kind: str, name: str, inputs: Json) -> tuple[str, Json]:
        id_, outputs = recorded.answer(kind, name, inputs)
        return id_, {**outputs, **self._put(kind, id_, inputs)}

    def update(self, kind: str, id_: str, inputs: Json) -> Json:
        return {**inputs, **self._put(kind, id_, inputs)}

    def read(self, kind: str, id_: str, inputs: Json) -> Json | None:
        """Return the inputs as ARM has them now; None when the resource is gone."""
        if not self._is_made(kind, inputs) or kind == GROUP:
            return inputs
        try:
            body = self._send("GET", kind, id_)
        except HttpResponseError as error:
            if error.status_code == 404:  # noqa: PLR2004
                return None
            raise
        live = flat(body)
        return {key: projected(live[key], value) if key in live else value for key, value in inputs.items()}

    def delete(self, kind: str, id_: str, inputs: Json) -> None:
        if self._is_made(kind, inputs):
            self._send("DELETE", kind, id_)

    def _is_made(self, kind: str, inputs: Json) -> bool:
        role = str((inputs.get("tags") or {}).get("failout-role", "network"))
        if kind == "azure-native:network:PublicIPAddress":
            return role == "front"  # a NAT gateway's is only written down
        return kind == GROUP or (kind in MODELS and role in ROLES_MADE)

    def _put(self, kind: str, id_: str, inputs: Json) -> Json:
        """Write it, wait until it is done, and return what only the cloud knows."""
        if not self._is_made(kind, inputs):
            return {}
        if kind == GROUP:
            self._send("PUT", kind, id_, {"location": inputs["location"], "tags": inputs.get("tags", {})})
            return {}
        body = wire(self._schemas.document(MODELS[kind]), inputs)
        made = flat(self._send("PUT", kind, id_, body))
        return {key: made[key] for key in ("ipAddress",) if key in made}

    def _send(self, method: str, kind: str, path: str, body: Json | None = None) -> Json:
        request = HttpRequest(method, path, params={"api-version": API_VERSIONS[kind.split(":")[1]]}, json=body)
        response = self._clients.compute.send_request(request)
        response.raise_for_status()
        follow, deadline = response.headers.get("Azure-AsyncOperation"), time.monotonic() + TIMEOUT_S
        while follow:
            state = self._clients.compute.send_request(HttpRequest("GET", follow)).json()
            if state.get("status") in DONE:
                if state["status"] != "Succeeded":
                    raise RuntimeError(f"{method} {path}: {state.get('error')}")
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path} is not done after {TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
        answered: Json = response.json() if response.text() else {}
        return answered


def wire(schema: Json, value: Any, defs: Json | None = None) -> Any:
    """Turn azure-native's flat form into ARM's: what the model does not know by itself belongs in its `properties`."""
    known = defs if defs is not None else schema["$defs"]
    if "$ref" in schema:
        schema = known[schema["$ref"].rsplit("/", 1)[-1]]
    if isinstance(value, list):
        return [wire(schema.get("items", {}), item, known) for item in value]
    fields = schema.get("properties")
    if not isinstance(value, dict) or not fields:
        return value
    body: Json = {}
    inner = fields.get("properties", {})
    if "$ref" in inner:
        inner = known[inner["$ref"].rsplit("/", 1)[-1]]
    nested = inner.get("properties", {})
    for key, item in value.items():
        # A resource's own `type` is ARM's to say; one that can be asked for (of an extension) is nested.
        if key in nested and (key not in fields or key == "type"):
            body.setdefault("properties", {})[key] = wire(nested[key], item, known)
        elif key in fields:
            body[key] = wire(fields[key], item, known)
        # else it is a part of the path (names of resource and group)
    return body


def flat(value: Any) -> Any:
    """Turn ARM's form into azure-native's."""
    if isinstance(value, list):
        return [flat(item) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: flat(item) for key, item in value.items() if key != "properties"}
    return {**own, **flat(value["properties"])} if value.get("properties") else own


def projected(live: Any, wanted: Any) -> Any:
    """Of what ARM says, only what the program asked for: servers fill in much that is no drift."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return {key: projected(live[key], item) if key in live else item for key, item in wanted.items()}
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        return [projected(a, b) for a, b in zip(live, wanted, strict=True)]
    return live
