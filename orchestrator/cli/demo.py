"""`failout demo`: the main job, watched live, with a report at the end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import HOME, Number, options, seconds, table
from orchestrator.core.errors import Rejected

if TYPE_CHECKING:
    from orchestrator.lab.demo import Moment


@click.command("demo")
@click.option("--rate", type=Number(10, 2000), default=300.0, show_default=True, help="Users' requests a second.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--instances", type=click.IntRange(1, 9), default=3, show_default=True, help="Instances in each zone.")
@click.option("--aws", multiple=True, default=("us-east-1:3",), show_default=True, help="REGION[:ZONES]; repeat.")
@click.option("--azure", multiple=True, default=("eastus:3",), show_default=True, help="REGION[:ZONES]; repeat.")
@click.option("--retries/--strict", default=False, help="Let load balancers retry. Strict shows users every mistake.")
@click.option(
    "--sabotage", type=click.Choice(["restart-without-drain"]), help="Restart a serving zone: the demo must fail."
)
@options
def command(
    rate: float,
    seed: int,
    instances: int,
    aws: tuple[str, ...],
    azure: tuple[str, ...],
    sabotage: str | None,
    *,
    retries: bool,
    as_json: bool,
) -> None:
    """Deploy v2 over v1 in a lab of its own: emulated AWS and Azure, real processes, real traffic.

    Ends with 0 only if the deploy succeeded and no user's request failed. Ctrl-C leaves nothing behind but the records.
    """
    from orchestrator.lab.blueprint import Blueprint, parse_regions  # noqa: PLC0415
    from orchestrator.lab.demo import DemoPlan, run_demo  # noqa: PLC0415

    blueprint = Blueprint(
        name="demo",
        regions=parse_regions(aws, azure),
        instances=instances,
        rps_per_instance=50.0,
        strict=not retries,
        seed=seed,
    )
    plan = DemoPlan(_own_folder(), blueprint, rate=rate, sabotage=sabotage)
    if as_json:
        with _interruptible(lambda _: None) as show:
            report = run_demo(plan, show)
        click.echo(json.dumps(report, indent=2))
    else:
        with _screen() as screen, _interruptible(screen) as show:
            report = run_demo(plan, show)
        click.echo(human_report(report))
    sys.exit(0 if report["ok"] else 10)


@contextmanager
def _interruptible(show: Callable[[Moment], None]) -> Iterator[Callable[[Moment], None]]:
    """Python drops an interrupt that comes while it runs a finaliser: then the next look at the deploy ends it."""
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def look(moment: Moment) -> None:
        if asked:
            raise KeyboardInterrupt
        show(moment)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield look
    finally:
        signal.signal(signal.SIGINT, before)


def _own_folder() -> Path:
    """Made at once, so that two demos that start in the same second do not share one."""
    name = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(2):
        folder = (HOME / "demo" / name).resolve()
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            name = f"{name[:15]}-{number}"
        except OSError as error:
            raise Rejected(f"{folder} cannot be made: {error.strerror}") from error
        else:
            return folder
    raise AssertionError("numbers do not end")


def _screen() -> Any:  # noqa: ANN401 - one of two context managers
    live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return LiveTable() if live else PlainLines()


class PlainLines:
    """Without a terminal: a line when something changes, and at least every two seconds."""

    def __enter__(self) -> Any:  # noqa: ANN401
        self._last, self._at, self._began = "", 0.0, time.monotonic()
        return self.show

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, moment: Moment) -> None:
        line = _headline(moment)
        now = time.monotonic()
        if line != self._last or now - self._at >= 2.0:  # noqa: PLR2004 - progress is never silent for longer
            counts = _counts(moment)
            click.echo(f"{now - self._began:6.1f} s  {line}{'  ' if counts else ''}{counts}")
            self._last, self._at = line, now


def _headline(moment: Moment) -> str:
    run = moment.run
    if not run:
        return moment.text
    active = next((z for z in run["zones"] if z["state"] not in {"waiting", "done"}), None)
    done = sum(z["state"] == "done" for z in run["zones"])
    at = f"{active['zone']} {active['state']}{_share(active)}" if active else run["status"]
    return f"{done}/{len(run['zones'])} zones done, {at}"


def _share(zone: dict[str, Any]) -> str:
    if zone["state"] != "ramping" or not zone["steps"]:
        return ""
    return f" {zone['steps'][min(zone['step'], len(zone['steps']) - 1)]:.0%}"


def _counts(moment: Moment) -> str:
    traffic = moment.traffic
    return f"{traffic['sent']} sent, {traffic['failed']} failed" if traffic else ""


class LiveTable:
    """A table that follows the deploy: what each zone does, and what its users see."""

    def __enter__(self) -> Any:  # noqa: ANN401
        from rich.live import Live  # noqa: PLC0415

        self._began = time.monotonic()
        self._live = Live(refresh_per_second=4, transient=True)
        self._live.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, moment: Moment) -> None:
        self._live.update(self._render(moment))

    def _render(self, moment: Moment) -> Any:  # noqa: ANN401 - a rich renderable
        from rich.console import Group  # noqa: PLC0415
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        run, traffic = moment.run, moment.traffic
        elapsed = time.monotonic() - self._began
        if not run:
            return Text(f"{elapsed:5.1f} s  {moment.text}  {_counts(moment)}")
        # A narrow terminal loses columns, never the names of zones.
        columns = [name for name, width in _COLUMNS.items() if self._live.console.width >= width]
        grid = Table(box=None, padding=(0, 2, 0, 0))
        for name in columns:
            grid.add_column(name, justify="left" if name in {"zone", "state", "version"} else "right", no_wrap=True)
        last = (traffic or {}).get("last", {})
        sent = sum(z["ok"] + z["failed"] for z in last.get("by_zone", {}).values()) or 1
        flights = _in_flight(moment)
        for zone in run["zones"]:
            seen = last.get("by_zone", {}).get(zone["zone"], {"ok": 0, "failed": 0, "p99_ms": None})
            count = seen["ok"] + seen["failed"]
            done = zone["state"] == "done"
            style = "green" if done else "dim" if zone["state"] == "waiting" else "bold yellow"
            cells: dict[str, Any] = {
                "zone": zone["zone"],
                "state": Text(zone["state"] + _share(zone), style),
                "version": zone["from_version"] if zone["state"] in _NOT_YET_UPGRADED else zone["to_version"],
                "share": f"{count / sent:.0%}",
                "in flight": str(flights.get(zone["zone"], 0)),
                "errors": f"{seen['failed'] / count:.2%}" if count else "-",
                "p99": f"{seen['p99_ms']:.0f} ms" if seen["p99_ms"] else "-",
            }
            grid.add_row(*(cells[name] for name in columns))
        share = _progress(run)
        bar = Table.grid(expand=True)
        bar.add_row(ProgressBar(total=1.0, completed=share))  # on its own it does not end its line
        eta = run["seconds"] / share * (1 - share) if share > 0.05 else None  # noqa: PLR2004 - too early to tell before
        told = f"{_counts(moment)}   {run['status']}   {seconds(run['seconds'])}"
        told += f"   about {seconds(eta)} left" if eta is not None and not run["ended"] else ""
        return Group(
            Text(f"failout demo: v2 over v1 under {_rate(last)}"),
            grid,
            bar,
            Text(told),
        )


_NOT_YET_UPGRADED = frozenset({"waiting", "preparing", "draining", "upgrading", "held-preparing"})
_COLUMNS = {"zone": 0, "state": 0, "share": 40, "version": 50, "p99": 60, "errors": 70, "in flight": 80}
_ORDER = (
    "waiting",
    "preparing",
    "draining",
    "upgrading",
    "verifying",
    "ramping",
    "joining",
    "baking",
    "settling",
    "done",
)


def _progress(run: Any) -> float:  # noqa: ANN401
    done = sum(_ORDER.index(z["state"]) / (len(_ORDER) - 1) if z["state"] in _ORDER else 0.5 for z in run["zones"])
    return float(done) / len(run["zones"])


def _rate(last: Any) -> str:  # noqa: ANN401
    return f"{last['sent'] / last['seconds']:.0f} requests/s" if last.get("seconds") else "traffic"


def _in_flight(moment: Moment) -> dict[str, int]:
    flights: dict[str, int] = {}
    for instance in (moment.lab or {}).get("instances", []):
        flights[instance["zone"]] = flights.get(instance["zone"], 0) + instance["in_flight"]
    return flights


def human_report(report: dict[str, Any]) -> str:
    requests, deploy = report["requests"], report["deploy"]
    phases = ("admit", "prepare", "drain", "upgrade", "verify", "ramp", "join", "bake", "settle")
    rows = [
        (
            z["id"],
            z["state"],
            z["version"] or "?",
            *(f"{z['seconds'].get(p, 0):.1f}" for p in phases),
            f"{z['total_s']:.1f}",
            f"{z['critical_path_s']['total_s']:.1f}" if z["critical_path_s"] else "-",
        )
        for z in report["zones"]
    ]
    latency = [
        (p, str(x["sent"]), str(x["failed"]), f"{x['p50'] or 0:.0f}", f"{x['p99'] or 0:.0f}")
        for p in phases
        if (x := requests["latency_ms"].get(p))
    ]
    retries = requests["retries"]
    over = deploy["wall_over_critical_path"]
    in_all = requests["in_all"]
    before_and_after = f"{in_all['sent']} and {in_all['failed']} with what came before and after"
    strict = "strict: they may not retry" if retries["strict"] else "they may retry"
    lines = [
        f"deploy {deploy['run']}: {deploy['state']} in {seconds(deploy['wall_s'])}",
        f"users: {requests['sent']} requests during the deploy, {requests['failed']} failed ({before_and_after})",
        f"load balancers: {retries['retries']} retries, {retries['redispatches']} redispatches ({strict})",
        "",
        "seconds per zone and phase",
        table(rows, ("zone", "state", "version", *phases, "total", "critical path")),
        "",
        "what users saw while a zone was in each phase, ms",
        table(latency, ("phase", "sent", "failed", "p50", "p99")),
        "",
        f"wall time {deploy['wall_s']:.1f} s over the lab's own critical path {deploy['critical_path_s']:.1f} s"
        + (f": {over:.2f}" if over else ""),
        f"every request: {report['requests_log']}",
        f"records: {report['records']}",
        f"pictures: {report['page']}",
    ]
    if requests["failures"]:
        lines.insert(2, f"failures: {requests['failures']}")
    if deploy["state"] != "succeeded":
        lines.insert(1, f"why: {deploy['reason']}")
    lines.append("OK" if report["ok"] else "NOT OK")
    return "\n".join(lines)
