"""How many services one orchestrator carries: N deploys of six zones at once on PostgreSQL, over clouds that only take time.

`engine_thousand.py [--services 10 100 1000] [--steps-per-service 0.1] [--poll 1] [--seconds 60]`: the deploy machine, the
loop, the store and DBOS as shipped; each effect lasts 1/steps-per-service seconds, checks its fence once, and asks every
`poll` seconds whether a person wants something, as the shipped effects do. Offered is services x steps-per-service.

It prints one JSON object a size. `overhead`: from an effect's outcome to the beginning of the next one (commit, read,
intend). `start`: from the row of a run to its first effect, all created at the same moment. `late`: by how much the event
loop woke a sleeper too late. A server of its own is started (fsync on) unless FAILOUT_TEST_POSTGRES names one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# ruff: noqa: E402 - the tests' own PostgreSQL server is used, and their folder has to be known first
sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "contract")]

import postgres_server
from engine.file_cloud import topology

from orchestrator.core.deploy import DeployState, begin
from orchestrator.core.deploy_row import DeployMachine
from orchestrator.core.guards import order_of_zones
from orchestrator.core.machine import Effect, Event
from orchestrator.core.policy import DeployPolicy
from orchestrator.engine.carry import Interrupted
from orchestrator.engine.place import Place
from orchestrator.engine.runtime import Carried, open_engine
from orchestrator.ports import Fence

OUTCOMES = {
    "prepare": "prepared",
    "drain": "drained",
    "upgrade": "upgraded",
    "verify": "verified",
    "ramp": "step-passed",
    "join": "joined",
    "bake": "baked",
    "settle": "settled",
}
STEPS = [{"share": s, "seconds": 60.0, "expected_requests": 1000, "merged": []} for s in (0.1, 0.5, 1.0)]
ZONES = topology(3)


@dataclass
class Clock:
    """Effects that last, and what was measured between them."""

    effect_s: float
    poll_s: float
    ended: dict[int, float] = field(default_factory=dict)
    overhead_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    first_s: dict[int, float] = field(default_factory=dict)
    steps: int = 0
    polls: int = 0

    async def perform(self, state: DeployState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        service, now = int(state.service), time.monotonic()
        if service in self.ended:
            self.overhead_s.append(now - self.ended[service])
        else:
            self.first_s[service] = now
        until = now + self.effect_s
        while (left := until - time.monotonic()) > 0:
            wait = min(self.poll_s, left)
            slept = time.monotonic()
            await asyncio.sleep(wait)
            self.late_s.append(time.monotonic() - slept - wait)
            await interrupted()
            self.polls += 1
        await fence.check()
        self.steps += 1
        self.ended[service] = time.monotonic()
        if effect.kind == "admit":
            return Event("admitted", effect.zone, "", {"undo": {}, "steps": STEPS})
        return Event(OUTCOMES[effect.kind], effect.zone, "it took its time")


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [float("nan")]
    return {f"p{q}_ms": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 1) for q in (50, 90, 99)}


async def measure(url: str, services: int, given: argparse.Namespace) -> dict[str, Any]:
    clock = Clock(1.0 / given.steps_per_service, given.poll)
    machine = DeployMachine()
    failures: defaultdict[str, int] = defaultdict(int)

    def log(event: str, /, **_: Any) -> None:
        if event in {"retrying", "carrier-gave-up", "watch-failed", "watch-blind", "taking-over", "dbos"}:
            failures[event] += 1

    async with open_engine(
        Place.of(url), lambda _: {"deploy": Carried(machine, clock)}, serving=True, log=log
    ) as engine:
        rss_before = rss_mb()
        zones = tuple(order_of_zones(ZONES))
        now = datetime.now(UTC)
        for number in range(services):
            state = begin(str(number), "v2", {zone.id: "v1" for zone in ZONES.zones()}, zones, DeployPolicy(), now)
            await engine.store.create_run(
                f"d{number}", str(number), "deploy", machine.dump(state), "active", author="b", reason="", now=now
            )
        created = time.monotonic()
        while len(clock.first_s) < services:
            await asyncio.sleep(0.1)
            assert time.monotonic() - created < 300, f"only {len(clock.first_s)} have begun; {dict(failures)}"
        began = max(created, *clock.first_s.values())
        starts = [max(0.0, at - created) for at in clock.first_s.values()]
        clock.overhead_s.clear()
        clock.late_s.clear()
        steps, polls, cpu, wall = clock.steps, clock.polls, cpu_s(), time.monotonic()
        await asyncio.sleep(given.seconds)
        took = time.monotonic() - wall
        done = clock.steps - steps
        return {
            "services": services,
            "offered_steps_per_s": round(services * given.steps_per_service, 2),
            "done_steps_per_s": round(done / took, 2),
            "polls_per_s": round((clock.polls - polls) / took, 1),
            "overhead": quantiles(clock.overhead_s),
            "start": {**quantiles(starts), "all_s": round(began - created, 2)},
            "late": quantiles(clock.late_s),
            "cpu_cores": round((cpu_s() - cpu) / took, 3),
            "rss_mb": round(rss_mb()),
            "rss_kb_per_service": round(1024 * (rss_mb() - rss_before) / services),
            "trouble": dict(failures),
        }


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--steps-per-service", type=float, default=0.1)
    parser.add_argument("--poll", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.url:
        print(json.dumps(asyncio.run(measure(given.url, given.services[0], given))), flush=True)
        return
    with postgres_server.server(fsync="on") as server:
        for services in given.services:
            with postgres_server.database(server) as url, tempfile.TemporaryDirectory() as cwd:
                # A process of its own, so that memory is this size's alone.
                words = [
                    "--steps-per-service",
                    given.steps_per_service,
                    "--poll",
                    given.poll,
                    "--seconds",
                    given.seconds,
                ]
                command = [sys.executable, Path(__file__).absolute(), "--services", services, *words, "--url", url]
                subprocess.run([str(word) for word in command], check=True, cwd=cwd)


if __name__ == "__main__":
    main()
