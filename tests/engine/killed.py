"""The program whose processes die: `killed.py STATE FOLDER ZONES [--every N]` deploys v2 twice, each time into a world of its own.

First without a death. Then with kill -9 before, in the middle of and after each effect of that run, and a new process after
each death. It prints what both left behind, as JSON. Children are forked, so that a death costs no second of imports.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.file_cloud import FileCloud, FileDns, topology

from orchestrator.core.deploy import DeployState, begin
from orchestrator.core.deploy_row import DeployMachine, parse
from orchestrator.core.guards import order_of_zones
from orchestrator.core.health import GatePolicy
from orchestrator.core.machine import Effect, Event
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine.carry import Interrupted
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.glance import Glance, glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Store
from orchestrator.engine.runtime import Carried, open_engine
from orchestrator.engine.store import SqlStore
from orchestrator.ports import Fence
from orchestrator.workflows.deploy import DeployPerformer
from orchestrator.workflows.world import World

POLICY = DeployPolicy(
    ramp_shares=(0.5, 1.0),
    ramp_step_s=0.1,
    bake_s=0.02,
    load_window_s=0.04,
    poll_s=0.01,
    gate=GatePolicy(samples_min=1),
)
Point = tuple[str, str, str]  # effect, zone, moment


@dataclass
class Book:
    store: Store

    async def load(self) -> DesiredTraffic | None:
        return await self.store.load_traffic("gates")

    async def save(self, document: DesiredTraffic, expected_version: int) -> None:
        await self.store.save_traffic("gates", document, expected_version)


@dataclass
class Death:
    """Kills this process at its point. Without one it only notes which effects there are, and which of them write."""

    point: Point | None = None
    now: tuple[str, str] = ("", "")
    effects: dict[tuple[str, str], str] = field(default_factory=dict)
    first: str = "read"

    def log(self, event: str, /, **fields: Any) -> None:
        if event == "effect-began":
            self.now = (fields["step"], fields["zone"])
            self.effects.setdefault(self.now, "read")
            self.at("before")

    def call(self, kind: str) -> None:
        if kind == "write":
            self.effects[self.now] = "write"
        self.at(f"in a {kind}")

    def at(self, moment: str) -> None:
        if self.point == (*self.now, moment):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Performer:
    inner: DeployPerformer
    death: Death

    async def perform(self, state: DeployState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        event = await self.inner.perform(state, effect, fence, interrupted)
        self.death.at("after")
        return event


async def deploy(state: str, cloud: FileCloud, death: Death) -> None:
    shape = cloud.shape
    cloud.on_call = death.call

    def assemble(store: SqlStore) -> dict[str, Carried]:
        clouds = {region.cloud: cloud for region in shape.regions}
        agents = {region.id: cloud for region in shape.regions}
        world = World(shape, clouds, clouds, FileDns(cloud), agents, SystemClock(), cloud, Book(store), cloud)
        return {"deploy": Carried(DeployMachine(), Performer(DeployPerformer(world), death))}

    async with open_engine(Place.of(state), assemble, log=death.log, executor="killed") as engine:
        if not await engine.store.runs():
            now = datetime.now(UTC)
            previous = {zone.id: "v1" for zone in shape.zones()}
            row = begin("gates", "v2", previous, tuple(order_of_zones(shape)), POLICY, now)
            dumped = DeployMachine().dump(row)
            await engine.store.create_run("d1", "gates", "deploy", dumped, "active", author="a", reason="", now=now)
        await engine.start_run("d1")
        await asyncio.wait_for(engine.await_run("d1"), 30)  # Held, it would wait for a person for ever.


def child(state: str, cloud: FileCloud, point: Point) -> bool:
    """Deploy in a process that is to die at `point`; True when it has."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(deploy(state, cloud, Death(point)))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"the process that was to die at {point} failed")
    return os.WIFSIGNALED(status)


def ending(rows: Glance, cloud: FileCloud) -> dict[str, Any]:
    run, traffic = rows.load("d1"), rows.load_traffic("gates")
    assert traffic is not None
    zones = [(z.zone, z.state, z.goal, z.reverting, dict(z.undo), z.touched) for z in parse(run.state).zones]
    return {
        "clouds": cloud.content(),
        "run": [run.status, run.finished, run.effect, run.zone, run.trouble, zones],
        "leases": [lease.zone for lease in rows.leases("gates")],
        "traffic": [
            {zone: (str(t.placement), t.share) for zone, t in traffic.zones.items()},
            dict(traffic.region_weights),
        ],
        "history": [(r.event.kind, r.event.zone) for r in rows.events("d1") if r.seq is not None],
    }


def main(given: argparse.Namespace) -> dict[str, Any]:
    clouds = [FileCloud(given.folder / f"{name}.json", topology(given.zones)) for name in ("calm", "deadly")]
    for cloud in clouds:
        cloud.create()
    # A process of its own, so that this one has never run a thread when it forks.
    reader, writer = os.pipe()
    if os.fork() == 0:
        calm = Death()
        asyncio.run(deploy(given.states[0], clouds[0], calm))
        os.write(writer, json.dumps([[*effect, wrote] for effect, wrote in calm.effects.items()]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        effects = json.load(told)
    os.wait()
    points = [(kind, zone, moment) for kind, zone, wrote in effects for moment in ("before", f"in a {wrote}", "after")]
    missed = [point for point in points if not child(given.states[1], clouds[1], point)]
    asyncio.run(deploy(given.states[1], clouds[1], Death()))
    ends = []
    for state, cloud in zip(given.states, clouds, strict=True):
        with glance_at(Place.of(state)) as rows:
            ends.append(ending(rows, cloud))
            epoch = rows.load("d1").epoch
    return {"calm": ends[0], "deadly": ends[1], "points": points, "missed": missed, "epoch": epoch}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("zones", type=int)
    parser.add_argument("states", nargs=2)
    sys.stdout.write(json.dumps(main(parser.parse_args())))
