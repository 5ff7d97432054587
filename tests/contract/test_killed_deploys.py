"""I11 on the code that ships: a deploy that is killed at every effect ends as one that nobody touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import postgres_server
import pytest

TESTS = Path(__file__).parents[1]
EFFECTS = ["admit", "prepare", "drain", "upgrade", "verify", "ramp", "join", "bake", "settle"]


@pytest.fixture(params=["sqlite", "postgresql"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    if request.param == "sqlite":
        yield [str(tmp_path / "calm"), str(tmp_path / "deadly")]
        return
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server.server())
        yield [stack.enter_context(postgres_server.database(server)) for _ in range(2)]


def kill_everywhere(folder: Path, zones: int, states: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine.killed", str(folder), str(zones), *states]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=TESTS)
    assert 0 == done.returncode, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def judge(told: dict[str, Any], zones: int) -> None:
    assert [] == told["missed"], "a process that was to die there never came there"
    assert EFFECTS == sorted({point[0] for point in told["points"]}, key=EFFECTS.index)
    assert 2 * zones * len(EFFECTS) * 3 == len(told["points"])
    assert len(told["points"]) < told["epoch"], "each death had a carrier of its own"
    assert told["calm"] == told["deadly"]
    assert ("succeeded", []) == (told["calm"]["run"][0], told["calm"]["leases"])


def test_killed_before_in_and_after_every_effect_it_ends_alike(states: list[str], tmp_path: Path) -> None:
    judge(kill_everywhere(tmp_path, 1, states), 1)


@pytest.mark.soak
def test_killed_at_every_effect_of_six_zones_it_ends_alike(states: list[str], tmp_path: Path) -> None:
    judge(kill_everywhere(tmp_path, 3, states), 3)
