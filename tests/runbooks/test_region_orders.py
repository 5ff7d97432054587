"""What a person says to the run that moves a region, and what the run makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from runbooks.places import TOPOLOGY

from orchestrator.core.deploy import begin as begin_deploy
from orchestrator.core.deploy_row import dump as dump_deploy
from orchestrator.core.machine import Event, Facts, Json, Order
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import Phase, RegionState, apply, begin, decide
from orchestrator.core.region_row import RegionMachine, dump, parse
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Run
from orchestrator.operations.regions import start_evacuation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AWS, AZURE = "aws/us-east-1", "azure/eastus"


def at(phase: Phase) -> RegionState:
    return replace(begin("region-1", "gates", (AZURE,), DeployPolicy(), (), NOW), phase=phase)


def told(state: RegionState, kind: str, now: datetime = NOW, **args: Json) -> RegionState:
    order = Order(1, kind, "ada", "because", now, args)
    event = decide(state, Facts(now, (order,)))
    assert isinstance(event, Event)
    return apply(state, event, now)


async def stands(store: MemoryStore, state: RegionState) -> Run:
    """A region's run whose row says that."""
    row, status = dump(state), RegionMachine().status(state)
    return await store.create_run(state.run, "gates", "region", row, status, author="ada", reason="r", now=NOW)


async def evacuate(store: MemoryStore, region: str = AZURE, overrides: Sequence[str] = ()) -> Run:
    who = {"run": "region-9", "author": "ada", "reason": "r"}
    return await start_evacuation(store, TOPOLOGY, DeployPolicy(), [region], **who, now=NOW, overrides=overrides)


def test_a_region_that_was_held_before_it_was_admitted_asks_anew_when_it_is_evacuated_again() -> None:
    """The audit log said that it was told; it said that this makes no sense."""
    later = NOW + timedelta(hours=1)
    after = told(at(Phase.HELD_ASKING), "evacuate", later, behind=True)
    assert (Phase.ASKING, later, DeployPolicy().upgrade_timeout_s) == (after.phase, after.since, after.admit_timeout_s)
    assert after == parse(dump(after))


def test_a_region_that_was_held_on_its_way_out_goes_on_when_it_is_evacuated_again_and_is_no_newer_for_it() -> None:
    after = told(at(Phase.HELD_LEAVING), "evacuate", NOW + timedelta(hours=1))
    assert (Phase.LEAVING, NOW, False) == (after.phase, after.since, after.unasked)


def test_i11_a_crash_before_others_were_told_to_make_way_is_made_good_by_asking_again() -> None:
    async def asked() -> list[str]:
        store = MemoryStore()
        await stands(store, at(Phase.ASKING))
        state = begin_deploy("gates", "v2", {f"{AWS}a": "v1"}, (f"{AWS}a",), DeployPolicy(), NOW)
        row = dump_deploy(state)
        await store.create_run("deploy-1", "gates", "deploy", row, "active", author="eve", reason="v2", now=NOW)
        assert "region-1" == (await evacuate(store)).id
        return [order.kind for order in (await store.pending("deploy-1")).orders]

    assert ["suspend"] == asyncio.run(asked())
