"""Provider plugins `aws` and `azure-native` for Pulumi's own engine, against the lab instead of the clouds.

They stand on PATH before the real ones (plugins/pulumi-resource-*), take the endpoints from FAILOUT_LAB_AWS and
FAILOUT_LAB_AZURE, and refuse to start without: nothing here can reach a real account. State is the inputs, and what
the cloud answered; `refresh` reads back what Failout may have changed since.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Protocol
from urllib.parse import urlsplit

from pulumi.provider.experimental import provider as p
from pulumi.provider.experimental import server
from pulumi.provider.experimental.property_value import Computed, PropertyValue

from infra.lab import recorded
from infra.lab.aws import AwsLab
from infra.lab.azure import AzureLab
from infra.lab.recorded import Json
from infra.lab.run import whole

# A change of one of these makes a new resource; all else is updated in place.
REPLACING = frozenset(
    {"name", "region", "location", "cidrBlock", "availabilityZone", "vpcId", "setIdentifier", "zoneId"}
)
Values = Mapping[str, PropertyValue]


class Cloud(Protocol):
    def create(self, kind: str, name: str, inputs: Json) -> tuple[str, Json]: ...
    def read(self, kind: str, id_: str, inputs: Json) -> Json | None: ...
    def update(self, kind: str, id_: str, inputs: Json) -> Json: ...
    def delete(self, kind: str, id_: str, inputs: Json) -> None: ...


class LabProvider(p.Provider):
    def __init__(self, package: str, cloud: Cloud) -> None:
        self._package, self._cloud = package, cloud

    async def get_schema(self, request: p.GetSchemaRequest) -> p.GetSchemaResponse:  # noqa: ARG002
        return p.GetSchemaResponse(f'{{"name": "{self._package}"}}')

    async def check_config(self, request: p.CheckRequest) -> p.CheckResponse:
        return p.CheckResponse(request.new_inputs)

    async def configure(self, request: p.ConfigureRequest) -> p.ConfigureResponse:  # noqa: ARG002
        return p.ConfigureResponse(supports_preview=True)

    async def invoke(self, request: p.InvokeRequest) -> p.InvokeResponse:
        return p.InvokeResponse(values(recorded.call(request.tok)))

    async def check(self, request: p.CheckRequest) -> p.CheckResponse:
        """The SDK names every output as an input without a value; those are none."""
        return p.CheckResponse({key: item for key, item in request.new_inputs.items() if item.value is not None})

    async def diff(self, request: p.DiffRequest) -> p.DiffResponse:
        old, new = request.old_state, request.new_inputs
        changed = [key for key, value in new.items() if key not in old or plain(old[key]) != plain(value)]
        return p.DiffResponse(
            changes=bool(changed),
            diffs=changed,
            replaces=[key for key in changed if key in REPLACING],
            detailed_diff={},
        )

    async def create(self, request: p.CreateRequest) -> p.CreateResponse:
        if request.preview:
            # Identities are named in a list and answered as a map, so the answer is not known yet.
            return p.CreateResponse("", {key: item for key, item in request.properties.items() if key != "identity"})
        inputs = plain_map(request.properties)
        made, outputs = await asyncio.to_thread(self._cloud.create, kind(request.type), request.name, inputs)
        return p.CreateResponse(made, values({**inputs, **outputs}))

    async def read(self, request: p.ReadRequest) -> p.ReadResponse:
        inputs, state = plain_map(request.inputs), plain_map(request.properties)
        live = await asyncio.to_thread(self._cloud.read, kind(request.type), request.resource_id, inputs)
        if live is None:
            return p.ReadResponse("", {}, {})
        return p.ReadResponse(request.resource_id, values({**state, **live}), values(live))

    async def update(self, request: p.UpdateRequest) -> p.UpdateResponse:
        if request.preview:
            return p.UpdateResponse({**request.olds, **request.news})
        inputs, state = plain_map(request.news), plain_map(request.olds)
        outputs = await asyncio.to_thread(self._cloud.update, kind(request.type), request.resource_id, inputs)
        return p.UpdateResponse(values({**state, **outputs}))

    async def delete(self, request: p.DeleteRequest) -> None:
        await asyncio.to_thread(
            self._cloud.delete, kind(request.type), request.resource_id, plain_map(request.properties)
        )

    async def cancel(self) -> None:
        return None


def kind(qualified: str) -> str:
    """The engine names a type with those of its parents: `failout:aws:Front$aws:lb/listener:Listener`."""
    return qualified.rsplit("$", 1)[-1]


def plain(value: Any) -> Any:
    """Unwrap; an output that is not known yet is None (only ever in a preview)."""
    inner = value.value if isinstance(value, PropertyValue) else value
    if isinstance(inner, Computed):
        return None
    if isinstance(inner, Mapping):
        return {key: plain(item) for key, item in inner.items()}
    if isinstance(inner, list | tuple):
        return [plain(item) for item in inner]
    return whole(inner)


def plain_map(properties: Values) -> Json:
    return {key: plain(value) for key, value in properties.items()}


def value(item: Any) -> PropertyValue:
    if isinstance(item, Mapping):
        return PropertyValue({key: value(inner) for key, inner in item.items()})
    if isinstance(item, list):
        return PropertyValue([value(inner) for inner in item])
    return PropertyValue(float(item) if isinstance(item, int) and not isinstance(item, bool) else item)


def values(properties: Json) -> dict[str, PropertyValue]:
    return {key: value(item) for key, item in properties.items()}


def main(package: str) -> None:
    cloud: Cloud = (
        AwsLab(_endpoint("FAILOUT_LAB_AWS")) if package == "aws" else AzureLab(_endpoint("FAILOUT_LAB_AZURE"))
    )
    server.main(sys.argv[1:], version(f"pulumi-{package}"), LabProvider(package, cloud))


def _endpoint(name: str) -> str:
    url = os.environ.get(name, "")
    if urlsplit(url).hostname != "127.0.0.1":
        sys.exit(f"this plugin is for the lab only: {name} must be the URL of its emulated cloud")
    return url
