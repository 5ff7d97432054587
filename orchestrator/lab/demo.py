"""The main job in a lab of its own: users send requests, v2 replaces v1 zone by zone, and the report counts the harm.

The deploy is the shipped command line in its own process. What the report says of users comes from the raw log of their
requests; what it says of time comes from the lab's timeline.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from orchestrator.config import read_settings, read_topology
from orchestrator.core.errors import FailoutError, NotFound, Rejected
from orchestrator.core.policy import DeployPolicy
from orchestrator.engine.glance import glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Record
from orchestrator.lab import critical, picture
from orchestrator.lab.blueprint import Blueprint
from orchestrator.lab.client import control, raise_lab, take_down
from orchestrator.lab.traffic import record
from orchestrator.operations.status import status

WARM_UP_S: Final = 3.0
DEPLOY_TIMEOUT_S: Final = 600.0
SABOTAGES: Final = ("restart-without-drain",)


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """`rate` in requests/s. `sabotage`: one of SABOTAGES, to prove that the demo can fail."""

    folder: Path
    blueprint: Blueprint = field(default_factory=lambda: Blueprint(name="demo", rps_per_instance=50.0))
    version: str = "v2"
    rate: float = 300.0
    clients: int = 150
    sabotage: str | None = None


@dataclass(slots=True)
class Moment:
    """What the live table shows: `traffic` is the generator's last progress line, `run` the deploy's row."""

    text: str = ""
    traffic: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    lab: Mapping[str, Any] | None = None


def traffic_command(
    dns: str,
    log: Path,
    *,
    rate: float,
    seed: int,
    clients: int = 60,
    seconds: float | None = None,
    curve: str = "constant",
    then: Sequence[str] = (),
    progress: bool = True,
) -> list[str]:
    """The command line of the traffic generator; it ends with its parent's standard input where asked to."""
    command = [sys.executable, "-m", "orchestrator.lab.traffic", "--resolver", dns, "--log", str(log)]
    command += ["--rate", str(rate), "--seed", str(seed), "--clients", str(clients), "--curve", curve]
    command += ["--seconds", str(seconds)] if seconds is not None else []
    command += [f"--then={step}" for step in then]
    return command + (["--progress"] if progress else [])


