"""A deploy that fails out every zone is the proof of every zone: that is the point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.cases import Case
from e2e.stage import blueprint, stage

from orchestrator.core.proof import Worth
from orchestrator.core.topology import ZoneState as Z
from orchestrator.lab.blueprint import RegionBlueprint

SIX = (RegionBlueprint("aws", "us-east-1", 3), RegionBlueprint("azure", "eastus", 3))


@pytest.mark.soak
def test_a_deploy_that_was_killed_in_the_middle_leaves_six_fresh_proofs_where_there_were_none(
    tmp_path: Path, case: Case
) -> None:
    # Each zone is compared with the seconds before it left: since the deploy began, or the last zone was back.
    with stage(tmp_path, blueprint(SIX, instances=1, policy={"bake_s": 4.0, "load_window_s": 3.0})) as made:
        before = made.failout("proof", "--json").wait()
        assert 12 == before.code, before.err
        assert {"never"} == {zone["state"] for zone in json.loads(before.out)["zones"]}

        deploy = made.deploy("v2")
        made.until_zone("aws/us-east-1b", Z.UPGRADING)
        deploy.kill()
        ended = made.resume().wait()
        assert 0 == ended.code, ended.err[-2000:]
        users = made.seen(deploy.started_at)

        after = made.failout("proof", "--json").wait()
        data = json.loads(after.out)
        assert ended.run is not None
        assert {ended.run.id} == {zone["proof"]["run"] for zone in data["zones"]}
        assert 6 == len(data["zones"])
        assert all(zone["age_s"] < 300 for zone in data["zones"])
        proofs = [zone["proof"] for zone in data["zones"]]
        assert {0} == {proof["failed"] for proof in proofs}
        assert all(0 < proof["drain_s"] < proof["out_s"] for proof in proofs)
        # What could not be watched while nobody was there to watch makes at most that one zone's proof weak.
        weak = [proof for proof in proofs if proof["worth"] != Worth.GOOD]
        assert [] == [
            (proof["zone"], proof["before_s"], proof["evidence"]) for proof in weak if proof["zone"] != "aws/us-east-1b"
        ]
        good = [zone for zone in data["zones"] if zone["proof"]["worth"] == Worth.GOOD]
        assert all(0.5 <= zone["strength"] <= 1.0 and zone["met"] for zone in good)
        assert (0 if not weak else 12) == after.code
        assert all(0 < min(p["headroom"].values()) < 1 for p in proofs if p["worth"] == Worth.GOOD)

        folder = made.settings.state / "reports" / ended.run.id
        assert {"report.md", "report.html"} == {path.name for path in folder.iterdir()}
        shown = made.failout("deployments", "show", ended.run.id, "--json").wait()
        assert str(folder / "report.html") == json.loads(shown.out)["report"]
        metrics = made.failout("proof", "--prometheus").wait().out
        assert 'failout_proofs{service="gates",zone="azure/eastus-3",verdict="good"} 1' in metrics
    case.tell("A deploy leaves proof", users, "succeeded", f"{len(good)} of 6 zones proven, killed once on the way")
