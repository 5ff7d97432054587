"""A runbook as a person runs it: the command line, answers from elsewhere, and what its records say afterwards."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from e2e.stage import Stage

from orchestrator.core.errors import FailoutError
from orchestrator.core.runbook import RunbookState, StepState
from orchestrator.core.runbook_row import parse
from orchestrator.core.script import Do, Step, command_of
from orchestrator.engine import ledger
from orchestrator.engine.ports import AuditEntry, Record, Run

# What the audit log says when an operation was called; operations that only look leave no act.
ACTS: Final = {
    "freeze": "freeze on",
    "drill run --region": "drill drain {region}",
    "unfreeze": "freeze off",
    "deploy": "deploy {version}",
    "deployments resume": "resume of ",
    "deployments rollback": "rollback of ",
    "deployments pause": "pause of ",
    "deployments abort": "abort of ",
    "zone drain": "zone drain {zone}",
    "zone evacuate": "zone evacuate {zone}",
    "zone restore": "zone restore {zone}",
    "region evacuate": "region evacuate {region}",
    "region evacuate --cloud": "region evacuate {cloud}/",
    "region return": "region return {region}",
    "region return --cloud": "region return {cloud}/",
}
BEGUN: Final = {"drill run --region": "region evacuate {region}"}  # What it begins has its reason.
LOOKS: Final = {"status", "plan", "doctor", "proof", "state backup"}


class Book:
    """One run of the runbook `name`; `process` carries it, and may be killed and followed by another."""

    def __init__(self, made: Stage, name: str, *args: str, yes: bool = False, **params: str) -> None:
        self._made, self.name, self.params = made, name, [f"-p{key}={value}" for key, value in params.items()]
        given = [*self.params, *(["--yes"] if yes else []), *args]
        self.process = made.failout("runbook", "run", name, *given, "--log", "json")
        self.started_at = self.process.started_at

    # ---- acting

    def answer(self, kind: str) -> None:
        ended = self._made.failout("runbook", kind, self.row().id, "--reason", "a test").wait(30)
        assert 0 == ended.code, ended.err

    def order(self, kind: str) -> None:
        """To a run that no process carries: the next one that does obeys."""
        self.answer(kind)
        self.resume()
        self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()

    def resume(self, *args: str) -> None:
        self.process = self._made.failout("runbook", "resume", *args, "--log", "json")

    # ---- looking

    def found(self) -> Run | None:
        with contextlib.suppress(FailoutError), self._made.glance() as rows:
            newest_first = [r for r in rows.runs(self._made.settings.service) if r.kind == "runbook"]
            return next((r for r in reversed(newest_first) if r.created_at.timestamp() >= self.started_at), None)
        return None

    def row(self) -> Run:
        found = self.found()
        assert found is not None, f"{self.name} has not begun"
        return found

    def state(self) -> RunbookState:
        return parse(self.row().state)

    def until(self, step: str, *statuses: str, timeout_s: float = 90.0) -> None:
        """Until the run stands at `step`, in one of `statuses` (a question waits, a failure is held, else it is active)."""
        deadline, last = time.monotonic() + timeout_s, "it has not begun"
        while time.monotonic() < deadline:
            run = self.found()
            if run is not None:
                state = parse(run.state)
                at = state.step()
                if at is not None and at.name == step and run.status in (statuses or {"waiting"}):
                    return
                last = f"{run.status} at {at.name if at else 'the end'}: {state.reason}"
                assert not run.finished, last
            assert self.process.process.poll() is None, f"the process ended: {last}"
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s} s at {step}: {last}")

    def told(self) -> dict[str, str]:
        """step -> what became of it, with its evidence."""
        state = self.state()
        return {s.name: f"{p.state}: {p.evidence}" for s, p in zip(state.steps, state.progress, strict=True)}

    def ends(self, status: str = "succeeded", timeout_s: float = 150.0) -> dict[str, str]:
        """Wait for the end that the document says; return each step's evidence."""
        ended = self.process.wait(timeout_s)
        run, told = self.row(), self.told()
        code = {"succeeded": 0, "failed": 10, "aborted": 10, "held": 11}[status]
        assert (code, status) == (ended.code, run.status), f"{told}\n{ended.err[-2000:]}"
        self._what_was_told_is_what_ran(run)
        return told

    def _what_was_told_is_what_ran(self, run: Run) -> None:
        """The commands of `runbook show` are those of the run, and each that was called stands in the audit log."""
        state = self.state()
        shown = json.loads(self._made.failout("runbook", "show", self.name, *self.params, "--json").wait(30).out)
        ran = [command_of(step, state.runbook) for step in state.steps]
        assert ran == [step["command"] for step in shown["steps"]]
        with self._made.glance() as rows:
            entries, events = rows.audit(), rows.events(run.id)
        assert ledger.verify(entries) is None, "the audit log is unbroken"
        assert any(e.act.startswith(f"runbook run {self.name}") and run.id in e.result for e in entries)
        for step, progress in zip(state.steps, state.progress, strict=True):
            assert progress.state is StepState.PENDING or progress.evidence, f"{step.name} has no evidence"
            if step.kind is Do.DO and step.text not in LOOKS and progress.state is not StepState.FAILED:
                assert int(progress.state is StepState.DONE) == len(_acts(step, run.id, entries)), step.name
        assert {} == {name: n for name, n in _done(events).items() if n > 1}, "no step was done twice"


def _acts(step: Step, run: str, entries: Sequence[AuditEntry]) -> list[AuditEntry]:
    """The acts of this very step; each must be the command that was printed."""
    mine = [
        e for e in entries if f"({run}.{step.name})" in e.reason and not e.result.startswith(("refused", "not done"))
    ]
    wanted, begun = ACTS[step.text].format(**step.args), BEGUN.get(step.text, "").format(**step.args)
    assert [] == [e.act for e in mine if not e.act.startswith((wanted, begun or wanted))]
    assert all(f"overriding {step.args['override']}" in e.act for e in mine if "override" in step.args)
    return [e for e in mine if e.act.startswith(wanted)]


def _done(events: Sequence[Record]) -> Counter[str]:
    return Counter(e.effect.kind for e in events if e.effect is not None and e.event.kind == "step-done")


def weights(made: Stage) -> dict[str, int]:
    """What the DNS answers with now."""
    return dict(made.timeline("dns")[-1]["weights"])


def runs(made: Stage, kind: str) -> list[Any]:
    with made.glance() as rows:
        return [r for r in rows.runs(made.settings.service) if r.kind == kind]
