"""`failout runbook list | show | check | run | resume | progress | approve | deny | skip | pause | abort | verify | wait`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from orchestrator.cli.common import REASON, author, config_option, emit, find_config, glance, options, seconds, table
from orchestrator.core.errors import NotFound, Rejected

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.core.script import Look, Step
    from orchestrator.core.topology import Topology
    from orchestrator.documents import Document
    from orchestrator.engine.ports import Run, Store

NOT_SUCCEEDED: Final = 10
WAITS: Final = 11
param_option = click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Repeat as needed.")
log_option = click.option(
    "--log", type=click.Choice(["human", "json", "none"]), default="human", show_default=True, help="On stderr."
)


@click.group("runbook")
def command() -> None:
    """Runbooks: documents that say what you see, why, and what to do; `run` does what they say, step by step."""


def _settings(config: Path | None) -> tuple[Settings | None, Topology | None]:
    """Documents can be read without a service; places in them are checked where there is one."""
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415

    try:
        settings = read_settings(find_config(config))
        return settings, read_topology(settings.topology, settings.service)
    except NotFound:
        if config is not None:
            raise
        return None, None


def _own(settings: Settings | None) -> Path | None:
    return settings.path.parent / "runbooks" if settings else None


def _given(params: Sequence[str]) -> dict[str, str]:
    given = {}
    for text in params:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Rejected(f"--param {text!r} must be NAME=VALUE")
        given[name] = value
    return given


@command.command("list")
@config_option
@options
def list_(config: Path | None, *, as_json: bool) -> None:
    """List the runbooks: those that come with Failout, and those in `runbooks/` beside failout.yaml."""
    from orchestrator.operations.runbooks import find_runbooks  # noqa: PLC0415

    settings, topology = _settings(config)
    found = find_runbooks(_own(settings), topology)
    rows: list[dict[str, Any]] = [
        {
            "id": d.runbook.id,
            "title": d.runbook.title,
            "diagnosis": str(d.runbook.diagnosis) if d.runbook.diagnosis else None,
            "task": d.runbook.task or None,
            "parameters": [{"name": p.name, "type": str(p.type), "default": p.default} for p in d.runbook.parameters],
            "path": str(d.path),
            "sound": not d.problems,
        }
        for d in found.values()
    ]
    human = [
        (str(r["id"]), str(r["diagnosis"] or "task"), " ".join(p["name"] for p in r["parameters"]), str(r["title"]))
        for r in rows
    ]
    emit(
        {"schema": 1, "runbooks": rows},
        as_json=as_json,
        human=lambda: table(human, ("runbook", "for", "parameters", "what")),
    )


@command.command()
@click.argument("name")
@param_option
@config_option
@options
def show(name: str, params: tuple[str, ...], config: Path | None, *, as_json: bool) -> None:
    """Show a runbook as people read it: each step is the exact command line that does the same by hand."""
    from orchestrator.core.script import bind, command_of, fill  # noqa: PLC0415
    from orchestrator.operations.runbooks import find_runbook, require_values  # noqa: PLC0415

    settings, topology = _settings(config)
    document = find_runbook(name, _own(settings), topology)
    runbook = document.require()
    given = _given(params)
    if topology is not None:
        require_values(runbook, given, topology)
    standing_in = {p.name: f"${p.name}" for p in runbook.parameters if p.default is None}
    steps = bind(runbook, standing_in | given)
    commands = [{"name": s.name, "command": command_of(s, runbook.id), "line": s.line} for s in steps]
    data = {"schema": 1, "id": runbook.id, "title": runbook.title, "digest": runbook.digest, "steps": commands}
    by_name = {s.name: s for s in steps}
    values = {p.name: p.default for p in runbook.parameters if p.default is not None} | given
    emit(data, as_json=as_json, human=lambda: fill(_rendered(document, by_name), values))


def _rendered(document: Document, steps: Mapping[str, Step]) -> str:
    runbook = document.runbook
    lines = [f"{runbook.title}   ({runbook.diagnosis or 'task'}; {document.path})"]
    lines += [
        f"  {p.name} ({p.type}{f', {p.default} unless said' if p.default else ''}): {p.says}"
        for p in runbook.parameters
    ]
    first = [s for s in steps.values() if s.name.startswith("precondition-")]
    lines += [f"    {_told(s, runbook.id)}" for s in first]
    for part in document.parts:
        lines.append(part if isinstance(part, str) else f"    {_told(steps[part.name], runbook.id)}")
    return "\n".join(lines)


def _told(step: Step, runbook: str) -> str:
    from orchestrator.core.script import command_of, duration_told  # noqa: PLC0415

    notes = [f"[{step.name}]"]
    notes += [f"only when {step.when.told()}"] if step.when else []
    notes += [f"within {duration_told(step.timeout_s)}"]
    notes += [f"if not: {step.on_failure} {step.goto}".rstrip()]
    notes += [f"then: {step.then}"] if step.then else []
    return "\n    ".join([", ".join(notes), *command_of(step, runbook).splitlines()])


@command.command()
@click.argument("names", nargs=-1)
@config_option
@options
def check(names: tuple[str, ...], config: Path | None, *, as_json: bool) -> None:
    """Check runbooks (all, or NAMES, ids or files): every step, parameter and place must be known.

    Ends with 2 and `file:line: what is wrong; the nearest valid word` for each problem.
    """
    from orchestrator.operations.runbooks import find_runbook, find_runbooks  # noqa: PLC0415

    settings, topology = _settings(config)
    own = _own(settings)
    found = [find_runbook(n, own, topology) for n in names] or list(find_runbooks(own, topology).values())
    problems = [told for document in found for told in document.told()]
    steps = sum(len(d.runbook.steps) for d in found)
    data = {"schema": 1, "checked": [str(d.path) for d in found], "problems": problems}
    good = f"{len(found)} runbooks with {steps} steps are sound"
    emit(data, as_json=as_json, human=lambda: "\n".join(problems) or good)
    sys.exit(Rejected.exit_code if problems else 0)


@command.command()
@click.argument("name")
@param_option
@click.option("--dry-run", is_flag=True, help="Look at every condition, print every command, change nothing.")
@click.option("--yes", is_flag=True, help="Answer every question with yes.")
@click.option("--reason", type=REASON, help="Why; it goes into the records. Default: the runbook's title.")
@log_option
@config_option
@options
def run(
    name: str,
    params: tuple[str, ...],
    reason: str | None,
    log: str,
    config: Path | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Run a runbook and carry it here. A question is asked at the terminal, or answered from elsewhere.

    Ends with 0 when it succeeded, 10 when it failed or was aborted, 11 when it waits for a person. Killed at any moment,
    `failout runbook resume` goes on.
    """
    from orchestrator.config import read_settings, read_topology  # noqa: PLC0415
    from orchestrator.core.script import bind  # noqa: PLC0415
    from orchestrator.operations.runbooks import find_runbook, require_values, start_runbook  # noqa: PLC0415

    settings = read_settings(find_config(config))
    topology = read_topology(settings.topology, settings.service)
    document = find_runbook(name, _own(settings), topology)
    runbook, given = document.require(), _given(params)
    require_values(runbook, given, topology)
    bind(runbook, given)  # which a parameter without a value ends, here and not behind an opened state
    if dry_run:
        data = asyncio.run(_rehearse(settings, document, given))
        emit(data, as_json=as_json, human=lambda: _rehearsed(data))
        sys.exit(0 if data["ok"] else 3)
    from orchestrator.cli.carrying import run_name  # noqa: PLC0415

    async def begin(store: Store, topology: Topology) -> Run:
        return await start_runbook(
            store,
            topology,
            document,
            given,
            run=run_name(f"runbook-{runbook.id}"),
            author=author(),
            reason=reason or runbook.title,
            now=datetime.now(UTC),
        )

    _carry(settings, begin, log, yes=yes, as_json=as_json)


