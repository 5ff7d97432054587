"""What runbooks, regions, state, topology and faults of clouds print with --json is what schemas/ says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli.shell import Shell, errors

WHY = ("--reason", "a test")
REGION = "azure/eastus"
ASKING = """---
id: asking
title: Ask before anything
task: Somebody should look first
parameters:
  region: {type: region, says: the region to look at}
preconditions:
  - agent-answers region=$region
---
Who looks, decides.

```failout
name: looked
ask: "Did you look at $region?"
timeout: 2m
```

```failout
name: still-there
verify: agent-answers
region: $region
```
"""


def test_runbooks_are_listed_shown_and_checked(shell: Shell) -> None:
    listed = shell.run("runbook", "list", "--json").json("runbook-list")["runbooks"]
    assert {"zone-down", "region-evacuation"} <= {one["id"] for one in listed if one["sound"]}
    shown = shell.run("runbook", "show", "zone-down", "--json").json("runbook-show")
    assert "zone-down" == shown["id"]
    assert [] == shell.run("runbook", "check", "--json").json("runbook-check")["problems"]
    (shell.folder / "asking.md").write_text(ASKING.replace("verify: agent-answers", "verify: agent-answer"))
    wrong = shell.run("runbook", "check", "asking.md", "--json")
    (problem,) = wrong.json("runbook-check")["problems"]
    assert (2, "asking.md:20: unknown condition 'agent-answer'; did you mean 'agents-answer'?") == (wrong.code, problem)


def test_the_state_is_copied_put_back_and_pruned(shell: Shell) -> None:
    shell.run("init", "--service", "gates")
    assert 0 == shell.run("freeze", *WHY).code, "the first thing that is written down"
    assert shell.run("state", "backup", "copy.tar", "--json").json("state-backup")["bytes"] > 0
    assert 0 == shell.run("state", "prune", "--older-than", "90d", "--json").json("state-prune")["runs"]
    restored = shell.run("state", "restore", "copy.tar", *WHY, "--json").json("state-restore")
    assert [] == restored["paused"]
    assert Path(shell.folder, restored["kept"]).exists()


def test_a_topology_is_imported_and_compared_with_the_clouds(lab: Shell, tmp_path: Path) -> None:
    there = lab.folder / ".failout/labs/cli"
    document = json.loads((there / "topology.json").read_text())
    (tmp_path / "stack.json").write_text(json.dumps({"topology": document}))
    shell = Shell(tmp_path)
    assert document == shell.run("topology", "import", "--file", "stack.json", "--json").json("topology")
    same = lab.run("topology", "check", "--json")
    assert (0, []) == (same.code, same.json("topology-check")["drift"])

    (tmp_path / "agent.token").write_bytes((there / "agent.token").read_bytes())
    (tmp_path / "agent.token").chmod(0o600)
    (tmp_path / "failout.yaml").write_text("service: gates\n")
    document["regions"][0]["zones"][0]["instances"] = 7
    (tmp_path / "topology.json").write_text(json.dumps(document))
    differs = shell.run("topology", "check", "--json")
    assert 10 == differs.code
    assert ["aws/us-east-1a"] == [one["where"] for one in differs.json("topology-check")["drift"]]


def test_a_fault_of_a_cloud_is_told_as_it_was_ordered(lab: Shell) -> None:
    given = ("--name", "cli", "--call", "nobody.Asks", "--count", "2", "--retry-after", "1", "--json")
    fault = lab.run("lab", "cloud-fault", "aws", "throttle", *given).json("lab-cloud-fault")
    assert ("throttle", 2, 1.0) == (fault["kind"], fault["count"], fault["retry_after_s"])
    late = lab.run(
        "lab", "cloud-fault", "azure", "delay", "--delay", "0.1", "--call", "nowhere", "--name", "cli", "--json"
    )
    assert None is late.json("lab-cloud-fault")["kind"]
    for cloud in ("aws", "azure"):
        cleared = lab.run("lab", "cloud-fault", cloud, "clear", "--name", "cli", "--json")
        assert True is cleared.json("lab-cloud-fault")["clear"]
    assert [1, 1] == [
        len(errors("lab-cloud-fault", wrong)) for wrong in ({**fault, "clear": True}, {**fault, "count": 0})
    ]


def test_a_runbook_is_rehearsed_asked_answered_and_told_step_by_step(lab: Shell) -> None:
    books = lab.folder / ".failout/labs/cli/runbooks"
    books.mkdir()
    (books / "asking.md").write_text(ASKING)
    rehearsed = lab.run("runbook", "run", "asking", "-p", f"region={REGION}", "--dry-run", "--json")
    assert True is rehearsed.json("runbook-rehearsal")["ok"]
    seen = lab.run("runbook", "verify", "agent-answers", f"region={REGION}", "--json")
    assert (0, True) == (seen.code, seen.json("runbook-condition")["so"])

    command = [sys.executable, "-m", "orchestrator.cli", "runbook", "run", "asking", "-p", f"region={REGION}"]
    carried = subprocess.Popen(
        [*command, "--log", "none", "--json"],
        cwd=lab.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        run = waiting(lab)
        answered = lab.run("runbook", "approve", run, "--json")
        assert ("approve", run) == tuple(answered.json("runbook-order")[key] for key in ("kind", "run"))
        out, _ = carried.communicate(timeout=60)
    finally:
        carried.kill()
        carried.wait()
    told = json.loads(out)
    assert [] == errors("runbook", told)
    assert ("succeeded", {"done"}) == (told["status"], {step["state"] for step in told["steps"]})
    shown = lab.run("runbook", "progress", run, "--json").json("runbook-progress")
    assert "still-there" in {event["step"] for event in shown["events"]}


def waiting(lab: Shell) -> str:
    """The run whose question is open."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        runs: list[dict[str, Any]] = lab.run("status", "--json").json("status")["runs"]
        for run in runs:
            if run["status"] == "waiting":
                return str(run["run"])
        time.sleep(0.2)
    raise AssertionError("no runbook asked within a minute")


@pytest.mark.soak  # Half a minute; tests/operations/test_described.py holds every phase to the schema in virtual time.
def test_a_region_is_emptied_and_comes_back(lab: Shell) -> None:
    out = lab.run("region", "evacuate", REGION, *WHY, "--log", "none", "--json")
    assert (0, "out") == (out.code, out.json("region")["course"]), out.err
    back = lab.run("region", "return", REGION, *WHY, "--log", "none", "--json")
    assert (0, "returned") == (back.code, back.json("region")["course"]), back.err + back.out
