"""Drills under live traffic, in strict mode, as a user runs them: fired by `serve`, stopped by a signal, killed in the middle."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.shell import errors
from core.proof_facts import proof
from e2e.cases import Case
from e2e.stage import Stage, blueprint, stage
from sqlalchemy import text

from orchestrator.config import read_settings
from orchestrator.core.drill_row import parse
from orchestrator.core.outing_row import parse as parse_outing
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Run
from orchestrator.engine.store import SqlStore
from orchestrator.lab.traffic import record

AWS, AZURE = "aws/us-east-1b", "azure/eastus-2"
BACK_S = 15.0  # From a signal that turns bad to users on the zone, on two busy cores.
RESUME_S = 5.0


class Drills:
    """A stage with one outcome signal: the file `well`; without it, users are not well."""

    def __init__(self, made: Stage) -> None:
        self.made, self.well = made, made.folder / "well"
        self.well.touch()
        document = yaml.safe_load(made.config.read_text())
        document["signals"] = {"users": {"kind": "command", "command": ["/usr/bin/test", "-e", str(self.well)]}}
        document["drills"] = {"outcome_signals": ["users"], "read_every_s": 1.0}
        made.config.write_text(yaml.safe_dump(document, sort_keys=False))
        made.settings = read_settings(made.config)

    def runs(self) -> Sequence[Run]:
        """Oldest first."""
        with self.made.glance() as rows:
            return [r for r in reversed(rows.runs(self.made.settings.service)) if r.kind == "drill"]

    def until(self, so: Callable[[Run, str], bool], timeout_s: float = 60.0) -> Run:
        """Poll until the newest drill, with the stage of its outing ("" before it has one), is so."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.made.newest_run() is not None and (runs := self.runs()) and so(runs[-1], self.stage(runs[-1])):
                return runs[-1]
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s} s: {self.runs()[-1:]}")

    def stage(self, drill: Run) -> str:
        with self.made.glance() as rows:
            outings = [r for r in rows.runs(self.made.settings.service) if r.id == f"{drill.id}.out"]
        return str(parse_outing(outings[0].state).stage) if outings else ""

    def prove_all_but(self, zone: str) -> None:
        """As if drills had been going on for a while."""
        now = datetime.now(UTC)
        zones = [z for z in read_zones(self.made) if z != zone]
        service = self.made.settings.service
        proofs = [replace(proof(), id=f"d0:{z}:1", run="d0", zone=z, service=service) for z in zones]
        recent = {"restored": now - timedelta(hours=1), "returned": now - timedelta(hours=1)}
        with closing(SqlStore(Place.of(self.made.settings.state))) as store:
            asyncio.run(store.put_proofs([replace(p, **recent) for p in proofs]))

    def age(self, schedule: str) -> None:
        """As if the schedule had been added an hour ago, and nothing had served since."""
        with closing(SqlStore(Place.of(self.made.settings.state))) as store, store._transaction() as rows:
            ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="microseconds")
            rows.execute(text("UPDATE schedules SET since = :ago WHERE id = :id"), {"ago": ago, "id": schedule})

    def taken_by(self, zone: str, since: float) -> float | None:
        """When users were first served by the zone after a moment."""
        rows = record.read(self.made.traffic.log)
        return min((r.t for r in rows if r.t >= since and r.zone == zone and r.outcome == record.OK), default=None)


def read_zones(made: Stage) -> list[str]:
    topology = json.loads(made.settings.topology.read_text())
    return [zone["id"] for region in topology["regions"] for zone in region["zones"]]


def failed(made: Stage, since: float) -> list[Any]:
    return [(round(r.t - since, 1), r.zone, r.outcome) for r in made.failures(since)]