@command.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--retry", is_flag=True, help="Try the step again that failed.")
@click.option("--yes", is_flag=True, help="Answer every question with yes.")
@log_option
@config_option
@options
def resume(run_id: str | None, log: str, config: Path | None, *, retry: bool, yes: bool, as_json: bool) -> None:
    """Carry on with a runbook that was interrupted, paused or held; the newest, unless RUN is named."""
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.operations.kinds import require_kind  # noqa: PLC0415
    from orchestrator.operations.runbooks import order_runbook, unfinished_runbook  # noqa: PLC0415

    settings = read_settings(find_config(config))

    async def begin(store: Store, topology: Topology) -> Run:
        found = await (store.load(run_id) if run_id else unfinished_runbook(store, topology.service))
        require_kind(found, "runbook", "resume")
        if not found.finished and (found.status == "paused" or (retry and found.status == "held")):
            now = datetime.now(UTC)
            await order_runbook(store, found.id, "resume", author=author(), reason="at the terminal", now=now)
        return found

    _carry(settings, begin, log, yes=yes, as_json=as_json)


def _carry(settings: Settings, begin: Any, log: str, *, yes: bool, as_json: bool) -> None:  # noqa: ANN401
    """Carry it until it ends or waits for somebody who is not here; questions are asked in between."""
    from orchestrator.cli.carrying import carry_until  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    asker = _Asker(settings, yes=yes, interactive=sys.stdin.isatty() and sys.stderr.isatty())
    found = asyncio.run(carry_until(settings, logger(log), begin, asker.enough, quiet=log != "human"))
    data = {"schema": 1, "service": found.service, **describe_run(found, {}, datetime.now(UTC))}
    from orchestrator.cli.status import human_run  # noqa: PLC0415

    emit(data, as_json=as_json, human=lambda: human_run(data))
    sys.exit(0 if found.status == "succeeded" else NOT_SUCCEEDED if found.finished else WAITS)


