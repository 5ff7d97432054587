"""Provision a lab with the programs: `python -m infra.lab.run < plan.json > topology.json`.

The plan has the emulated clouds' endpoints and each program's configuration; the answer is the topology document and
what was only written down. A monitor in this process stands in for Pulumi's engine (engine.py).
"""

from __future__ import annotations

import collections
import json
import sys
import threading
from typing import Any

from infra.lab import recorded
from infra.lab.aws import AwsLab
from infra.lab.azure import AzureLab
from infra.lab.engine import Run, run

Json = dict[str, Any]


class Lab:
    """Makes AWS's resources in one emulated cloud and Azure's in the other; counts what was made and what recorded."""

    def __init__(self, aws_url: str, azure_url: str) -> None:
        self._aws, self._azure = AwsLab(aws_url), AzureLab(azure_url) if azure_url else None
        self._lock = threading.Lock()
        self.recorded: collections.Counter[str] = collections.Counter()

    def create(self, kind: str, name: str, inputs: Json) -> tuple[str, Json]:
        inputs = whole(inputs)
        if kind.startswith("aws:"):
            made = self._aws.create(kind, name, inputs)
        elif self._azure is not None:
            made = self._azure.create(kind, name, inputs)
        else:
            raise ValueError(f"{name} is Azure's, and the plan names no Azure")
        if made == recorded.answer(kind, name, inputs):
            with self._lock:
                self.recorded[kind] += 1
        return made


def whole(value: Any) -> Any:
    """Numbers come as floats on Pulumi's wire; clouds want 3, not 3.0."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def merged(runs: list[Run]) -> Json:
    """Put the stacks' `topology` outputs together, as `failout topology import` does."""
    parts = [whole(r.outputs["topology"]) for r in runs]
    regions = [region for part in parts for region in part["regions"]]
    tier = next(part["global"] for part in parts if "global" in part)
    return {"schema": parts[0]["schema"], "service": parts[0]["service"], "global": tier, "regions": regions}


def main() -> int:
    plan = json.load(sys.stdin)
    lab = Lab(plan["aws_url"], plan.get("azure_url", ""))
    runs: dict[str, Run] = {}
    for program in ("aws", "azure"):
        if program in plan["programs"]:
            runs[program] = run(program, plan["programs"][program], lab)
    references = {f"lab/failout-{program}/lab": whole(r.outputs) for program, r in runs.items()}
    runs["global"] = run("global", plan["programs"]["global"], lab, references)
    json.dump({"topology": merged(list(runs.values())), "recorded": dict(sorted(lab.recorded.items()))}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
