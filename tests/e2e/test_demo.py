"""A demo that cannot fail proves nothing, and one that is interrupted leaves nothing running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from e2e.cases import Case
from e2e.stage import alive, blueprint, family

from orchestrator.lab.blueprint import RegionBlueprint
from orchestrator.lab.demo import DemoPlan, run_demo
from orchestrator.lab.traffic import record


def test_a_restart_without_drain_loses_requests_and_the_demo_says_so(tmp_path: Path, case: Case) -> None:
    regions = (RegionBlueprint("aws", "us-east-1", 1), RegionBlueprint("azure", "eastus", 2))
    plan = DemoPlan(
        tmp_path / "demo", blueprint(regions, ttl_s=1), rate=150.0, clients=60, sabotage="restart-without-drain"
    )
    report = run_demo(plan, lambda _: None)
    assert report["ok"] is False
    assert report["requests"]["in_all"]["failed"] > 0
    lost = record.recount(record.read(Path(report["requests_log"])))
    assert report["requests"]["in_all"]["failed"] == lost.failed == sum(lost.failures.values())
    case.tell(
        "Sabotage: a serving zone is restarted without a drain", lost, report["deploy"]["state"],
        "requests are lost and the demo says NOT OK: zero elsewhere in this table is not for want of a way to fail",
    )  # fmt: skip


def test_ctrl_c_ends_every_process_of_the_demo_and_leaves_only_the_records(tmp_path: Path) -> None:
    """In the middle of the deploy, with the lab, the traffic and the orchestrator running."""
    command = [sys.executable, "-m", "orchestrator.cli", "demo", "--aws", "us-east-1:2", "--azure", "eastus:1"]
    demo = subprocess.Popen(
        [*command, "--instances", "2", "--rate", "60"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if "aws/us-east-1a draining" in line:
                break
        processes = family(demo.pid)
        time.sleep(0.5)
        processes |= family(demo.pid)
        assert len(processes) > 8, said
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=30)
    finally:
        demo.kill()
        demo.communicate()
    assert 130 == demo.returncode, rest
    assert set() == alive(processes)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.is_dir()}
    assert left
    assert all(name.startswith(".failout/demo/") for name in left), left
    assert not [name for name in left if name.endswith(("lab.json", ".sock", ".pid"))]
