"""What is shown of drills is what schemas/ says, in every state that a drill's row can be in."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cli.shell import errors
from core.proof_facts import T0, proof, topology

from orchestrator.core.drill import DrillPolicy, Phase, Wish, begin
from orchestrator.core.drill_row import dump
from orchestrator.core.errors import NotFound
from orchestrator.core.outing import Mode
from orchestrator.core.schedule import DrillSchedule
from orchestrator.engine.place import Place
from orchestrator.engine.store import SqlStore
from orchestrator.operations.drilled import list_drills, show_drill
from orchestrator.operations.report import collect, markdown
from orchestrator.operations.schedules import add_schedule
from orchestrator.operations.status import describe_run

WISH = Wish("aws/a", "zone", Mode.DRAIN, DrillPolicy(("users",), ("pages",)), "ada", "a test")


def test_lists_and_drills_are_told_as_their_schemas_say(tmp_path: Path) -> None:
    assert [] == errors("drill-list", list_drills(None, "gates", T0))
    with closing(SqlStore(Place.of(tmp_path))) as store:
        schedule = DrillSchedule("daily", "0 12 * * *", "UTC", Mode.DRAIN, DrillPolicy(("users",)), "ada", "a test")
        asyncio.run(add_schedule(store, topology(), schedule, ("users",), T0))
        for number, phase in enumerate(Phase):
            state = replace(begin(f"d{number}", "gates", WISH, T0), phase=phase, checks=("capacity: ok",))
            create = store.create_run(f"d{number}", "gates", "drill", dump(state), "active", author="ada", reason="", now=T0)  # fmt: skip
            asyncio.run(create)
        asyncio.run(store.put_proofs([proof(id="d0.out:aws/a:1", run="d0.out")]))
        told = list_drills(store.glance, "gates", T0)
        assert [] == errors("drill-list", told)
        assert set(map(str, Phase)) == {drill["course"] for drill in told["drills"]}
        shown = show_drill(store.glance, "d0", T0)
        assert ([], ["aws/a"]) == (errors("drill-show", shown), [p["zone"] for p in shown["proofs"]])
        run = {"schema": 1, "service": "gates", **describe_run(store.glance.load("d1"), {}, T0)}
        assert [] == errors("drill", run)
        assert markdown(collect(store.glance, "d0", T0)).startswith("# Drill aws/a: active")
        with pytest.raises(NotFound):
            show_drill(store.glance, "d99", T0)
