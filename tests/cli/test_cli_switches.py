"""Freezes and the kill switch, of one service and of all: what is still on is never told as ended (I14)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cli.shell import TOPOLOGY, Shell

from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import Phase, begin
from orchestrator.core.region_row import dump
from orchestrator.engine.place import Place
from orchestrator.engine.store import SqlStore

WHY = ("--reason", "a test")
TURNS = (("freeze", ("freeze",), ("unfreeze",)), ("kill", ("kill-switch", "on"), ("kill-switch", "off")))


@pytest.mark.parametrize(("name", "on", "off"), TURNS)
def test_a_switch_of_every_service_outlives_its_end_for_one_and_every_next_command_ends_it(
    service: Shell, name: str, on: tuple[str, ...], off: tuple[str, ...]
) -> None:
    service.environment["FAILOUT_AUTHOR"] = "ada"
    ends = f"next: failout {' '.join(off)} --reason ... --every-service"
    turned = service.run(*on, *WHY, "--every-service")
    assert (f"{name} is on for every service", ends) == (turned.out.split(":")[0], turned.out.splitlines()[-1])
    left = service.run(*off, *WHY)
    told = f"{name} is off for gates, but still on for every service, set by ada: a test (I14).\n{ends}\n"
    assert (0, told) == (left.code, left.out)
    still = service.run(*off, *WHY, "--json").json("switch")["still_on"]
    assert [{"service": "*", "author": "ada", "reason": "a test"}] == still
    assert f"{name} is on for every service: a test (ada)" in service.run("status").out
    refused = service.run("deploy", "--to", "v2", "--yes")
    why = f"failout: refused by I14: {name} is on for every service, set by ada: a test\n{ends}\n"
    assert (3, why) == (refused.code, refused.err)

    ended = service.run(*off, *WHY, "--every-service")
    assert ["next: failout status"] == ended.out.splitlines()[1:]
    assert "still" not in ended.out
    assert "is on" not in service.run("status").out


def test_a_freeze_of_one_service_outlives_the_end_of_that_of_every_service(service: Shell) -> None:
    assert 0 == service.run("freeze", *WHY).code
    ended = service.run("unfreeze", *WHY, "--every-service")
    assert "freeze is off for every service, but still on for gates" in ended.out
    assert ended.out.endswith("\nnext: failout unfreeze --reason ...\n")

    (service.folder / "other").mkdir()
    (service.folder / "other/failout.yaml").write_text("service: other\nstate: ../state\n")
    (service.folder / "other/topology.json").write_text(json.dumps({**TOPOLOGY, "service": "other"}))
    ended = service.run("unfreeze", *WHY, "--every-service", "--config", "other/failout.yaml")
    assert ended.out.endswith("next: failout unfreeze --reason ... --config FILE   (failout.yaml of gates)\n")
    ours = service.run("unfreeze", *WHY, "--config", "other/failout.yaml")
    assert ours.out.endswith("deploys and drills may start again.\nnext: failout status\n"), "another's is no matter"


def test_whoever_turns_the_kill_switch_on_hears_which_move_stands_and_status_says_the_same(service: Shell) -> None:
    """It stopped silently: every list went on to say `active`, and the next command was to bring it back."""
    state = begin("move-1", "gates", ("aws/us-east-1",), DeployPolicy(), (), datetime.now(UTC))
    store = SqlStore(Place.of(str(service.folder / "state")))
    row, now = dump(replace(state, phase=Phase.EMPTYING)), datetime.now(UTC)
    asyncio.run(store.create_run("move-1", "gates", "region", row, "active", author="ada", reason="quake", now=now))
    store.close()
    service.environment["FAILOUT_AUTHOR"] = "ada"
    stands = "aws/us-east-1 stands at 0% of its usual users, emptying: kill is on for gates, set by ada: a test (I14)"
    goes_on = "failout kill-switch off --reason ..."
    ends = f"{goes_on}   (it goes on then; to end it instead, first: failout region return aws/us-east-1 --reason ...)"
    turned = service.run("kill-switch", "on", *WHY)
    assert [f"  run move-1: {stands}", f"  next: {ends}"] == turned.out.splitlines()[-2:]
    again = service.run("kill-switch", "on", *WHY, "--json").json("switch")["stands"]
    assert [{"run": "move-1", "evidence": stands, "next_command": ends}] == again
    assert f"  why: {stands}" in service.run("status").out
    assert ends == service.run("status", "--json").json("status")["runs"][0]["next_command"]
    assert stands in service.run("report", "show", "move-1").out
    assert [] == service.run("kill-switch", "off", *WHY, "--json").json("switch")["stands"]
    assert "kill is on" not in service.run("status").out
