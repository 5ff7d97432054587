"""A run brings a region to what the traffic document says, and touches other runs' zones only to give."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from engine.file_cloud import FileCloud, FileDns, topology

from orchestrator.core.errors import Transient
from orchestrator.core.topology import Region
from orchestrator.core.traffic import OUT, STEADY, DesiredTraffic, Placement, ZoneSeen
from orchestrator.engine.clock import SystemClock
from orchestrator.workflows.steering import Steering
from orchestrator.workflows.world import World

SHAPE = topology(3)
A, B = "aws/us-east-1a", "aws/us-east-1b"


class Anyone:
    number = 0

    async def check(self) -> None: ...


class Book:
    """The document: A and B are to be out."""

    async def load(self) -> DesiredTraffic:
        return DesiredTraffic(1, 1, {A: OUT, B: OUT}, {region.id: region.weight for region in SHAPE.regions})

    async def save(self, document: DesiredTraffic, expected_version: int) -> None:
        raise AssertionError("nothing was to be recorded")


class Unreachable(FileCloud):
    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        raise Transient(f"{region.id}: connection refused")


def test_i3_where_a_cloud_does_not_answer_a_zone_that_is_to_be_out_carries_nobody(tmp_path: Path) -> None:
    """Its ready instances counted for the survivors of an evacuation. Seed 1797300000267."""
    cloud = Unreachable(tmp_path / "cloud.json", SHAPE)
    clouds = {region.cloud: cloud for region in SHAPE.regions}
    agents = {region.id: cloud for region in SHAPE.regions}
    world = World(SHAPE, clouds, clouds, FileDns(cloud), agents, SystemClock(), cloud, Book(), cloud)
    seen = asyncio.run(Steering(world).seen_or_wanted())
    assert {A: Placement.OUT, B: Placement.OUT} == {zone: seen[zone].placement for zone in seen}


def test_i1_a_run_takes_out_no_zone_but_its_own(tmp_path: Path) -> None:
    """A's run was paused before it emptied A; B's may not do it for it, but whoever has A may, and leaves B out."""
    cloud = FileCloud(tmp_path / "cloud.json", SHAPE)
    cloud.create()
    clouds = {region.cloud: cloud for region in SHAPE.regions}
    agents = {region.id: cloud for region in SHAPE.regions}
    world = World(SHAPE, clouds, clouds, FileDns(cloud), agents, SystemClock(), cloud, Book(), cloud)
    steering = Steering(world)

    def placed() -> list[str]:
        return [cloud.content()["zones"][zone][3] for zone in (A, B)]

    asyncio.run(cloud.apply(SHAPE.regions[0], {B: OUT, A: STEADY}, Anyone()))
    asyncio.run(steering.until_zone(SHAPE.zone(B), Anyone()))
    assert ["steady", "out"] == placed()
    asyncio.run(steering.until_zone(SHAPE.zone(A), Anyone()))
    assert ["out", "out"] == placed()
