"""`failout` run as a person runs it, and the schemas of what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

SCHEMAS = Path(__file__).parents[2] / "schemas"
# A service whose clouds nobody can reach.
ZONE = {"name": "us-east-1a", "instances": 1, "instances_max": 2, "rps_per_instance": 10, "fleet": {}}
REGION = {"id": "aws/us-east-1", "cloud": "aws", "name": "us-east-1", "weight": 100, "agent_url": "http://127.0.0.1:9",
          "front": {}, "zones": [{"id": "aws/us-east-1a", **ZONE}]}  # fmt: skip
TIER = {"kind": "route53", "ttl_s": 5, "record": "gates.lab.", "attributes": {"hosted_zone_id": "Z1"}}
TOPOLOGY = {"schema": 1, "service": "gates", "global": TIER, "regions": [REGION]}
MANIFEST = "version: {0}\nimages: {{aws/us-east-1: {{digest: d, data: {{image_id: ami-1}}}}}}\n"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def said(self) -> tuple[int, str]:
        """Code and the one line on stderr; more than one line is told as it is."""
        return self.code, self.err.removesuffix("\n")

    def json(self, schema: str) -> dict[str, Any]:
        """What was printed, after it has been held to schemas/NAME.json."""
        assert self.out, f"nothing was printed; {self.code}: {self.err}"
        data: dict[str, Any] = json.loads(self.out)
        assert [] == errors(schema, data)
        return data


@dataclass(frozen=True)
class Shell:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *args: str, **given: Any) -> Ended:
        command = [sys.executable, "-m", "orchestrator.cli", *args]
        given = {"stdin": subprocess.DEVNULL, "timeout": 90, **given}
        env = {**os.environ, **self.environment}
        env.pop("FAILOUT_CONFIG", None)
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=env, check=False, **given)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}


Say = Callable[..., Ended]


def errors(schema: str, data: object) -> list[str]:
    document = json.loads((SCHEMAS / f"{schema}.json").read_text())
    Draft202012Validator.check_schema(document)
    found = Draft202012Validator(document, format_checker=FormatChecker()).iter_errors(data)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]
