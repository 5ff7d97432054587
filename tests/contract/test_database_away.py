"""The database goes away under a deploy of the shipped machine, by a restart or for ever, and no step is lost or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import postgres_server
import pytest
from engine.file_cloud import FileCloud, FileDns, topology
from engine.killed import POLICY, Book
from postgres_server import Server

from orchestrator.core.deploy import begin
from orchestrator.core.deploy_row import DeployMachine
from orchestrator.core.guards import order_of_zones
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.place import Place
from orchestrator.engine.runtime import Carried, open_engine
from orchestrator.engine.store import SqlStore
from orchestrator.workflows.deploy import DeployPerformer
from orchestrator.workflows.world import World

SHAPE = topology(1)
CALM = [
    "admitted",
    "prepared",
    "drained",
    "upgraded",
    "verified",
    "step-passed",
    "step-passed",
    "joined",
    "baked",
    "settled",
]


@dataclass
class Pair:
    """A primary, and a standby that has every commit before its client hears of it."""

    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """Whichever of the two takes writes: as production names them."""
        hosts = f"{self.primary.data.parent},{self.standby.data.parent}"
        ports = f"{self.primary.port},{self.standby.port}"
        return f"postgresql://postgres@/postgres?host={hosts}&port={ports}&target_session_attrs=read-write"


@pytest.fixture
def home() -> Iterator[Path]:
    with postgres_server.folder() as folder:
        yield folder


async def deploy(
    url: str, folder: Path, when: set[str], trouble: Callable[[], Awaitable[None]]
) -> tuple[list[tuple[str, str | None]], int, dict[str, Any]]:
    """Deploy v2 over the cloud of files; `trouble` comes once, as soon as an effect of `when` has begun."""
    cloud = FileCloud(folder / "cloud.json", SHAPE)
    cloud.create()
    troubled: list[asyncio.Task[None]] = []

    def log(event: str, /, **fields: Any) -> None:
        if event == "effect-began" and fields["step"] in when and not troubled:
            troubled.append(asyncio.ensure_future(trouble()))

    def assemble(store: SqlStore) -> dict[str, Carried]:
        clouds = {region.cloud: cloud for region in SHAPE.regions}
        agents = {region.id: cloud for region in SHAPE.regions}
        world = World(SHAPE, clouds, clouds, FileDns(cloud), agents, SystemClock(), cloud, Book(store), cloud)
        return {"deploy": Carried(DeployMachine(), DeployPerformer(world))}

    async with open_engine(Place.of(url), assemble, log=log, serving=True) as engine:
        now = datetime.now(UTC)
        row = begin("gates", "v2", {z.id: "v1" for z in SHAPE.zones()}, tuple(order_of_zones(SHAPE)), POLICY, now)
        dumped = DeployMachine().dump(row)
        await engine.store.create_run("d1", "gates", "deploy", dumped, "active", author="a", reason="", now=now)
        ended = await asyncio.wait_for(_ended(engine.store), 90)
        await troubled[0]
        history = [(r.event.kind, r.event.zone) for r in await engine.store.events("d1") if r.seq is not None]
        assert ("succeeded", []) == (ended.status, list(await engine.store.leases("gates")))
        return history, ended.epoch, cloud.content()


async def _ended(store: SqlStore) -> Any:
    while True:
        try:
            run = await store.load("d1")
        except Exception:  # noqa: BLE001 - the database is away: that is the point
            run = None
        if run is not None and run.finished:
            return run
        await asyncio.sleep(0.1)


def judge(history: list[tuple[str, str | None]], epoch: int, world: dict[str, Any]) -> None:
    expected = [(kind, zone.id) for zone in SHAPE.zones() for kind in CALM]
    assert [*expected, ("complete-forward", None)] == history
    assert 1 == epoch, "nobody took over what was being carried"
    assert all(of[:5] == ["v2", 2, True, "steady", 1.0] for of in world["zones"].values())


@pytest.mark.parametrize("effect", ["upgrade", *(pytest.param(e, marks=pytest.mark.soak) for e in ("drain", "ramp"))])
def test_a_restart_under_a_deploy_loses_nothing_and_repeats_nothing(home: Path, tmp_path: Path, effect: str) -> None:
    server = Server(home / "data")
    server.create()
    server.start()

    async def restart() -> None:
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(server.start)

    try:
        judge(*asyncio.run(deploy(server.url, tmp_path, {effect}, restart)))
    finally:
        server.stop()


def test_when_the_primary_is_killed_and_its_standby_promoted_the_deploy_goes_on(home: Path, tmp_path: Path) -> None:
    pair = Pair(Server(home / "first", 5432, synchronous_standby_names=""), Server(home / "second", 5433))
    pair.primary.create()
    pair.primary.start()
    pair.standby.follow(pair.primary)
    pair.standby.start()
    pair.primary.stop()
    pair.primary = Server(home / "first", 5432, synchronous_standby_names="*", synchronous_commit="remote_apply")
    pair.primary.start()

    async def lose() -> None:
        await asyncio.to_thread(pair.primary.stop, signal.SIGQUIT)
        await asyncio.to_thread(pair.standby.promote)

    try:
        judge(*asyncio.run(deploy(pair.url, tmp_path, {"upgrade"}, lose)))
    finally:
        pair.standby.stop()
        pair.primary.stop()