class _Asker:
    """Puts a runbook's question at the terminal, or answers it with --yes; without either the process waits."""

    def __init__(self, settings: Settings, *, yes: bool, interactive: bool) -> None:
        self._settings, self._yes, self._interactive = settings, yes, interactive
        self._asked: tuple[int, int] | None = None

    def enough(self, run: Run, waits: bool) -> bool:
        if waits or run.status not in {"waiting", "held", "paused"}:
            return False
        if run.status != "waiting":
            return True
        from orchestrator.core.runbook_row import parse  # noqa: PLC0415

        step = parse(run.state).step()
        if self._yes or not self._interactive:
            if self._yes and self._asked != (run.seq, 0):
                self._asked = (run.seq, 0)
                self._post(run.id, "approve", "--yes")
            return False  # Without a terminal it waits here, carried, until somebody answers from another one.
        if step is not None and self._asked != (run.seq, 0):
            self._asked = (run.seq, 0)
            good = click.confirm(f"{step.text}", err=True)
            self._post(run.id, "approve" if good else "deny", "at the terminal")
        return False

    def _post(self, run_id: str, kind: str, reason: str) -> None:
        """In a thread of its own: this is called from within the loop that carries the run."""
        import threading  # noqa: PLC0415

        thread = threading.Thread(target=lambda: asyncio.run(_order(self._settings, run_id, kind, reason)))
        thread.start()
        thread.join()


async def _order(settings: Settings, run_id: str, kind: str, reason: str) -> int:
    from orchestrator.cli.carrying import with_store  # noqa: PLC0415
    from orchestrator.operations.runbooks import order_runbook  # noqa: PLC0415

    now = datetime.now(UTC)
    return int(
        await with_store(
            settings, lambda store: order_runbook(store, run_id, kind, author=author(), reason=reason, now=now)
        )
    )


def _answer(kind: str, help_: str) -> None:
    @command.command(kind, help=help_)
    @click.argument("run_id", metavar="RUN")
    @click.option(
        "--reason", type=REASON, default="looked at it", show_default=True, help="Why; it goes into the records."
    )
    @config_option
    @options
    def give(run_id: str, reason: str, config: Path | None, *, as_json: bool) -> None:
        from orchestrator.config import read_settings  # noqa: PLC0415

        number = asyncio.run(_order(read_settings(find_config(config)), run_id, kind, reason))
        data = {"schema": 1, "run": run_id, "order": number, "kind": kind}
        told = f"{kind} given to {run_id}\nnext: failout runbook progress {run_id}"
        emit(data, as_json=as_json, human=lambda: told + "   (if no process carries it: failout runbook resume)")


_answer("approve", "Answer a runbook's question with yes.")
_answer("deny", "Answer a runbook's question with no; what follows is the step's on_failure.")
_answer("skip", "Go on behind the step that failed.")
_answer("pause", "Stop between two steps; what a step began goes on by itself.")
_answer("abort", "End the runbook here. What a step began is a run of its own and goes on.")


@command.command()
@click.argument("run_id", metavar="RUN")
@config_option
@options
def progress(run_id: str, config: Path | None, *, as_json: bool) -> None:
    """Show a runbook's run: every step with its evidence, and everything that happened."""
    from orchestrator.cli.status import human_run  # noqa: PLC0415
    from orchestrator.operations.described import step_of  # noqa: PLC0415
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    def look(rows: Any, service: str) -> dict[str, Any]:  # noqa: ANN401
        run = rows.load(run_id)
        events = [
            {
                "at": r.at.isoformat(),
                "step": step_of(run, r),
                "event": r.event.kind,
                "seconds": round(r.duration_s, 3),
                "evidence": r.event.evidence,
            }
            for r in rows.events(run_id)
        ]
        described = describe_run(run, rows.usual(service), datetime.now(UTC), rows.switches())
        return {"schema": 1, "service": service, **described, "events": events}

    data = glance(config, look)
    lines = [
        (e["at"][11:19], e["step"] or "", e["event"], seconds(e["seconds"]) if e["seconds"] else "", e["evidence"])
        for e in data["events"]
    ]
    history = table(lines, ("at", "step", "event", "took", "evidence"))
    emit(data, as_json=as_json, human=lambda: f"{human_run(data)}\n\n{history}")


