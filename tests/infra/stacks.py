"""Stacks to test: configurations of the programs, and their runs (each configuration runs once)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from infra.lab.engine import Recorder, Resource, Run, run
from infra.lab.recorded import SUBSCRIPTION
from infra.lab.run import whole

Json = dict[str, Any]

RELEASE = {"version": "v1", "digest": "sha256:abc", "user_data": "VERSION=v1\n"}
AWS_REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
AZURE_REGIONS = ("eastus", "westeurope", "northeurope")
APPLIANCE = {
    "image": "ami-0a0a",
    "package": "failout==0.1.0",
    "token_secret": "arn:aws:secretsmanager:us-east-1:123456789012:secret:failout-agent",
    "size": "t4g.nano",
}
AZURE_APPLIANCE = {
    **APPLIANCE,
    "image": "/images/failout",
    "token_secret": "https://vault.example/secrets/failout-agent",
    "token_vault_id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v",
}


def region(cloud: str, index: int, zones: int, **more: Any) -> Json:
    name = (AWS_REGIONS if cloud == "aws" else AZURE_REGIONS)[index]
    names = [f"{name}{'abcd'[i]}" if cloud == "aws" else str(i + 1) for i in range(zones)]
    own: Json = {"image_id": "ami-0b0b", "agent": APPLIANCE}
    if cloud == "azure":
        own = {"image": {"id": "/images/gates"}, "agent": AZURE_APPLIANCE, "ssh_public_key": "ssh-ed25519 AAAA"}
    return {
        "name": name,
        "cidr": f"10.{20 + index + (10 if cloud == 'azure' else 0)}.0.0/16",
        "zones": names,
        "capacity": {"instances": 3, "instances_max": 9, "rps_per_instance": 40, "peak_rps": 60 * (zones - 1)},
        **own,
        **more,
    }


def aws(regions: int = 1, zones: int = 3, **more: Any) -> Json:
    host = {"region": AWS_REGIONS[0], "appliance": APPLIANCE}
    made = [region("aws", i, zones) for i in range(regions)]
    return {"service": "gates", "release": RELEASE, "regions": made, "orchestrator": host, **more}


def azure(regions: int = 1, zones: int = 3, **more: Any) -> Json:
    made = [region("azure", i, zones) for i in range(regions)]
    common = {"service": "gates", "release": RELEASE, "subscription_id": SUBSCRIPTION, "regions": made}
    return {**common, "orchestrator_principal": "11111111-2222-3333-4444-555555555555", **more}


@dataclass(frozen=True, slots=True)
class Shape:
    """How many regions each cloud has, and how many zones each region."""

    aws: int
    azure: int
    zones: int = 3

    def __str__(self) -> str:
        return f"{self.aws} AWS and {self.azure} Azure regions of {self.zones} zones"


SHAPES = (Shape(1, 1, 2), Shape(1, 1), Shape(1, 0, 4), Shape(0, 3), Shape(3, 0), Shape(2, 1))


@cache
def stacks(shape: Shape) -> dict[str, Run]:
    """Run the programs that `shape` needs, the global one last, as a person would."""
    runs: dict[str, Run] = {}
    if shape.aws:
        runs["aws"] = run("aws", aws(shape.aws, shape.zones), Recorder())
    if shape.azure:
        runs["azure"] = run("azure", azure(shape.azure, shape.zones), Recorder())
    references = {f"org/failout-{cloud}/dev": whole(r.outputs) for cloud, r in runs.items()}
    members = [
        {"id": region_id, "stack": f"org/failout-{cloud}/dev"}
        for cloud, r in runs.items()
        for region_id in sorted(whole(r.outputs)["fronts"])
    ]
    config: Json = {"service": "gates", "zone_name": "example.com", "record": "gates.example.com", "regions": members}
    if shape.aws:
        config["orchestrator_stack"] = "org/failout-aws/dev"
    runs["global"] = run("global", {**config, "protect": True}, Recorder(), references)
    return runs


def everything(shape: Shape) -> list[Resource]:
    return [resource for r in stacks(shape).values() for resource in r.resources]


def fleets(run_: Run) -> list[Resource]:
    """The service's own Auto Scaling groups and scale sets."""
    found = run_.of("autoscaling/group:Group") + run_.of(":VirtualMachineScaleSet")
    return [r for r in found if "failout-zones" in str(r.inputs["tags"])]