class Traffic:
    """The generator's process, and its last word."""

    def __init__(self, plan: DemoPlan, dns: str) -> None:
        self.log = plan.folder / "requests.csv"
        command = traffic_command(dns, self.log, rate=plan.rate, seed=plan.blueprint.seed, clients=plan.clients)
        self._child = subprocess.Popen(
            [*command, "--with-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.last: Mapping[str, Any] | None = None
        self.summary: Mapping[str, Any] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            told = json.loads(line)
            if told["kind"] == "summary":
                self.summary = told
            else:
                self.last = told

    def turn(self, rate: float) -> None:
        """Let as many requests come in a second from now on."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{rate}\n")
        self._child.stdin.flush()

    def stop(self) -> None:
        """End it; what is on its way is still counted."""
        if self._child.poll() is None:
            self._child.terminate()
        self._reader.join(10)
        self._child.wait()


def run_demo(plan: DemoPlan, show: Callable[[Moment], None]) -> dict[str, Any]:
    """Raise a lab, deploy under traffic, take the lab down, and return the report (schemas/demo.json).

    Raises FailoutError when the lab cannot be raised. Whatever happens, no process stays.
    """
    plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lab_folder = plan.folder / "lab"
    with _lab(lab_folder, plan.blueprint, show):
        traffic = Traffic(plan, control(lab_folder, "/status")["dns"])
        try:
            _warm_up(traffic, show)
            began = time.time()
            exit_code = _deploy(plan, lab_folder, traffic, show)
            ended = time.time()
            time.sleep(1.0)
        finally:
            traffic.stop()
        balancing = control(lab_folder, "/status")["balancing"]
    report = _report(plan, lab_folder, traffic, (began, ended), exit_code, balancing)
    state = read_settings(lab_folder / "failout.yaml").state
    report["page"] = str(picture.draw(state, report["deploy"]["run"], traffic.log, plan.folder))
    (plan.folder / "report.json").write_text(json.dumps(report, indent=2), "utf-8")
    return report


@contextmanager
def _lab(folder: Path, blueprint: Blueprint, show: Callable[[Moment], None]) -> Iterator[None]:
    daemon = raise_lab(folder, blueprint, lambda text: show(Moment(text)), with_parent=True)
    try:
        yield
    finally:
        with contextlib.suppress(FailoutError):
            take_down(folder)
        assert daemon.stdin is not None
        daemon.stdin.close()
        daemon.wait(20)


def _warm_up(traffic: Traffic, show: Callable[[Moment], None]) -> None:
    until = time.monotonic() + WARM_UP_S
    while time.monotonic() < until or traffic.last is None:
        show(Moment("users arrive", traffic.last))
        if time.monotonic() > until + 10:
            raise Rejected("no traffic within 13 s")
        time.sleep(0.25)


def _deploy(plan: DemoPlan, lab_folder: Path, traffic: Traffic, show: Callable[[Moment], None]) -> int:
    """Run `failout deploy` as a user would, show what happens, and return its exit code."""
    config = lab_folder / "failout.yaml"
    command = [sys.executable, "-m", "orchestrator.cli", "deploy", "--to", plan.version, "--yes", "--json"]
    command += ["--log", "json", "--reason", "demo", "--config", str(config)]
    with (plan.folder / "deploy.json").open("wb") as out, (plan.folder / "deploy.log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True)
        deadline = time.monotonic() + DEPLOY_TIMEOUT_S
        sabotage = plan.sabotage
        try:
            while child.poll() is None and time.monotonic() < deadline:
                moment = _moment(lab_folder, traffic)
                show(moment)
                if sabotage and _done_zones(moment) >= 1:
                    _restart_without_drain(config)
                    sabotage = None
                time.sleep(0.25)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait(10)
    return child.returncode


def _moment(lab_folder: Path, traffic: Traffic) -> Moment:
    settings = read_settings(lab_folder / "failout.yaml")
    run = None
    with contextlib.suppress(NotFound, Rejected), glance_at(Place.of(settings.state)) as glance:
        seen = status(glance, settings.service, datetime.now(UTC))
        run = seen["runs"][0] if seen["runs"] else seen["last"]
    return Moment("deploying", traffic.last, run, control(lab_folder, "/status"))


def _done_zones(moment: Moment) -> int:
    return sum(z["state"] == "done" for z in moment.run["zones"]) if moment.run else 0


def _restart_without_drain(config: Path) -> None:
    """What a careless script does: restart a serving zone's machines through the cloud's API, without draining it."""
    from orchestrator.lab.azure.client import clients  # noqa: PLC0415

    topology = read_topology(read_settings(config).topology)
    region = next((r for r in topology.regions if r.cloud == "azure"), None)
    if region is None:
        raise Rejected("the sabotage needs an Azure region")
    azure = clients(region.api["endpoint_url"], region.front["subscription_id"])
    try:
        group, name = region.front["resource_group"], region.zones[-1].fleet["scale_set"]
        azure.compute.virtual_machine_scale_sets.begin_restart(group, name).result()
    finally:
        azure.close()


# ---- the report


def _report(
    plan: DemoPlan,
    lab_folder: Path,
    traffic: Traffic,
    during: tuple[float, float],
    exit_code: int,
    balancing: Mapping[str, int],
) -> dict[str, Any]:
    settings = read_settings(lab_folder / "failout.yaml")
    records: Sequence[Record] = []
    with contextlib.suppress(NotFound), glance_at(Place.of(settings.state)) as glance:
        runs = glance.runs(settings.service)
        run = status(glance, settings.service, datetime.now(UTC))
        records = glance.events(runs[0].id) if runs else []
    if not records:
        log = plan.folder / "deploy.log"
        last_words = log.read_text("utf-8").strip().splitlines()[-1:]
        raise Rejected(f"the deploy did not start: {' '.join(last_words)} (its log is {log})")
    deploy = run["runs"][0] if run["runs"] else run["last"]
    began = datetime.fromisoformat(deploy["started"]).timestamp()
    ended = datetime.fromisoformat(deploy["ended"]).timestamp() if deploy["ended"] else during[1]
    rows = list(record.read(traffic.log))
    counted = record.recount(rows, began, ended)
    summary = record.recount(rows)
    spans = _spans(records)
    paths = _paths(lab_folder, deploy, spans, settings.policy)
    events = critical.read_timeline(lab_folder / "timeline.jsonl")
    ttl_s = critical.ttl_waits_s(events, began, ended, float(plan.blueprint.ttl_s))
    path_s = sum(p.total_s for p in paths.values()) + ttl_s
    wall_s = ended - began
    succeeded = exit_code == 0 and deploy["status"] == "succeeded"
    return {
        "schema": 1,
        "ok": succeeded and summary.failed == 0,
        "zones": _zones(lab_folder, deploy, spans, paths),
        "requests": {
            **_requests(counted, summary),
            "latency_ms": _latency_by_phase(rows, spans),
            "retries": {"strict": plan.blueprint.strict, **balancing},
        },
        "requests_log": str(traffic.log),
        "deploy": {
            "run": deploy["run"],
            "state": deploy["status"],
            "reason": deploy["reason"],
            "started": deploy["started"],
            "ended": datetime.fromtimestamp(ended, UTC).isoformat(),
            "wall_s": round(wall_s, 2),
            "critical_path_s": round(path_s, 2),
            "wall_over_critical_path": round(wall_s / path_s, 3) if path_s else None,
            "ttl_waits_s": ttl_s,
            "exit_code": exit_code,
        },
        "records": str(plan.folder),
    }


def _requests(counted: record.Recount, summary: record.Recount) -> dict[str, Any]:
    """During the deploy, and in all."""
    return {
        "sent": counted.sent,
        "ok": counted.ok,
        "failed": counted.failed,
        "failures": counted.failures,
        "in_all": {"sent": summary.sent, "ok": summary.ok, "failed": summary.failed},
        "by_zone": {zone: asdict(s) for zone, s in counted.by_zone.items()},
        "by_version": {version: asdict(s) for version, s in counted.by_version.items()},
    }


@dataclass(frozen=True, slots=True)
class Span:
    """One effect: unix seconds."""

    zone: str
    phase: str
    began: float
    ended: float


def _spans(records: Sequence[Record]) -> list[Span]:
    return [
        Span(r.effect.zone, r.effect.kind, r.at.timestamp() - r.duration_s, r.at.timestamp())
        for r in records
        if r.effect is not None and r.effect.zone is not None
    ]


def _paths(
    lab_folder: Path, deploy: Mapping[str, Any], spans: list[Span], policy: DeployPolicy
) -> dict[str, critical.ZonePath]:
    events = critical.read_timeline(lab_folder / "timeline.jsonl")
    paths = {}
    for i, zone in enumerate(deploy["zones"]):
        mine = [s for s in spans if s.zone == zone["zone"]]
        if not mine:
            continue
        bake_s = policy.bake_s * (policy.bake_first_factor if i == 0 else 1.0)
        configured_s = len(zone["steps"]) * policy.ramp_step_s + bake_s
        since, until = mine[0].began, mine[-1].ended
        path = critical.zone_path(events, zone["zone"], since, until, configured_s)
        if path is not None:
            paths[zone["zone"]] = path
    return paths


def _zones(
    lab_folder: Path, deploy: Mapping[str, Any], spans: list[Span], paths: Mapping[str, critical.ZonePath]
) -> list[dict[str, Any]]:
    topology = read_topology(lab_folder / "topology.json")
    zones = []
    for zone in deploy["zones"]:
        phases: dict[str, float] = {}
        for span in spans:
            if span.zone == zone["zone"]:
                phases[span.phase] = round(phases.get(span.phase, 0.0) + span.ended - span.began, 2)
        path = paths.get(zone["zone"])
        zones.append(
            {
                "id": zone["zone"],
                "version": zone["to_version"] if zone["state"] == "done" else None,
                "state": zone["state"],
                "instances": topology.zone(zone["zone"]).instances,
                "seconds": phases,
                "total_s": round(sum(phases.values()), 2),
                "critical_path_s": {
                    **{k: round(v, 2) for k, v in asdict(path).items()},
                    "total_s": round(path.total_s, 2),
                }
                if path
                else None,
            }
        )
    return zones


def _latency_by_phase(rows: list[record.Row], spans: list[Span]) -> dict[str, dict[str, Any]]:
    """Users' latency while some zone was in each phase; a request belongs to the phase that it was due in."""
    by_phase: dict[str, list[record.Row]] = {}
    spans = sorted(spans, key=lambda s: s.began)
    i = 0
    for row in sorted(rows, key=lambda r: r.t):
        while i < len(spans) and spans[i].ended <= row.t:
            i += 1
        if i < len(spans) and spans[i].began <= row.t:
            by_phase.setdefault(spans[i].phase, []).append(row)
    counted = {phase: record.recount(of_phase) for phase, of_phase in by_phase.items()}
    return {
        phase: {"sent": c.sent, "failed": c.failed, "p50": c.p50_ms, "p99": c.p99_ms}
        for phase, c in sorted(counted.items())
    }
