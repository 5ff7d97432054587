"""People take zones out and bring them back, under live traffic in strict mode, as a user runs it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.cases import Case
from e2e.stage import Failout, Stage, blueprint, stage

from orchestrator.core.outing_row import parse
from orchestrator.core.outing_table import Stage as At
from orchestrator.core.topology import ZoneState as Z
from orchestrator.engine.ports import Run

AWS, AZURE = "aws/us-east-1b", "azure/eastus-2"


def zone(made: Stage, kind: str, name: str, *more: str) -> Failout:
    return made.failout("zone", kind, name, "--reason", "a test", "--log", "none", "--json", *more)


def outing(made: Stage, so: Callable[[Run], bool], timeout_s: float = 60.0) -> Run:
    """Poll the rows until an outing is so."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if made.newest_run() is not None:
            with made.glance() as rows:
                for run in rows.runs(made.settings.service):
                    if run.kind == "outing" and so(run):
                        return run
        time.sleep(0.03)
    raise AssertionError("no outing is so")


def test_a_drain_killed_in_the_middle_and_a_restore_harm_nobody(tmp_path: Path, case: Case) -> None:
    """I11: nobody carries it for a moment; the next command does."""
    with stage(tmp_path, blueprint()) as made:
        began = time.time()
        drain = zone(made, "drain", AWS)
        outing(made, lambda run: parse(run.state).stage is At.DRAINING)
        drain.kill()
        status = json.loads(made.failout("status", "--json").wait().out)["runs"]  # which carries nothing
        assert [("draining", AWS)] == [(z["state"], z["zone"]) for run in status for z in run["zones"]]
        again = zone(made, "drain", AWS).wait()
        assert (3, True) == (again.code, "already" in again.err)
        restored = zone(made, "restore", AWS).wait()
        assert 0 == restored.code, restored.err
        # The refused command has carried the drain on for as long as it took: whether to its end, nobody can say.
        assert json.loads(restored.out)["status"] in {"withdrawn", "restored"}
        drained = zone(made, "drain", AZURE).wait()
        assert (0, "out") == (drained.code, json.loads(drained.out)["status"]), drained.err
        back = zone(made, "restore", AZURE).wait()
        assert (0, "restored") == (back.code, json.loads(back.out)["status"]), back.err
        users = made.seen(began)
        assert [] == [(r.t - began, r.zone, r.outcome) for r in made.failures(began)]
        with made.glance() as rows:
            assert [] == list(rows.leases(made.settings.service))
    case.tell("A zone drained by hand, killed in the middle, called off; another drained and restored", users,
              "restored", f"back in {back.seconds:.0f} s")  # fmt: skip


@pytest.mark.soak
def test_an_evacuation_suspends_a_deploy_and_a_dead_zone_does_not_wait_for_it(tmp_path: Path, case: Case) -> None:
    """I1: first a sound zone, which waits until the deploy's is back; then a dead one, which does not."""
    with stage(tmp_path, blueprint()) as made:
        began = time.time()
        deploy = made.deploy("v2")
        made.until_zone("aws/us-east-1a", Z.UPGRADING, Z.VERIFYING)
        sound = zone(made, "evacuate", AZURE).wait()
        assert (0, "out") == (sound.code, json.loads(sound.out)["status"]), sound.err
        assert "held" == json.loads(made.failout("status", "--json").wait().out)["runs"][-1]["status"]
        assert 11 == deploy.wait().code
        assert 0 == zone(made, "restore", AZURE).wait().code
        users = made.seen(began)
        assert [] == [(r.t - began, r.zone, r.outcome) for r in made.failures(began)]
        run = next(r for r in json.loads(made.failout("status", "--json").wait().out)["runs"] if r["kind"] == "deploy")
        assert 0 == made.failout("deployments", "resume", run["run"], "--reason", "a test").wait().code
        resumed = made.resume()
        made.until(lambda s: any(z.state is Z.RAMPING for z in s.zones), what="the next zone ramps")
        made.lab("/fail", zone=AZURE, mode="kill")
        time.sleep(2.0)
        killed = time.monotonic()
        dead = zone(made, "evacuate", AZURE).wait()
        assert (0, "out") == (dead.code, json.loads(dead.out)["status"]), dead.err
        took = time.monotonic() - killed
        assert took < 30
        resumed.wait()
    case.tell("A zone evacuated by hand while a deploy has another out: it is brought back first", users, "out",
              f"a dead one is out after {took:.0f} s, beside the deploy's")  # fmt: skip
