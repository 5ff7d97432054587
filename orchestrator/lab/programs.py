"""Provision a lab with the Pulumi programs in infra/ instead of the lab's own code (`failout lab up --from-pulumi`).

The programs run in a process of their own, in an environment that has Pulumi's SDKs: this one if it does, else
`.venv-infra` beside infra/ (`make infra`). No Pulumi engine is needed; infra/lab/run.py stands in for it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from orchestrator.core.errors import NotFound, Rejected
from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.azure import SUBSCRIPTION_ID
from orchestrator.lab.blueprint import Blueprint, RegionBlueprint, manifest
from orchestrator.lab.model import AGENT_PORT, FRONT_PORT

TIMEOUT_S: Final = 180.0
# A key nobody has: the lab's machines are processes, and a scale set cannot be asked for without one.
SSH_PUBLIC_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA lab"

Json = dict[str, Any]


def find_python(infra: Path) -> Path:
    """Return the interpreter that has Pulumi's SDKs. Raises NotFound with the command that makes one."""
    if not (infra / "lab" / "run.py").is_file():
        raise NotFound(f"there are no Pulumi programs in {infra}; name the folder with --from-pulumi FOLDER")
    if importlib.util.find_spec("pulumi_aws") and importlib.util.find_spec("pulumi_azure_native"):
        return Path(sys.executable)
    beside = infra.resolve().parent / ".venv-infra" / "bin" / "python"
    if beside.is_file():
        return beside
    raise NotFound(f"no environment with Pulumi's SDKs: run `make infra` in {infra.resolve().parent}")


def provision(infra: Path, blueprint: Blueprint, octets: Mapping[str, int], aws_url: str, azure_url: str) -> Json:
    """Run the programs against the emulated clouds; return the topology document.

    Raises Rejected with the programs' last words when they fail.
    """
    plan = programs_plan(blueprint, octets, aws_url, azure_url)
    done = subprocess.run(
        [str(find_python(infra)), "-m", f"{infra.name}.lab.run"],
        input=json.dumps(plan),
        cwd=infra.resolve().parent,
        text=True,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise Rejected(f"the Pulumi programs failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    made: Json = json.loads(done.stdout)["topology"]
    return made


def programs_plan(blueprint: Blueprint, octets: Mapping[str, int], aws_url: str, azure_url: str) -> Json:
    """Return what infra/lab/run.py reads: endpoints, and the configuration of each program."""
    images = yaml.safe_load(manifest(blueprint.version, blueprint.regions))["images"]
    clouds: dict[str, list[RegionBlueprint]] = {"aws": [], "azure": []}
    for region in blueprint.regions:
        clouds[region.cloud].append(region)
    programs: Json = {}
    for cloud, regions in clouds.items():
        if not regions:
            continue
        image = images[regions[0].id]
        release = {"version": blueprint.version, "digest": image["digest"], "user_data": image["data"]["user_data"]}
        programs[cloud] = {
            "service": blueprint.service,
            "release": release,
            "front_port": FRONT_PORT,
            "api_endpoint": aws_url if cloud == "aws" else azure_url,
            "timing": {"deregistration_delay_s": blueprint.deregistration_delay_s, "grace_s": 10},
            "regions": [_region(blueprint, r, octets[r.id], images[r.id]["data"]) for r in regions],
        }
    if "azure" in programs:
        programs["azure"]["subscription_id"] = SUBSCRIPTION_ID
    programs["global"] = {
        "service": blueprint.service,
        "zone_name": f"{blueprint.service}.lab.",
        "record": f"{blueprint.service}.lab.",
        "ttl_s": blueprint.ttl_s,
        "alias_ttl_s": blueprint.ttl_s,
        "front_port": FRONT_PORT,
        "api_endpoint": aws_url,
        "regions": [{"id": r.id, "stack": f"lab/failout-{r.cloud}/lab"} for r in blueprint.regions],
    }
    return {"aws_url": aws_url, "azure_url": azure_url if "azure" in programs else "", "programs": programs}


def _region(blueprint: Blueprint, region: RegionBlueprint, octet: int, image: Mapping[str, str]) -> Json:
    addresses = RegionAddresses(octet)
    settings: Json = {
        "name": region.name,
        "zones": [f"{region.name}{'abc'[i]}" if region.cloud == "aws" else str(i + 1) for i in range(region.zones)],
        "cidr": addresses.network,
        "block_prefix": 24,
        "weight": region.weight,
        "agent_url": f"http://{addresses.agent}:{AGENT_PORT}",
        "capacity": {
            "instances": blueprint.instances,
            "instances_max": blueprint.instances_max,
            "rps_per_instance": blueprint.rps_per_instance,
        },
    }
    if region.cloud == "aws":
        return {**settings, "image_id": image["image_id"]}
    reference = {key: image[key] for key in ("publisher", "offer", "sku")} | {"version": image["image_version"]}
    return {**settings, "image": reference, "ssh_public_key": SSH_PUBLIC_KEY}