# ---- conditions by hand, and the rehearsal


def _condition(kind: str, help_: str) -> None:
    @command.command(kind, help=help_)
    @click.argument("words", nargs=-1, required=True, metavar="[not] CONDITION [NAME=VALUE]...")
    @click.option("--timeout", default="0s" if kind == "verify" else "5m", show_default=True)
    @config_option
    @options
    def ask(words: tuple[str, ...], timeout: str, config: Path | None, *, as_json: bool) -> None:
        from orchestrator.config import read_settings, read_topology  # noqa: PLC0415
        from orchestrator.core.script import duration_s  # noqa: PLC0415
        from orchestrator.documents import parse_look  # noqa: PLC0415

        settings = read_settings(find_config(config))
        look = parse_look(" ".join(words), read_topology(settings.topology, settings.service))
        try:
            so, evidence = asyncio.run(_look_for(settings, look, duration_s(timeout)))
        except ValueError as error:
            raise Rejected(f"--timeout: {error}") from None
        data = {"schema": 1, "condition": look.told(), "so": so, "evidence": evidence}
        emit(data, as_json=as_json, human=lambda: f"{'yes' if so else 'no'}: {evidence}")
        sys.exit(0 if so else NOT_SUCCEEDED)


_condition("verify", "Look at a condition once, as a runbook's `verify` does. Ends with 0 when it is so, else 10.")
_condition("wait", "Look at a condition until it is so, as a runbook's `wait` does.")


async def _look_for(settings: Settings, look: Look, timeout_s: float) -> tuple[bool, str]:
    from orchestrator.bootstrap import looker  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.engine.clock import SystemClock  # noqa: PLC0415
    from orchestrator.workflows.polling import Found, NotYet, TimedOut, look_until  # noqa: PLC0415

    async def nobody() -> bool:
        return False

    clock = SystemClock()
    eyes, began = looker(settings, logger("none")), clock.monotonic()

    async def once() -> str | NotYet:
        seen = await eyes.look(look, clock.monotonic() - began)
        return seen.evidence if seen.so else NotYet(seen.evidence)

    result = await look_until(once, clock, nobody, every_s=eyes.every_s, timeout_s=timeout_s)
    if isinstance(result, Found):
        return True, result.value
    return False, result.last if isinstance(result, TimedOut) else "interrupted"


async def _rehearse(settings: Settings, document: Document, given: Mapping[str, str]) -> dict[str, Any]:
    """What each step would do, and what its conditions say now. Preconditions decide whether it would begin."""
    from orchestrator.bootstrap import looker  # noqa: PLC0415
    from orchestrator.cli.logs import logger  # noqa: PLC0415
    from orchestrator.core.errors import FailoutError  # noqa: PLC0415
    from orchestrator.core.script import Do, bind, command_of  # noqa: PLC0415

    runbook = document.require()
    steps, rows = bind(runbook, given), []
    eyes = looker(settings, logger("none"))
    for step in steps:
        row: dict[str, Any] = {"name": step.name, "command": command_of(step, runbook.id), "now": None, "so": None}
        look = step.look if step.kind in {Do.VERIFY, Do.WAIT} else step.when
        if look is not None:
            try:
                seen = await eyes.look(look)
                row |= {"now": seen.evidence, "so": seen.so}
            except FailoutError as error:
                row |= {"now": f"nobody can tell: {error}", "so": None}
        rows.append(row)
    begins = all(r["so"] for r in rows if str(r["name"]).startswith("precondition-"))
    return {"schema": 1, "id": runbook.id, "title": runbook.title, "ok": begins, "steps": rows}


def _rehearsed(data: Mapping[str, Any]) -> str:
    lines = [f"{data['title']}: nothing was changed; it would {'begin' if data['ok'] else 'not begin'}"]
    for step in data["steps"]:
        so = {True: "yes", False: "no", None: "?"}[step["so"]]
        lines += ["", f"[{step['name']}]", *(f"    {line}" for line in step["command"].splitlines())]
        lines += [f"    now: {so}: {step['now']}"] if step["now"] else []
    return "\n".join(lines)
