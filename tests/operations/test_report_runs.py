"""Reports of runbooks, step by step, and of whole regions, zone by zone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from core.proof_facts import CALM, CALM_SAMPLES, happened, history, topology
from operations.test_report_page import Shape

from orchestrator.core import drill_row, outing_row, region_row, runbook_row
from orchestrator.core.drill import DrillPolicy, Wish
from orchestrator.core.drill import begin as begin_drill
from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.outing import Ask, Asker, Mode
from orchestrator.core.outing import begin as begin_outing
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.proof import derive
from orchestrator.core.region import begin as begin_region
from orchestrator.core.runbook import apply, begin
from orchestrator.documents import parse_document
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Advance
from orchestrator.engine.store import SqlStore
from orchestrator.operations.page import page
from orchestrator.operations.report import Report, collect, markdown

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DOCUMENT = """---
id: mend
title: Mend
task: Something
---
```failout
name: look
verify: zones-steady
```
```failout
name: over
notify: "it is over"
```
"""


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    return SqlStore(Place.of(tmp_path / "state"))


def commit(store: SqlStore, run: str, effect: Effect, event: Event, state: Json, status: str, at_s: float) -> None:
    found = asyncio.run(store.load(run))
    asyncio.run(store.intend(found, effect, NOW))
    end = Advance(state, status, None, status == "succeeded", event, effect, 3.0)
    asyncio.run(store.commit(asyncio.run(store.load(run)), end, NOW + timedelta(seconds=at_s)))


def run_runbook(store: SqlStore, run: str, name: str) -> None:
    """Two steps of 3 s each."""
    runbook = parse_document(DOCUMENT.replace("mend", name), Path(f"{name}.md")).require()
    state = begin(runbook, run, "gates", {}, NOW)
    asyncio.run(
        store.create_run(run, "gates", "runbook", runbook_row.dump(state), "active", author="ada", reason="", now=NOW)
    )
    for index, step in enumerate(("look", "over")):
        event = Event("step-done", evidence=f"{step} is so")
        state = apply(state, event, NOW)
        effect = Effect(f"{name}/{step}", args={"index": index, "visit": 1})
        commit(
            store, run, effect, event, runbook_row.dump(state), "active" if index == 0 else "succeeded", 3.0 * index + 3
        )


def report_of(store: SqlStore, run: str) -> Report:
    return collect(store.glance, run, NOW + timedelta(seconds=60))


def whole(text: str) -> bool:
    shape = Shape(text)
    return ([], []) == (shape.open, shape.wrong)


def test_a_runbook_is_told_by_step_with_seconds_evidence_and_the_command_by_hand(store: SqlStore) -> None:
    run_runbook(store, "r1", "mend")
    report = report_of(store, "r1")
    told = markdown(report)
    assert "# Runbook mend: succeeded" in told
    assert "| look | done | 1 | 3.0 | look is so | failout runbook verify zones-steady |" in told
    assert "| 00:00:03 | look | step-done | 3.0 | look is so |" in told
    assert "Seconds per zone and phase" not in told
    assert "No run that it began has had a zone out" in told
    assert whole(page(report))
    assert "failout runbook verify zones-steady" in page(report)


def test_a_runbook_is_compared_with_the_last_run_of_the_same_one(store: SqlStore) -> None:
    run_runbook(store, "r1", "mend")
    run_runbook(store, "r2", "other")
    assert None is report_of(store, "r2").before


def test_a_region_is_told_by_each_of_its_zones_although_it_moves_as_one(store: SqlStore) -> None:
    state = begin_region("g1", "gates", ("aws/r",), DeployPolicy(), (), NOW)
    row = region_row.dump(state)
    asyncio.run(store.create_run("g1", "gates", "region", row, "active", author="ada", reason="", now=NOW))
    proof = derive(history(happened(*CALM)), CALM_SAMPLES, topology(), 500.0, 0.001)[0]
    asyncio.run(
        store.put_proofs([replace(proof, id=f"p{z}", run="g1", zone=z, service="gates") for z in ("aws/a", "aws/b")])
    )
    commit(
        store, "g1", Effect("leave-region"), Event("moved", evidence="the DNS answers without it"), row, "active", 4.0
    )
    report = report_of(store, "g1")
    assert [("aws/a", "leave", 1.0, 4.0), ("aws/b", "leave", 1.0, 4.0)] == [
        (p.zone, p.kind, p.began_s, p.ended_s) for p in report.phases
    ]
    assert ("aws/a", "aws/b") == report.order
    assert "# Region aws/r: active" in markdown(report)
    assert whole(page(report))


def test_a_drill_is_told_by_what_its_outing_does_to_the_zone(store: SqlStore) -> None:
    wish = Wish("aws/a", "zone", Mode.DRAIN, DrillPolicy(("users",)), "ada", "a test")
    drill = drill_row.dump(begin_drill("d1", "gates", wish, NOW))
    ask = Ask("aws/a", Mode.DRAIN, Asker.DRILL, "ada", "a test", NOW + timedelta(hours=1))
    outing = outing_row.dump(begin_outing("gates", ask, DeployPolicy(), NOW))
    for run, kind, row in (("d1", "drill", drill), ("d1.out", "outing", outing)):
        asyncio.run(store.create_run(run, "gates", kind, row, "active", author="ada", reason="", now=NOW))
    for run, kind, at_s in (
        ("d1", "check", 3.0),
        ("d1.out", "drain", 6.0),
        ("d1", "watch", 12.0),
        ("d1.out", "ramp", 15.0),
    ):
        row = drill if run == "d1" else outing
        commit(store, run, Effect(kind, "aws/a"), Event("done", "aws/a"), row, "active", at_s)
    report = report_of(store, "d1")
    assert [("check", 0.0, 3.0), ("drain", 3.0, 6.0), ("ramp", 12.0, 15.0)] == [
        (p.kind, p.began_s, p.ended_s) for p in report.phases
    ]
    assert "aws/a stay-out: 6.0 s" in page(report)
