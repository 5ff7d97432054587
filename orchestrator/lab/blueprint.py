"""What a lab is to be: regions, zones, instances and the lab's own clock. Written as plan.json into the lab's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.core.errors import Rejected

AWS_REGIONS: Final = ("us-east-1", "us-west-2", "eu-west-1")
AZURE_REGIONS: Final = ("eastus", "westeurope", "northeurope")
CLAIM_PORT: Final = 7069
FIRST_BLOCK: Final = 20  # second octets below are left to others on this machine
LAST_BLOCK: Final = 250


@dataclass(frozen=True, slots=True)
class RegionBlueprint:
    """`zones` counts them; `weight` is the region's share in the global tier."""

    cloud: str
    name: str
    zones: int = 3
    weight: int = 100

    @property
    def id(self) -> str:
        return f"{self.cloud}/{self.name}"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A lab. Seconds are the lab's own: a minute of a real cloud is about a second here, and everything is a process.

    `strict`: the load balancers never retry, so that a missing drain is seen by users. `programs`: the folder of Pulumi
    programs that provision the lab; empty: the lab's own code does. `autoscale`: the aim of the clouds' autoscalers, such
    as {"target": 0.6, "scale_in_after_s": 60}; empty: there are none. `instances` is then the least that a zone has.
    """

    name: str = "default"
    service: str = "gates"
    regions: tuple[RegionBlueprint, ...] = (RegionBlueprint("aws", "us-east-1"), RegionBlueprint("azure", "eastus"))
    instances: int = 3
    instances_max: int = 9
    rps_per_instance: float = 40.0
    version: str = "v1"
    strict: bool = True
    seed: int = 0
    ttl_s: int = 5
    deregistration_delay_s: int = 2
    policy: dict[str, Any] = field(default_factory=dict)
    programs: str = ""
    autoscale: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        path = folder / "plan.json"
        path.write_text(json.dumps(asdict(self), indent=2), "utf-8")


def read_blueprint(folder: Path) -> Blueprint:
    data = json.loads((folder / "plan.json").read_text("utf-8"))
    data["regions"] = tuple(RegionBlueprint(**r) for r in data["regions"])
    return Blueprint(**data)


def parse_regions(aws: Sequence[str], azure: Sequence[str]) -> tuple[RegionBlueprint, ...]:
    """`us-east-1:3` -> three zones. Raises Rejected for an unknown region or a bad number of zones."""
    regions = []
    for cloud, known, given in (("aws", AWS_REGIONS, aws), ("azure", AZURE_REGIONS, azure)):
        for text in given:
            name, _, zones = text.partition(":")
            if name not in known:
                raise Rejected(f"no {cloud} region {name!r} in the lab; it has {', '.join(known)}")
            if zones and (not zones.isdecimal() or not 1 <= int(zones) <= 3):
                raise Rejected(f"{text!r}: a region of the lab has 1 to 3 zones")
            regions.append(RegionBlueprint(cloud, name, int(zones or 3)))
    if len({r.id for r in regions}) != len(regions) or not regions:
        raise Rejected("a lab needs at least one region, each named once")
    return tuple(regions)


# The lab's pace: what takes minutes in a cloud takes seconds here. Everything else is the shipped default.
LAB_POLICY: Final[dict[str, Any]] = {
    "ramp_step_s": 4.0,
    "bake_s": 6.0,
    "load_window_s": 1.0,
    "poll_s": 0.05,
    "admit_timeout_s": 15.0,
    "prepare_timeout_s": 45.0,
    "drain_timeout_s": 30.0,
    "upgrade_timeout_s": 45.0,
    "verify_timeout_s": 20.0,
    "out_expires_s": 600.0,
}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def manifest(version: str, regions: Sequence[RegionBlueprint]) -> str:
    """The release manifest of a version of the lab's service, YAML. The digest stands for the image's."""
    import hashlib  # noqa: PLC0415

    import yaml  # noqa: PLC0415

    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    number = int(digest[7:13], 16)
    images = {}
    for region in regions:
        if region.cloud == "aws":
            data = {"image_id": f"ami-{digest[7:24]}", "user_data": f"VERSION={version}\n"}
        else:
            data = {
                "publisher": "failout",
                "offer": "gates",
                "sku": "lab",
                "image_version": f"1.0.{number}",
                "user_data": f"VERSION={version}\n",
            }
        images[region.id] = {"digest": digest, "data": data}
    document = {"version": version, "images": images, "checks": {"synthetic_requests": 1000}}
    return str(yaml.safe_dump(document, sort_keys=False))
