"""`failout deploy` of v2 over v1 while users send requests; a test does something in the middle of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.lab.blueprint import Blueprint
from orchestrator.lab.demo import DemoPlan, Traffic

FIRST_OUT_S = 60.0


class Deploying:
    """In a lab's folder, of which `dns` is the name server."""

    def __init__(self, folder: Path, blueprint: Blueprint, dns: str, rate: float) -> None:
        self._folder, self._rate = folder, rate
        self.traffic = Traffic(DemoPlan(folder, blueprint, rate=rate, clients=60), dns)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "deploy", "--to", "v2", "--yes", "-C", "failout.yaml"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def await_first_out(self) -> str:
        """Wait until a zone is out and its instances are being replaced; returns that zone."""
        deadline = time.monotonic() + FIRST_OUT_S
        while time.monotonic() < deadline:
            with (self._folder / "timeline.jsonl").open() as timeline:
                for event in map(json.loads, timeline):
                    if event["kind"] == "refresh":
                        return str(event["zone"])
            time.sleep(0.1)
        raise AssertionError(f"no zone was upgraded within {FIRST_OUT_S:g} s")

    def require_unharmed(self) -> None:
        """Once it has ended: no request has failed, and users were served by both versions."""
        assert self.traffic.summary is not None
        requests = self.traffic.summary["requests"]
        assert (0, {"v1", "v2"}) == (requests["failed"], set(requests["by_version"])), requests["failures"]
        assert requests["sent"] > 10 * self._rate


@contextmanager
def deploying(folder: Path, blueprint: Blueprint, dns: str, rate: float) -> Iterator[Deploying]:
    """Leaves when the deploy has succeeded; whatever happens, neither it nor the users stay."""
    deploy = Deploying(folder, blueprint, dns, rate)
    try:
        yield deploy
        said, _ = deploy.process.communicate(timeout=240)
        assert deploy.process.returncode == 0, said[-3000:]
    finally:
        if deploy.process.poll() is None:
            deploy.process.kill()
            deploy.process.communicate()
        deploy.traffic.stop()
