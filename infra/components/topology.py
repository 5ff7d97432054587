"""The `topology` output: the document that Failout works on, schema 1 (schemas/topology.json).

Each stack says what it owns: a regional stack its regions, the global stack the global tier. `failout topology import`
puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import Input, Output

from infra.components.settings import Capacity, RegionSettings, Service

SCHEMA = 1


def zone_document(zone_id: str, name: str, capacity: Capacity, fleet: Mapping[str, Input[str]]) -> dict[str, Any]:
    """`instances` is the number that Failout returns to after a deploy."""
    return {
        "id": zone_id,
        "name": name,
        "instances": capacity.instances,
        "instances_max": capacity.instances_max,
        "rps_per_instance": capacity.rps_per_instance,
        "fleet": dict(fleet),
    }


def region_document(
    cloud: str,
    service: Service,
    region: RegionSettings,
    agent_url: Output[str],
    front: Mapping[str, Input[str]],
    zones: Sequence[dict[str, Any]],
) -> Output[dict[str, Any]]:
    document = {
        "id": f"{cloud}/{region.name}",
        "cloud": cloud,
        "name": region.name,
        "weight": region.weight,
        "agent_url": agent_url,
        "front": dict(front),
        "zones": list(zones),
    }
    if service.api_endpoint:
        document["api"] = {"endpoint_url": service.api_endpoint}
    return Output.from_input(document)


def regional(service: str, regions: Sequence[Output[dict[str, Any]]]) -> Output[dict[str, Any]]:
    return Output.from_input({"schema": SCHEMA, "service": service, "regions": list(regions)})
