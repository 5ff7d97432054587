"""What is printed with --json is what schemas/ says, on a lab with users; the deploy of v2 is the middle of the story."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from cli.shell import SCHEMAS, Shell, errors

from orchestrator.cli.root import COMMANDS, root


@pytest.fixture(scope="module")
def deployed(lab: Shell) -> dict[str, Any]:
    """The report of `failout deploy --to v2`; what came before it is looked at first."""
    before = lab.run("status", "--json").json("status")
    assert ([], None) == (before["runs"], before["last"])
    rehearsed = lab.run("deploy", "--to", "v2", "--dry-run", "--json")
    assert 0 == rehearsed.code, rehearsed.err
    assert rehearsed.json("dry-run")["ok"] is True
    assert not (lab.folder / ".failout/labs/cli/state").exists(), "a dry run writes nothing"
    ended = lab.run("deploy", "--to", "v2", "--yes", "--log", "none", "--json")
    assert 0 == ended.code, ended.err + ended.out
    return ended.json("deploy")


def test_a_deploy_is_told_alike_by_deploy_status_list_and_show(lab: Shell, deployed: dict[str, Any]) -> None:
    assert ["done", "done"] == [zone["state"] for zone in deployed["zones"]]
    last = lab.run("status", "--json").json("status")["last"]
    listed = lab.run("deployments", "list", "--json").json("deployments-list")["runs"]
    shown = lab.run("deployments", "show", deployed["run"], "--json").json("deployments-show")
    assert deployed["phases"] == shown["phases"]
    assert {"succeeded"} == {told["status"] for told in (deployed, last, *listed, shown)}
    assert {deployed["run"]} == {told["run"] for told in (last, *listed, shown)}
    assert "admitted" in {event["event"] for event in shown["events"]}
    assert Path(shown["report"]).read_text().startswith("<!doctype html>")


def test_the_deploy_left_a_proof_of_each_zone_and_a_report(lab: Shell, deployed: dict[str, Any]) -> None:
    proven = lab.run("proof", "--json").json("proof")
    assert {deployed["run"]} == {zone["proof"]["run"] for zone in proven["zones"]}
    told = lab.run("report", "show", deployed["run"], "--html", "--json").json("report-show")
    assert ["aws/us-east-1a", "azure/eastus-1"] == sorted(proof["zone"] for proof in told["proofs"])
    assert lab.run("report", "show", deployed["run"]).out.startswith("# Deploy of v2: succeeded")


def test_an_order_for_a_run_that_has_ended_is_refused_and_one_for_no_run_too(
    lab: Shell, deployed: dict[str, Any]
) -> None:
    late = lab.run("deployments", "abort", deployed["run"], "--reason", "a test")
    assert 2 == late.code
    assert deployed["run"] in late.err
    assert (4, "failout: no run 'nobody'") == lab.run("deployments", "pause", "nobody", "--reason", "a test").said


def test_plan_after_the_deploy_has_nothing_to_do(lab: Shell, deployed: dict[str, Any]) -> None:
    plan = lab.run("plan", "--to", "v2", "--json").json("plan")
    assert [True, True] == [zone["nothing_to_do"] for zone in plan["zones"]]
    back = lab.run("plan", "--to", "v1", "--json").json("plan")
    assert ["v2"] * 2 == [zone["from_version"] for zone in back["zones"]]
    assert back["estimate_s"] > 0


def test_the_lab_and_the_topology(lab: Shell) -> None:
    topology = lab.run("topology", "show", "--json").json("topology-show")
    zones = sorted(zone["id"] for region in topology["regions"] for zone in region["zones"])
    assert ["aws/us-east-1a", "azure/eastus-1"] == zones
    status = lab.run("lab", "status", "--name", "cli", "--json").json("lab-status")
    assert zones == sorted(instance["zone"] for instance in status["instances"])


def test_a_fault_is_told_and_healed_and_a_zone_of_no_lab_is_not_found(lab: Shell) -> None:
    slow = lab.run("lab", "fail", "azure/eastus-1", "--mode", "slow", "--name", "cli", "--json").json("lab-fault")
    assert "slow" == slow["mode"]
    assert {"azure/eastus-1": "slow"} == lab.run("lab", "status", "--name", "cli", "--json").json("lab-status")[
        "faults"
    ]
    assert None is lab.run("lab", "heal", "azure/eastus-1", "--name", "cli", "--json").json("lab-fault")["mode"]
    nowhere = lab.run("lab", "fail", "azure/eastus-9", "--name", "cli")
    assert 4 == nowhere.code
    assert "its zones are aws/us-east-1a, azure/eastus-1" in nowhere.err


def test_doctor_finds_the_lab_sound_and_says_what_it_could_not_check(lab: Shell) -> None:
    data = lab.run("doctor", "--json").json("doctor")
    assert [] == [finding for finding in data["findings"] if finding["verdict"] == "failed"]
    checked = {finding["what"] for finding in data["findings"] if finding["verdict"] == "ok"}
    assert {"agent", "clock", "credentials", "fleet", "global tier", "quota", "release", "state", "traffic"} <= checked
    assert "ec2:CreateLaunchTemplateVersion" in checked, "a dry run that the emulated EC2 answers"
    unchecked = {finding["what"] for finding in data["findings"] if finding["verdict"] == "unchecked"}
    assert "autoscaling:StartInstanceRefresh" in unchecked, "moto does not simulate policies, and nobody pretends"


def test_doctor_finds_what_is_wrong(lab: Shell, tmp_path: Path) -> None:
    """Another topology than what is there, a manifest with a gap, and a token that the agent does not take."""
    there = lab.folder / ".failout/labs/cli"
    topology = json.loads((there / "topology.json").read_text())
    topology["regions"][0]["zones"][0]["instances_max"] = 50
    topology["regions"][1]["zones"][0]["fleet"]["scale_set"] = "nobody"
    (tmp_path / "topology.json").write_text(json.dumps(topology))
    (tmp_path / "releases").mkdir()
    manifest = "version: v7\nimages: {aws/us-east-1: {digest: d, data: {image_id: ami-1}}}\n"
    (tmp_path / "releases/v7.yaml").write_text(manifest)
    (tmp_path / "agent.token").write_text("x" * 40)
    (tmp_path / "agent.token").chmod(0o600)
    (tmp_path / "failout.yaml").write_text("service: gates\n")
    ended = Shell(tmp_path).run("doctor", "--json")
    data = ended.json("doctor")
    failed = {finding["what"]: finding["evidence"] for finding in data["findings"] if finding["verdict"] == "failed"}
    assert 10 == ended.code
    assert {"agent", "fleet", "quota", "release", "topology", "traffic"} <= failed.keys()
    assert "no image for azure/eastus" in failed["release"]
    assert "9 instances, the topology says 50" in failed["quota"]


def test_the_simulator(shell: Shell) -> None:
    assert 0 == shell.run("sim", "--seeds", "3", "--jobs", "1", "--json").json("sim")["violations"]
    assert "seed 1" == shell.run("sim", "--seed", "1", "--json").json("sim-replay")["history"][0]
    what_if = "zones: {aws/us-east-1: 3}\nload: 100\nevents:\n  - at 9s: abort\nexpect: {status: %s}\n"
    (shell.folder / "what-if.yaml").write_text(what_if % "aborted")
    assert [] == shell.run("sim", "run", "what-if.yaml", "--json").json("sim-run")["unmet"]
    (shell.folder / "what-if.yaml").write_text(what_if % "succeeded")
    assert 10 == shell.run("sim", "run", "what-if.yaml").code
    (shell.folder / "what-if.yaml").write_text(what_if % "nonsense")
    assert 2 == shell.run("sim", "run", "what-if.yaml").code


def test_the_users_summary(lab: Shell) -> None:
    ended = lab.run("lab", "traffic", "--name", "cli", "--seconds", "1", "--rate", "10", "--json")
    summary = ended.json("lab-traffic")["requests"]
    assert summary["sent"] == summary["ok"] + summary["failed"] > 0


def test_a_second_lab_comes_and_goes(shell: Shell) -> None:
    up = shell.run("lab", "up", "--name", "b", "--aws", "us-east-1:1", "--azure", "", "--instances", "1", "--json")
    try:
        assert "b" == up.json("lab-status")["name"]
    finally:
        down = shell.run("lab", "down", "--name", "b", "--json")
    assert down.json("lab-down")["down"] is True


def test_init(shell: Shell) -> None:
    assert shell.run("init", "--service", "gates", "--json").json("init")["path"].endswith("/failout.yaml")


def test_every_command_with_json_has_a_schema_that_names_it() -> None:
    titles = [json.loads(path.read_text()).get("title", "") for path in sorted(SCHEMAS.glob("*.json"))]
    described = {title for told in titles for one in told.split("; ") for title in _commands(one)}
    assert set() == _leaves(root, ()) - described


def _commands(title: str) -> set[str]:
    """'failout lab up | status --json' -> 'lab up', 'lab status'."""
    words = re.sub(r"\s--.*", "", title).removeprefix("failout ").split(" | ")
    before = words[0].rpartition(" ")[0]
    return {words[0], *(f"{before} {word}".strip() for word in words[1:])}


def _leaves(group: click.Group, path: tuple[str, ...]) -> set[str]:
    context, found = click.Context(group), set[str]()
    for name in sorted(COMMANDS) if group is root else group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            found |= _leaves(command, (*path, name))
        elif command is not None and any("--json" in parameter.opts for parameter in command.params):
            found.add(" ".join((*path, name)))
    return found


def test_a_schema_notices_what_it_does_not_know() -> None:
    good = {"schema": 1, "path": "/x/failout.yaml"}
    assert [] == errors("init", good)
    assert [1, 1, 1] == [
        len(errors("init", wrong)) for wrong in ({**good, "more": 1}, {"schema": 1}, {**good, "path": 1})
    ]