def test_a_schedule_fires_from_serve_and_a_signal_that_turns_bad_brings_the_zone_back(
    tmp_path: Path, case: Case
) -> None:
    with stage(tmp_path, blueprint()) as made:
        drills, began = Drills(made), time.time()
        when = (datetime.now(UTC) - timedelta(minutes=20)).strftime("%M %H * * *")
        added = made.failout("drill", "schedule", "add", "daily", "--cron", when, "--duration", "4s", "--reason", "a test")  # fmt: skip
        assert 0 == added.wait().code
        drills.prove_all_but(AZURE)
        drills.age("daily")
        rehearsed = made.failout("drill", "run", "--zone", AZURE, "--actions", "none", "--json").wait()
        assert (0, True) == (rehearsed.code, json.loads(rehearsed.out)["ok"]), rehearsed.out + rehearsed.err
        assert [] == drills.runs()
        serve = made.failout("serve", "--log", "json", "--listen", "127.0.0.1:7191")
        scheduled = drills.until(lambda drill, _: drill.finished)
        assert ("succeeded", AZURE) == (scheduled.status, parse(scheduled.state).wish.place), parse(
            scheduled.state
        ).reason
        proven = json.loads(made.failout("proof", "--json").wait().out)["zones"]
        mine = next(z for z in proven if z["zone"] == AZURE)
        assert (f"{scheduled.id}.out", "drill", "good") == (mine["proof"]["run"], mine["proof"]["kind"], mine["proof"]["worth"])  # fmt: skip

        by_hand = made.failout("drill", "run", "--zone", AWS, "--duration", "60s", "--log", "none", "--json")
        drills.until(lambda drill, at: drill.id != scheduled.id and at == "out")
        time.sleep(1.0)
        drills.well.unlink()
        bad = time.time()
        ended = by_hand.wait()
        assert (10, "failed") == (ended.code, json.loads(ended.out)["status"]), ended.err
        users = made.seen(began)
        back = drills.taken_by(AWS, bad)
        assert back is not None
        assert back - bad < BACK_S
        assert [] == failed(made, began)
        assert 2 == len(drills.runs()), "a missed schedule runs once"
        listed = json.loads(made.failout("drill", "list", "--json").wait().out)
        shown = json.loads(made.failout("drill", "show", scheduled.id, "--json").wait().out)
        told = (("drill", json.loads(ended.out)), ("drill-list", listed), ("drill-show", shown))
        assert {"drill": [], "drill-list": [], "drill-show": []} == {name: errors(name, data) for name, data in told}
        assert [AZURE] == [p["zone"] for p in shown["proofs"]]
        assert made.failout("drill", "report", scheduled.id).wait().out.startswith(f"# Drill {AZURE}: succeeded")
        serve.process.terminate()
        assert 0 == serve.wait().code
    case.tell("A drill that was due fires from serve; another ends as its signal turns bad", users, "succeeded, failed",
              f"users are back {back - bad:.1f} s after the signal")  # fmt: skip


@pytest.mark.soak
def test_a_schedule_fires_at_its_minute_and_takes_the_zone_that_is_proven_least(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint()) as made:
        drills, began = Drills(made), time.time()
        drills.prove_all_but(AZURE)
        minute = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0, microsecond=0)
        cron = minute.strftime("%M %H * * *")
        added = made.failout("drill", "schedule", "add", "daily", "--cron", cron, "--duration", "4s", "--reason", "a test")  # fmt: skip
        assert 0 == added.wait().code
        serve = made.failout("serve", "--log", "json", "--listen", "127.0.0.1:7193")
        scheduled = drills.until(lambda drill, _: drill.finished, timeout_s=150.0)
        assert ("succeeded", AZURE) == (scheduled.status, parse(scheduled.state).wish.place)
        late = (scheduled.created_at - minute).total_seconds()
        assert 0.0 <= late < 10.0
        users = made.seen(began)
        assert [] == failed(made, began)
        serve.process.terminate()
        assert 0 == serve.wait().code
    case.tell("A drill fires at its minute", users, "succeeded", f"{late:.1f} s after it, in the zone proven least")


