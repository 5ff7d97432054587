"""Which command is for which kind of run: a run of one kind is no other, and its order would be lost or do harm."""

from __future__ import annotations

from orchestrator.core.drill_row import parse as parse_drill
from orchestrator.core.errors import Rejected
from orchestrator.core.outing_row import parse as parse_outing
from orchestrator.core.region import way_back
from orchestrator.core.region_row import parse as parse_region
from orchestrator.engine.ports import Run


def require_kind(run: Run, kind: str, verb: str, *, also: frozenset[str] = frozenset()) -> None:
    """Raise Rejected, with the command that is meant, unless `run` is a `kind`, or of a kind in `also`."""
    if run.kind != kind and run.kind not in also:
        raise Rejected(f"run {run.id} is {_a(run.kind)}, no {kind}: {command_for(run, verb)}")


def command_for(run: Run, verb: str) -> str:
    """The command that does `verb` (show, pause, resume, abort, ...) to a run of its kind, or what comes nearest."""
    match run.kind:
        case "deploy":
            return f"failout deployments {verb} {run.id}" + ("" if verb == "show" else " --reason ...")
        case "runbook":
            known = {"show": "progress", "pause": "pause", "resume": "resume"}
            return f"failout runbook {known.get(verb, 'abort')} {run.id}"
        case "drill" | "region" if verb in {"pause", "resume"}:
            return f"failout deployments {verb} {run.id} --reason ..."
        case "drill":
            wish = parse_drill(run.state).wish
            back = f"failout {'zone restore' if wish.tier == 'zone' else 'region return'} {wish.place} --reason ..."
            return f"failout drill show {run.id}" if verb == "show" else back
        case "outing" if verb != "show":
            order = verb if verb in {"pause", "resume"} else "restore"
            return f"failout zone {order} {parse_outing(run.state).zone} --reason ..."
        case "region" if verb != "show":
            return way_back(parse_region(run.state).regions)
        case _:
            return f"failout report show {run.id}"


def carrying_command(run_id: str, kind: str) -> str:
    """The command that carries an unfinished run on which no process carries."""
    named = {"deploy": "failout deploy --resume", "runbook": f"failout runbook resume {run_id}"}
    return named.get(kind, "failout serve")


def _a(kind: str) -> str:
    return f"an {kind}" if kind[:1] in "aeiou" else f"a {kind}"
