"""A lab under traffic, and `failout` run as a user runs it; tests ask what the users of the service saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from orchestrator.bootstrap import reading_world
from orchestrator.config import Settings, read_settings
from orchestrator.core.deploy import DeployState
from orchestrator.core.deploy_row import parse
from orchestrator.core.errors import FailoutError
from orchestrator.engine.glance import Glance, glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Record, Run
from orchestrator.lab.blueprint import Blueprint, RegionBlueprint, manifest, read_blueprint
from orchestrator.lab.client import control, raise_lab, take_down
from orchestrator.lab.critical import read_timeline
from orchestrator.lab.demo import DemoPlan, Traffic
from orchestrator.lab.traffic import record
from orchestrator.workflows.steering import Steering

# A tenth of the requests are long ones: ten slow ones among a few dozen are no accident, five can be.
GATE = {"samples_min": 15, "slow_min": 10}
QUICK: dict[str, Any] = {"ramp_step_s": 1.0, "bake_s": 1.0, "ramp_shares": [0.5, 1.0], "gate": GATE}
TWO_CLOUDS = (RegionBlueprint("aws", "us-east-1", 2), RegionBlueprint("azure", "eastus", 2))
RATE = 150.0
LOGGED_S = 2.5  # a request's answer is in the raw log so long after it was due


def blueprint(regions: Sequence[RegionBlueprint] = TWO_CLOUDS, **given: Any) -> Blueprint:
    """Two instances a zone, each good for far more than it gets: only what a test breaks is broken."""
    policy = {**QUICK, **given.pop("policy", {})}
    return Blueprint(
        **{
            "name": "e2e",
            "regions": tuple(regions),
            "instances": 2,
            "rps_per_instance": 120.0,
            "policy": policy,
            **given,
        }
    )


@dataclass(frozen=True)
class Ended:
    """What a `failout` process left: `events` are those of the run it carried, `seconds` how long it lived."""

    code: int
    out: str
    err: str
    seconds: float
    run: Run | None = None
    state: DeployState | None = None
    events: Sequence[Record] = ()

    def kinds(self, zone: str) -> list[str]:
        return [e.event.kind for e in self.events if e.event.zone == zone]

    def evidence(self, kind: str) -> str:
        return next((e.event.evidence for e in self.events if e.event.kind == kind), "")

    def zones(self) -> dict[str, str]:
        assert self.state is not None
        return {z.zone: str(z.state) for z in self.state.zones}


class Failout:
    """One `failout` process."""

    def __init__(self, stage: Stage, args: Sequence[str]) -> None:
        self._stage, self._began = stage, time.monotonic()
        self.started_at = time.time()
        command = [sys.executable, "-m", "orchestrator.cli", *args, "--config", str(stage.config)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, timeout_s: float = 150.0) -> Ended:
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"failout did not end within {timeout_s} s:\n{err[-3000:]}") from None
        seconds = time.monotonic() - self._began
        run = self._stage.newest_run()
        if run is None:
            return Ended(self.process.returncode, out, err, seconds)
        with self._stage.glance() as glance:
            events = glance.events(run.id)
        state = parse(run.state) if run.kind == "deploy" else None
        return Ended(self.process.returncode, out, err, seconds, run, state, events)

    def kill(self) -> None:
        """kill -9, as a power cut does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class Stage:
    """A lab, its users, and the command line."""

    def __init__(self, folder: Path, traffic: Traffic) -> None:
        self.folder, self.traffic = folder, traffic
        self.config = folder / "failout.yaml"
        self._processes: list[Failout] = []
        self.settings: Settings = read_settings(self.config)

    # ---- acting

    def failout(self, *args: str) -> Failout:
        self._processes.append(Failout(self, args))
        return self._processes[-1]

    def end_processes(self) -> None:
        """What a failed test has left running."""
        for left in self._processes:
            if left.process.poll() is None:
                left.kill()

    def deploy(self, version: str, *args: str) -> Failout:
        return self.failout("deploy", "--to", version, "--yes", "--reason", "a test", "--log", "json", *args)

    def resume(self) -> Failout:
        return self.failout("deploy", "--resume", "--log", "json")

    def order(self, kind: str, *args: str) -> Ended:
        run = self.newest_run()
        assert run is not None
        return self.failout("deployments", kind, run.id, "--reason", "a test", *args).wait()

    def lab(self, path: str, **body: Any) -> dict[str, Any]:
        return control(self.folder, path, body or None)

    def write_policy(self, **changes: Any) -> None:
        """Change failout.yaml's policy as a person would; a run keeps the policy it began with."""
        document = yaml.safe_load(self.config.read_text())
        document["policy"].update(changes)
        self.config.write_text(yaml.safe_dump(document, sort_keys=False))
        self.settings = read_settings(self.config)

    def release(self, version: str) -> None:
        """Publish a version that the lab did not bring along."""
        regions = read_blueprint(self.folder).regions
        (self.folder / "releases" / f"{version}.yaml").write_text(manifest(version, regions), "utf-8")

    def kill_instance(self, zone: str) -> str:
        """SIGKILL the process of one instance of `zone`, as a machine dies; return the instance's id."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if f"--zone={zone}" in words:
                    os.kill(pid, signal.SIGKILL)
                    return next(w for w in words if w.startswith("--instance=")).partition("=")[2]
        raise AssertionError(f"no instance of {zone} runs")

    # ---- looking

    @contextmanager
    def glance(self) -> Iterator[Glance]:
        with glance_at(Place.of(self.settings.state)) as glance:
            yield glance

    def newest_run(self) -> Run | None:
        with contextlib.suppress(FailoutError), self.glance() as glance:
            runs = glance.runs(self.settings.service)
            return runs[0] if runs else None
        return None

    def state(self) -> DeployState | None:
        """Of the newest deploy."""
        with contextlib.suppress(FailoutError), self.glance() as glance:
            return next((parse(r.state) for r in glance.runs(self.settings.service) if r.kind == "deploy"), None)
        return None

    def until(self, so: Callable[[DeployState], bool], timeout_s: float = 90.0, what: str = "") -> DeployState:
        """Poll the run's row until `so`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = self.state()
            if state is not None and so(state):
                return state
            time.sleep(0.03)
        raise AssertionError(f"not within {timeout_s} s: {what}; {self._last_words()}; the run: {self.state()}")

    def _last_words(self) -> str:
        """Of the newest `failout` process: whoever waits for what it does wants to know."""
        if not self._processes:
            return "no failout was started"
        newest = self._processes[-1].process
        if newest.poll() is None:
            return "failout still runs"
        out, err = newest.communicate()
        return f"failout had ended with {newest.returncode}: {out[-1000:]}{err[-2000:]}"

    def until_zone(self, zone: str, *states: str, timeout_s: float = 90.0) -> DeployState:
        return self.until(lambda s: s.zone(zone).state in states, timeout_s, f"{zone} {' or '.join(states)}")

    def seen(self, since: float, until: float | None = None) -> record.Recount:
        """What users saw of requests that were due in [since, until), from the raw log of their requests."""
        until = until or time.time()
        time.sleep(max(0.0, until + LOGGED_S - time.time()))
        return record.recount(record.read(self.traffic.log), since, until)

    def failures(self, since: float) -> list[record.Row]:
        return [r for r in record.read(self.traffic.log) if r.t >= since and r.outcome != record.OK]

    def versions(self) -> dict[str, Counter[str]]:
        """What the lab's processes run: zone -> version -> instances."""
        found: dict[str, Counter[str]] = {}
        for instance in self.lab("/status")["instances"]:
            if instance["process"] == "running":
                found.setdefault(instance["zone"], Counter())[instance["version"]] += 1
        return found

    def timeline(self, kind: str, since: float = 0.0) -> list[dict[str, Any]]:
        return [e for e in read_timeline(self.folder / "timeline.jsonl") if e["kind"] == kind and e["t"] >= since]

    def ending(self) -> dict[str, Any]:
        """Everything a deploy leaves behind, without ids and times: two runs ended alike when this is equal."""
        run, state = self.newest_run(), self.state()
        assert run is not None
        assert state is not None
        with self.glance() as glance:
            document = glance.load_traffic(self.settings.service)
            leases = glance.leases(self.settings.service)
        assert document is not None
        return {
            "run": (run.status, run.finished, run.effect, run.zone, run.trouble),
            "zones": [(z.zone, str(z.state), z.goal, z.reverting, dict(z.undo)) for z in state.zones],
            "leases": list(leases),
            "traffic": {zone: (str(t.placement), t.share) for zone, t in document.zones.items()},
            "weights": dict(document.region_weights),
            "clouds": asyncio.run(self._read_clouds()),
            "processes": {zone: dict(versions) for zone, versions in sorted(self.versions().items())},
        }

    async def _read_clouds(self) -> dict[str, Any]:
        world = reading_world(self.settings, lambda *_, **__: None)
        seen = await Steering(world).seen()
        told: dict[str, Any] = {"weights": dict((await world.global_tier.read()).weights)}
        for zone in world.topology.zones():
            fleet = await world.fleet(zone).describe(zone)
            versions = Counter(i.version for i in fleet.instances if i.running and i.on_model)
            told[zone.id] = (str(seen[zone.id].placement), seen[zone.id].taking, fleet.desired, dict(versions))
            told[zone.id] += (fleet.model_version, fleet.autoscaling)
        return told

    def pids(self) -> set[int]:
        """The processes of this lab: its daemon and all below it."""
        return family(int(json.loads((self.folder / "lab.json").read_text())["pid"]))


