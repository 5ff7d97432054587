"""The clouds are kept as the traffic document says, by whoever carries the run, wherever no effect steers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine.file_cloud import FileCloud, FileDns, topology

from orchestrator.core.machine import Effect, Event
from orchestrator.core.traffic import OUT, STEADY, DesiredTraffic, ZoneTraffic
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Advance, Run
from orchestrator.ports import Fence, Notice
from orchestrator.workflows.reconcile import KNOWN_S, OneAtATime, Reconciler
from orchestrator.workflows.world import World

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SHAPE = topology(3)
AWS, AZURE = SHAPE.regions
A, B = "aws/us-east-1a", "aws/us-east-1b"


def do(act: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(act)


class Anyone:
    number = 0

    async def check(self) -> None: ...


@dataclass
class Book:
    store: MemoryStore
    before_load: Callable[[], None] = lambda: None

    async def load(self) -> DesiredTraffic | None:
        self.before_load()
        return await self.store.load_traffic("gates")

    async def save(self, document: DesiredTraffic, expected_version: int) -> None:
        await self.store.save_traffic("gates", document, expected_version)


@dataclass
class Ears(FileCloud):
    heard: list[Notice] = field(default_factory=list)

    async def notify(self, notice: Notice) -> None:
        self.heard.append(notice)


@dataclass
class Hands(SystemClock):
    """A clock whose monotonic hands stand still until somebody moves them."""

    at: float = 0.0

    def monotonic(self) -> float:
        return self.at


@dataclass
class Bench:
    """A deploy that has zone A out. The reconciler has looked once, and everything was as the document says."""

    folder: Path
    clock: Hands = field(default_factory=Hands)
    store: MemoryStore = field(default_factory=MemoryStore)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.cloud = Ears(self.folder / "cloud.json", SHAPE)
        self.cloud.create()
        self.book = Book(self.store)
        clouds = {region.cloud: self.cloud for region in SHAPE.regions}
        agents = {region.id: self.cloud for region in SHAPE.regions}
        world = World(SHAPE, clouds, clouds, FileDns(self.cloud), agents, self.clock, self.cloud, self.book, self.cloud)
        self.reconciler = Reconciler(world, self.store, self.unfinished, "me", self.counts)
        do(self.store.create_run("d1", "gates", "deploy", {}, "active", author="ada", reason="", now=NOW))
        do(self.store.claim("d1", "me", NOW))
        self.commit(A)
        zones = {zone.id: STEADY for zone in SHAPE.zones()} | {A: OUT}
        self.document = DesiredTraffic(1, 1, zones, {region.id: region.weight for region in SHAPE.regions})
        do(self.store.save_traffic("gates", self.document, 0))
        self.place(A, OUT)
        assert self.look()
        assert 0 == self.counts["traffic_put_back"]

    async def unfinished(self) -> list[Run]:
        return [run for run in reversed(await self.store.runs("gates")) if not run.finished]

    def commit(self, zone: str | None, *, finished: bool = False) -> None:
        step = Advance({}, "active", zone, finished, Event("x"), None, 0.0)
        do(self.store.commit(do(self.store.load("d1")), step, NOW))

    def intend(self, kind: str, zone: str | None) -> None:
        do(self.store.intend(do(self.store.load("d1")), Effect(kind, zone), NOW))

    def place(self, zone: str, traffic: ZoneTraffic) -> None:
        do(self.cloud.apply(SHAPE.region_of(zone), {zone: traffic}, Anyone()))

    def placements(self) -> dict[str, str]:
        return {zone: of[3] for zone, of in self.cloud.content()["zones"].items()}

    def look(self) -> bool:
        return bool(do(self.reconciler.look()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_a_zombie_wrote_is_put_back_on_every_cloud_and_in_the_dns_and_told(bench: Bench) -> None:
    wanted = bench.placements()
    for zone, traffic in ((A, STEADY), (B, OUT), ("azure/eastusc", OUT)):
        bench.place(zone, traffic)
    do(FileDns(bench.cloud).apply({AWS.id: 0, AZURE.id: 100}, Anyone()))
    assert bench.look()
    assert (wanted, {AWS.id: 100, AZURE.id: 100}) == (bench.placements(), bench.cloud.content()["weights"])
    assert ["warning"] * 3 == [notice.level for notice in bench.cloud.heard]
    assert 3 == bench.counts["traffic_put_back"]
    bench.look()
    assert 3 == bench.counts["traffic_put_back"], "what is as it should be is not written to"


@pytest.mark.parametrize(("kind", "back"), [("upgrade", True), ("bake", True), ("drain", False), ("ramp", False)])
def test_an_effect_that_steers_has_its_region_to_itself(bench: Bench, kind: str, *, back: bool) -> None:
    bench.intend(kind, A)
    bench.place(B, OUT)
    bench.place("azure/eastusc", OUT)
    bench.look()
    assert back == (bench.placements()[B] == "steady")
    assert "steady" == bench.placements()["azure/eastusc"]


def test_i1_a_wish_that_no_effect_has_reached_is_left_to_its_run(bench: Bench) -> None:
    """Its run was paused, or the kill switch was on: before it goes on it asks its guards, and nobody else does."""
    weights = {AWS.id: 0, AZURE.id: 100}
    wish = bench.document.with_zone(B, OUT, 1)
    do(bench.store.save_traffic("gates", wish, 1))
    do(bench.store.save_traffic("gates", wish.with_weights(weights, 1), 2))
    before = bench.placements(), bench.cloud.content()["weights"]
    for _ in range(3):
        assert bench.look()
    assert before == (bench.placements(), bench.cloud.content()["weights"])
    assert [] == bench.cloud.heard


def test_what_nobody_has_looked_at_for_long_is_not_put_back(bench: Bench) -> None:
    """Another zone may be lost by now: to take one out again, or to put one back, would need the guards (I1, I2)."""
    for zone, traffic in ((A, STEADY), ("azure/eastusc", OUT)):
        bench.place(zone, traffic)
    changed = bench.placements()
    bench.clock.at += KNOWN_S + 0.1
    assert bench.look()
    assert changed == bench.placements()
    bench.place(A, OUT)
    bench.look()
    bench.place(A, STEADY)
    bench.look()
    assert "out" == bench.placements()[A], "what has been as it should be since is kept so"


@pytest.mark.parametrize(("kind", "back"), [("leave-region", False), ("return-region", False), ("stay-out", True)])
def test_an_effect_of_no_zone_steers_everything_or_nothing(bench: Bench, kind: str, *, back: bool) -> None:
    bench.intend(kind, None)
    bench.place(B, OUT)
    assert bench.look()
    assert back == (bench.placements()[B] == "steady")


@pytest.mark.parametrize("kind", ["runbook", "drill"])
def test_a_run_that_only_begins_others_keeps_nobody_from_putting_back_while_it_waits(bench: Bench, kind: str) -> None:
    do(bench.store.create_run("b1", "gates", kind, {}, "waiting", author="ada", reason="", now=NOW))
    do(bench.store.claim("b1", "me", NOW))
    do(bench.store.intend(do(bench.store.load("b1")), Effect("mend/it-is-well-again", None), NOW))
    bench.place(B, OUT)
    assert bench.look()
    assert "steady" == bench.placements()[B]


@pytest.mark.parametrize("why", ["another process carries the run", "the kill switch is on", "there is no document"])
def test_it_touches_nothing_when(bench: Bench, why: str) -> None:
    bench.place(B, OUT)
    if why == "another process carries the run":
        do(bench.store.claim("d1", "another", NOW))
    elif why == "the kill switch is on":
        do(bench.store.set_switch("*", "kill", on=True, author="ada", reason="", now=NOW))
    else:
        bench.store._traffic.clear()
    assert bench.look()
    assert "out" == bench.placements()[B]


@pytest.mark.parametrize("elder", ["me", "another"])
def test_of_several_processes_the_one_that_carries_the_oldest_run_does_it_for_all(bench: Bench, elder: str) -> None:
    """It leaves alone what the effects of others steer."""
    do(bench.store.claim("d1", elder, NOW))
    later = NOW + timedelta(seconds=1)
    do(bench.store.create_run("o1", "gates", "outing", {}, "active", author="ada", reason="", now=later))
    do(bench.store.claim("o1", "another" if elder == "me" else "me", later))
    do(bench.store.intend(do(bench.store.load("o1")), Effect("drain", "azure/eastusa"), later))
    for zone in (B, "azure/eastusc"):
        bench.place(zone, OUT)
    assert bench.look()
    there = bench.placements()
    assert ("steady" if elder == "me" else "out", "out") == (there[B], there["azure/eastusc"])


def test_when_nothing_runs_the_last_document_still_holds(bench: Bench) -> None:
    bench.commit(None, finished=True)
    bench.place(B, OUT)
    assert not bench.look()
    assert "steady" == bench.placements()[B]


def test_a_document_that_moves_on_before_the_write_stops_it(bench: Bench) -> None:
    """An effect has just decided otherwise: what the older document says is not written any more."""
    loads: list[int] = []

    def move_on() -> None:
        loads.append(1)
        if len(loads) == 2:  # The fence of the first write asks.
            newer = bench.document.with_zone(B, OUT, 1)
            bench.store._traffic["gates"] = newer

    bench.place(B, OUT)
    bench.book.before_load = move_on
    bench.look()
    assert "out" == bench.placements()[B]
    assert 0 == bench.counts["traffic_put_back"]


def test_writes_to_one_region_take_turns() -> None:
    inside: list[str] = []
    most = 0

    class Slow:
        async def apply(self, region: Any, desired: Any, fence: Fence) -> None:
            nonlocal most
            inside.append(region.id)
            most = max(most, len(inside))
            await asyncio.sleep(0)
            assert 1 == inside.count(region.id)
            inside.remove(region.id)

    async def main() -> None:
        traffic = OneAtATime(Slow())  # type: ignore[arg-type]
        await asyncio.gather(*(traffic.apply(region, {}, Anyone()) for region in (AWS, AWS, AZURE)))

    asyncio.run(main())
    assert 2 == most, "two regions at a time, one write each"