@pytest.mark.soak
def test_a_person_who_evacuates_the_zone_of_a_drill_has_it_until_it_is_restored(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint()) as made:
        drills, began = Drills(made), time.time()
        drill = made.failout("drill", "run", "--zone", AWS, "--duration", "5s", "--log", "none", "--json")
        drills.until(lambda _, at: at == "out")
        taken = made.failout("zone", "evacuate", AWS, "--reason", "smoke", "--json").wait()
        assert 0 == taken.code, taken.err
        ended = drill.wait()
        told = json.loads(ended.out)
        assert (13, "interrupted", True) == (ended.code, told["status"], "smoke" in told["reason"]), told
        time.sleep(8.0)  # The drill's own time is over by now.
        since = time.time()
        made.seen(since)
        assert drills.taken_by(AWS, since) is None
        assert 0 == made.failout("zone", "restore", AWS, "--reason", "no fire").wait().code
        users = made.seen(began)
        assert [] == failed(made, began)
    case.tell(
        "A person evacuates the zone that a drill has out", users, "interrupted", "it stays out until it is restored"
    )


@pytest.mark.soak
def test_a_survivor_that_is_lost_in_the_middle_ends_the_drill(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint()) as made:
        drills = Drills(made)
        drill = made.failout("drill", "run", "--zone", AWS, "--duration", "120s", "--log", "none", "--json")
        drills.until(lambda _, at: at == "out")
        time.sleep(1.0)
        lost = time.time()
        made.lab("/fail", zone="aws/us-east-1a", mode="kill")
        ended = drill.wait()
        assert (13, "interrupted") == (ended.code, json.loads(ended.out)["status"]), ended.out
        assert "aws/us-east-1a" in json.loads(ended.out)["reason"]
        users = made.seen(lost)
        back = drills.taken_by(AWS, lost)
        assert back is not None
        assert back - lost < 2 * BACK_S
    case.tell("A survivor dies while a zone is drilled", users, "interrupted", f"the zone serves again after {back - lost:.1f} s")  # fmt: skip


@pytest.mark.soak
def test_serve_killed_in_the_middle_of_a_drill_goes_on_within_seconds(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint()) as made:
        drills, began = Drills(made), time.time()
        serve = made.failout("serve", "--log", "json", "--listen", "127.0.0.1:7192")
        drill = made.failout("drill", "run", "--zone", AZURE, "--duration", "10s", "--log", "none", "--json")
        before = drills.until(lambda _, at: at == "out")
        serve.kill()
        drill.kill()
        again = made.failout("serve", "--log", "json", "--listen", "127.0.0.1:7192")
        restarted = time.monotonic()
        drills.until(lambda now, _: now.epoch > before.epoch)
        resumed_s = time.monotonic() - restarted
        ended = drills.until(lambda now, _: now.finished)
        assert "succeeded" == ended.status, parse(ended.state).reason
        assert resumed_s < RESUME_S
        users = made.seen(began)
        assert [] == failed(made, began)
        again.process.terminate()
        assert 0 == again.wait().code
    case.tell("serve is killed in the middle of a drill", users, "succeeded", f"carried on after {resumed_s:.1f} s")


@pytest.mark.soak
def test_a_region_is_drilled_through_the_global_tier(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint(ttl_s=1)) as made:
        Drills(made)
        began = time.time()
        drill = made.failout("drill", "run", "--region", "azure/eastus", "--duration", "5s", "--log", "none", "--json")
        ended = drill.wait(240.0)
        assert (0, "succeeded") == (ended.code, json.loads(ended.out)["status"]), ended.out
        users = made.seen(began)
        assert [] == failed(made, began)
        regions = json.loads(made.failout("proof", "--json").wait().out)["regions"]
        assert [None, True] == [r["emptied_age_s"] and r["emptied_age_s"] > 0 for r in regions]
    case.tell("A region is drilled", users, "succeeded", f"in {ended.seconds:.0f} s")