@contextmanager
def stage(folder: Path, plan: Blueprint, rate: float = RATE, clients: int = 60) -> Iterator[Stage]:
    """Raise a lab and its traffic; at the end no process of either is left, or the test fails."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    daemon = raise_lab(folder / "lab", plan, lambda _: None, with_parent=True)
    processes: set[int] = {daemon.pid}
    try:
        dns = control(folder / "lab", "/status")["dns"]
        traffic = Traffic(DemoPlan(folder, plan, rate=rate, clients=clients), dns)
        try:
            made = Stage(folder / "lab", traffic)
            _await_users(traffic)
            yield made
            processes |= made.pids()
        finally:
            traffic.stop()
    finally:
        with contextlib.suppress(FailoutError):
            take_down(folder / "lab")
        assert daemon.stdin is not None
        daemon.stdin.close()
        daemon.wait(20)
        assert daemon.stdout is not None
        daemon.stdout.close()
    assert alive(processes) == set()


class Labs:
    """One lab for many cases, and a new one whenever a case left it unwell. `sound` says whether the next may have it."""

    def __init__(self, folder: Path, plan: Blueprint, sound: Callable[[Stage], bool]) -> None:
        self._folder, self._plan, self._sound = folder, plan, sound
        self._stack = contextlib.ExitStack()
        self._now: Stage | None = None
        self._count = 0

    def get(self) -> Stage:
        if self._now is not None:
            run = self._now.newest_run()
            if (run is None or run.finished) and self._sound(self._now):
                return self._now
            self.close()
        self._count += 1
        self._now = self._stack.enter_context(stage(self._folder / str(self._count), self._plan))
        return self._now

    def close(self) -> None:
        self._now = None
        self._stack.close()


def _await_users(traffic: Traffic) -> None:
    deadline = time.monotonic() + 20
    while traffic.last is None or traffic.last["sent"] < RATE:
        assert time.monotonic() < deadline, "no traffic"
        time.sleep(0.1)


def family(pid: int) -> set[int]:
    """`pid` and every process below it, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = {pid}, [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo.extend(below)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run after a moment; a zombie has ended."""
    deadline = time.monotonic() + 5
    left = set(pids)
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if _runs(pid)}
        time.sleep(0.05)
    return left


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def at(record: Record) -> float:
    moment: datetime = record.at
    return moment.timestamp()
