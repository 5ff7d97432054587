"""A run of one kind is told by its own commands, and a run that no process carries is told as such."""

from __future__ import annotations

import asyncio
import fcntl
import json
from datetime import UTC, datetime, timedelta

import pytest
from cli.shell import REGION, TOPOLOGY, ZONE, Say, Shell, errors

from orchestrator.config import read_settings, read_topology
from orchestrator.core.machine import Effect
from orchestrator.core.outing import Ask, Asker, Mode
from orchestrator.core.policy import OnExpiry
from orchestrator.engine.place import Place
from orchestrator.engine.store import SqlStore
from orchestrator.operations.outings import start_outing
from orchestrator.operations.regions import start_evacuation

WHY = ("--reason", "a test")


@pytest.fixture(autouse=True)
def moving(service: Shell) -> None:
    """A service of two regions with an outing and a region that move."""
    west = {**REGION, "id": "aws/us-west-2", "name": "us-west-2"}
    west["zones"] = [{"id": "aws/us-west-2a", **ZONE, "name": "us-west-2a"}]
    (service.folder / "topology.json").write_text(json.dumps({**TOPOLOGY, "regions": [REGION, west]}))
    settings = read_settings(service.folder / "failout.yaml")
    topology = read_topology(settings.topology, settings.service)
    store, now = SqlStore(Place.of(settings.state)), datetime.now(UTC)
    ask = Ask("aws/us-east-1a", Mode.DRAIN, Asker.PERSON, "ada", "why", now + timedelta(hours=1), OnExpiry.HOLD)

    async def begin() -> None:
        outing = await start_outing(store, topology, settings.policy, ask, "outing-1", now)
        admit = Effect("admit", "aws/us-east-1a")
        await store.intend(outing, admit, now)
        regions, given = ("aws/us-west-2",), {"run": "region-1", "author": "ada", "reason": "why", "now": now}
        await start_evacuation(store, topology, settings.policy, regions, **given)

    asyncio.run(begin())
    store.close()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("deployments show outing-1", "an outing, no deploy: failout report show outing-1"),
        ("deployments show region-1 --json", "a region, no deploy: failout report show region-1"),
        ("deployments pause outing-1", "an outing, no deploy: failout zone pause aws/us-east-1a --reason ..."),
        ("deployments abort outing-1", "an outing, no deploy: failout zone restore aws/us-east-1a --reason ..."),
        ("deployments rollback outing-1", "an outing, no deploy: failout zone restore aws/us-east-1a --reason ..."),
        ("deployments rollback region-1", "a region, no deploy: failout region return aws/us-west-2 --reason ..."),
        ("drill show outing-1", "an outing, no drill: failout report show outing-1"),
        ("runbook approve outing-1", "an outing, no runbook: failout zone restore aws/us-east-1a --reason ..."),
    ],
)
def test_a_run_of_another_kind_is_rejected_everywhere_alike_with_the_command_that_is_meant(
    say: Say, command: str, told: str
) -> None:
    words = command.split()
    given = words if "show" in words else [*words, *WHY]
    assert (2, f"failout: run {words[2]} is {told}") == say(*given).said
    assert 0 == say("report", "show", words[2]).code, "what is named works"


@pytest.mark.parametrize("word", ["pause", "resume", "abort"])
def test_a_region_is_told_by_the_words_that_it_has(say: Say, word: str) -> None:
    resumed = say("deployments", word, "region-1", *WHY)
    assert (0, True) == (resumed.code, "(if no process carries it: failout serve)" in resumed.out)


def test_an_order_to_a_zone_names_a_command_that_carries_it_and_changes_nothing_else(say: Say) -> None:
    extended = say("zone", "extend", "aws/us-east-1a", "--expires", "2h", *WHY)
    next_ = "next: failout status   (if no process carries it: failout serve)"
    assert (0, next_) == (extended.code, extended.out.splitlines()[-1])


def test_a_run_that_no_process_carries_is_not_told_as_working(say: Say, service: Shell) -> None:
    dead = say("status")
    assert "no process carries it: nobody holds the state's lock; it stands at admit aws/us-east-1a since" in dead.out
    assert "next: failout serve" in dead.out.splitlines()
    assert "now:" not in dead.out
    told = json.loads(say("status", "--json").out)
    assert (False, []) == (told["carried"], errors("status", told))
    with (service.folder / "state/failout.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        alive = say("status").out
        assert ("now: admit aws/us-east-1a for" in alive, "no process" in alive) == (True, False)
        assert True is json.loads(say("status", "--json").out)["carried"]
