"""The lab's autoscalers under live traffic: they grow, shrink, are refused, and leave a frozen zone alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.stage import Stage, blueprint, stage

from orchestrator.bootstrap import reading_world
from orchestrator.lab.blueprint import RegionBlueprint

pytestmark = pytest.mark.soak

A, B = "aws/us-east-1a", "aws/us-east-1b"
AUTOSCALE = {"target": 0.5, "scale_in_after_s": 4.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two zones of two instances, each to serve 20/s of the 40/s that it is good for; they serve 15/s at first."""
    plan = blueprint(
        [RegionBlueprint("aws", "us-east-1", 2)], rps_per_instance=40.0, instances_max=5, autoscale=AUTOSCALE
    )
    with stage(tmp_path_factory.mktemp("autoscaler"), plan, rate=60.0) as made:
        yield made


def instances(made: Stage, zone: str) -> int:
    return sum(made.versions()[zone].values())


def until(made: Stage, zone: str, wanted: int) -> None:
    deadline = time.monotonic() + 20
    while instances(made, zone) != wanted:
        assert time.monotonic() < deadline, f"{zone} has {instances(made, zone)} instances, not {wanted}"
        time.sleep(0.2)


def scaled(made: Stage, zone: str, since: float, state: str = "asked") -> list[dict[str, Any]]:
    return [e for e in made.timeline("scaled", since) if e["zone"] == zone and e["state"] == state]


class Anyone:
    number = 0

    async def check(self) -> None:
        return


def set_autoscaling(made: Stage, zone_id: str, *, enabled: bool) -> None:
    world = reading_world(made.settings, lambda *_, **__: None)
    zone = world.topology.zone(zone_id)
    asyncio.run(world.fleet(zone).set_autoscaling(zone, enabled=enabled, fence=Anyone()))


def test_fleets_grow_with_the_load_shrink_after_it_and_a_frozen_one_does_neither(made: Stage) -> None:
    began = time.time()
    made.traffic.turn(140.0)
    until(made, A, 4)
    until(made, B, 4)
    set_autoscaling(made, A, enabled=False)
    frozen = time.time()
    made.traffic.turn(60.0)
    until(made, B, 2)
    assert 4 == instances(made, A)
    assert [] == scaled(made, A, frozen)
    set_autoscaling(made, A, enabled=True)
    until(made, A, 2)
    assert {} == made.seen(began).failures


def test_without_room_an_autoscaler_asks_is_refused_and_says_so(made: Stage) -> None:
    began = time.time()
    until(made, A, 2)
    made.lab("/cloud-fault", cloud="aws", zone=A, room=2)
    made.traffic.turn(140.0)
    until(made, B, 5)  # what both zones need, less what A carries
    refused = scaled(made, A, began, "refused")
    assert refused
    assert "sufficient" in refused[0]["why"]
    assert 2 == instances(made, A)
    made.lab("/cloud-fault", cloud="aws", zone=A, room=None)
    assert {} == made.seen(began).failures
