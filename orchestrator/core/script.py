"""What a runbook's fenced steps may say: steps, parameters, and how both become the command a person would type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from orchestrator.core.diagnosis import Diagnosis
from orchestrator.core.errors import Rejected

STEP_TIMEOUT_S: Final = 300.0
_DURATION: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|m|h|d)?")
_UNIT_S: Final = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PLACE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Type(StrEnum):
    """Of a parameter, and of what an operation or condition is told."""

    ZONE = "zone"
    REGION = "region"
    CLOUD = "cloud"
    DURATION = "duration"
    VERSION = "version"
    NUMBER = "number"
    TEXT = "text"


class Do(StrEnum):
    """The kinds of a step."""

    DO = "do"
    WAIT = "wait"
    VERIFY = "verify"
    ASK = "ask"
    NOTIFY = "notify"
    PARALLEL = "parallel"


class OnFailure(StrEnum):
    STOP = "stop"
    CONTINUE = "continue"
    ASK = "ask"
    GOTO = "goto"


@dataclass(frozen=True, slots=True)
class Parameter:
    """`default` None: it must be given."""

    name: str
    type: Type
    says: str
    default: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """A condition with what it is told: `not zone-out zone=aws/us-east-1a`."""

    condition: str
    args: Mapping[str, str] = field(default_factory=dict, hash=False)
    negated: bool = False

    def told(self) -> str:
        return " ".join(["not"] * self.negated + [self.condition] + [f"{k}={v}" for k, v in self.args.items()])


@dataclass(frozen=True, slots=True)
class Step:
    """One fenced step. `text` is the operation, the question or the message; `look` what is waited for or verified.

    `alarm_s` None: the step's own p75 is the alarm. `then` names the step that follows a success: "" the next one.
    """

    name: str
    kind: Do
    text: str = ""
    args: Mapping[str, str] = field(default_factory=dict, hash=False)
    look: Look | None = None
    when: Look | None = None
    timeout_s: float = STEP_TIMEOUT_S
    on_failure: OnFailure = OnFailure.STOP
    goto: str = ""
    then: str = ""
    alarm_s: float | None = None
    level: str = "info"
    branches: tuple[Step, ...] = ()
    line: int = 0


END: Final = "end"  # As `then` or `goto`: the run ends here.


@dataclass(frozen=True, slots=True)
class Runbook:
    """A document as read. `digest` is of its text, so that records say which edition ran."""

    id: str
    title: str
    diagnosis: Diagnosis | None
    task: str
    parameters: tuple[Parameter, ...]
    preconditions: tuple[Look, ...]
    steps: tuple[Step, ...]
    digest: str

    def names(self) -> list[str]:
        return [p.name for p in self.parameters]


def duration_s(text: str) -> float:
    """`90s`, `5m`, `2h`, `1d` or plain seconds. Raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no duration; write 90s, 5m or 2h")
    return float(found[1]) * _UNIT_S[found[2]]


def duration_told(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= _UNIT_S[unit] and seconds % _UNIT_S[unit] == 0:
            return f"{seconds / _UNIT_S[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def places(text: str) -> list[str]:
    """The parameters that `text` names: `$zone` or `${zone}`."""
    return [braced or bare for braced, bare in _PLACE.findall(text)]


def fill(text: str, given: Mapping[str, str]) -> str:
    """Put the parameters in; one that is not given stays as it stands."""
    return _PLACE.sub(lambda m: given.get(m[1] or m[2], m[0]), text)


def bind(runbook: Runbook, given: Mapping[str, str]) -> tuple[Step, ...]:
    """The steps of one run, preconditions first, parameters put in. Raises Rejected for a parameter unknown or missing."""
    unknown = sorted(set(given) - set(runbook.names()))
    if unknown:
        known = ", ".join(runbook.names()) or "none"
        raise Rejected(f"runbook {runbook.id} has no parameter {unknown[0]!r}; its parameters are {known}")
    values = {p.name: given.get(p.name, p.default) for p in runbook.parameters}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise Rejected(f"runbook {runbook.id} needs --param {missing[0]}=...")
    full = {name: value for name, value in values.items() if value is not None}
    first = tuple(
        Step(f"precondition-{i}", Do.VERIFY, look=look, timeout_s=30.0)
        for i, look in enumerate(runbook.preconditions, 1)
    )
    return tuple(_filled(step, full) for step in (*first, *runbook.steps))


def _filled(step: Step, given: Mapping[str, str]) -> Step:
    def look(there: Look | None) -> Look | None:
        return replace(there, args={k: fill(v, given) for k, v in there.args.items()}) if there else None

    return replace(
        step,
        text=fill(step.text, given),
        args={k: fill(v, given) for k, v in step.args.items()},
        look=look(step.look),
        when=look(step.when),
        branches=tuple(_filled(branch, given) for branch in step.branches),
    )


@dataclass(frozen=True, slots=True)
class Arg:
    """One thing that an operation or a condition is told. `flag` "": it stands bare on the command line."""

    type: Type
    flag: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Word:
    """An operation or a condition: what it says in one line, and what it is told."""

    says: str
    args: Mapping[str, Arg] = field(default_factory=dict)
    reason: bool = False  # The command wants --reason.
    yes: bool = False  # The command asks a person unless --yes is given; a runbook has asked already.


_ZONE: Final = {"zone": Arg(Type.ZONE)}
_OUTING: Final = {**_ZONE, "expires": Arg(Type.DURATION, "--expires", required=False)}
_REGION: Final = {"region": Arg(Type.REGION)}
_CLOUD: Final = {"cloud": Arg(Type.CLOUD)}
_DRILL: Final = {
    "duration": Arg(Type.DURATION, "--duration", required=False),
    "signal": Arg(Type.TEXT, "--signal", required=False),
}
_DEPLOY: Final = {"run": Arg(Type.TEXT, required=False)}

# Failout's own operations, by the words of the command line. orchestrator/operations/runbooks.py binds each to its use case.
OPERATIONS: Final[Mapping[str, Word]] = {
    "status": Word("say what is going on"),
    "doctor": Word("look whether a deploy could work from here; fails when something is wrong"),
    "proof": Word("say how fresh and strong each zone's proof is; fails while the objective is not met"),
    "state backup": Word("copy the state to a new file", {"file": Arg(Type.TEXT)}),
    "plan": Word("say what a deploy would do, and why it would be refused", {"version": Arg(Type.VERSION, "--to")}),
    "deploy": Word(
        "deploy a version zone by zone and wait for its end",
        {"version": Arg(Type.VERSION, "--to")},
        reason=True,
        yes=True,
    ),
    "deployments pause": Word("stop the unfinished deploy between two steps", _DEPLOY, reason=True),
    "deployments resume": Word("let the unfinished deploy go on, or try again", _DEPLOY, reason=True),
    "deployments abort": Word("bring the zone of the unfinished deploy back, and end it", _DEPLOY, reason=True),
    "deployments rollback": Word("bring every zone back to the version it had", _DEPLOY, reason=True),
    "deployments retarget": Word(
        "roll another version forward over every zone, the broken one first (I13)",
        {**_DEPLOY, "version": Arg(Type.VERSION, "--to")},
        reason=True,
    ),
    "freeze": Word("start no deploy and no drill until it is taken back (I14)", reason=True),
    "unfreeze": Word("let deploys and drills start again", reason=True),
    "drill run --zone": Word(
        "take a zone out under the eyes of outside signals, and back", _ZONE | _DRILL, reason=True
    ),
    "drill run --region": Word(
        "take a region out under the eyes of outside signals, and back", _REGION | _DRILL, reason=True
    ),
    "zone drain": Word("take new traffic from a zone and wait until nothing is in flight", _OUTING, reason=True),
    "zone evacuate": Word("take a failing zone out at once; asks no guard but the lease", _OUTING, reason=True),
    "zone restore": Word("bring a zone back in steps", _ZONE, reason=True),
    "region evacuate": Word(
        "move a region's users to the other regions and wait until nobody is left",
        {**_REGION, "override": Arg(Type.TEXT, "--override", required=False)},
        reason=True,
    ),
    "region evacuate --cloud": Word(
        "move the users of all regions of a cloud elsewhere and wait until nobody is left",
        {**_CLOUD, "override": Arg(Type.TEXT, "--override", required=False)},
        reason=True,
    ),
    "region return": Word("bring an evacuated region back in steps", _REGION, reason=True),
    "region return --cloud": Word("bring the evacuated regions of a cloud back in steps", _CLOUD, reason=True),
}

# What can be waited for or verified. orchestrator/workflows/looking.py answers each; `failout runbook verify` asks by hand.
CONDITIONS: Final[Mapping[str, Word]] = {
    "zone-steady": Word("the zone's load balancer gives it its full share, every instance healthy", _ZONE),
    "zone-out": Word("no new traffic can reach the zone and nothing is in flight", _ZONE),
    "zone-ready": Word("every instance of the zone answers its region agent and is ready", _ZONE),
    "zone-sound": Word("the zone's users are served: no more errors than the gate allows", _ZONE),
    "zones-steady": Word("every zone of the service is steady"),
    "zones-ready": Word("every instance of the service is ready"),
    "users-served": Word("every zone that takes traffic serves its users: no more errors than the gate allows"),
    "can-lose-zone": Word("the survivors could carry the load of the zone now, without adding anything (I3)", _ZONE),
    "can-lose-region": Word("the other regions could carry its load, scaled if that is allowed (I3)", _REGION),
    "region-ready": Word("every instance of the region answers its region agent and is ready", _REGION),
    "region-empty": Word("no user's request reaches the region", _REGION),
    "region-serving": Word("users' requests reach every zone of the region", _REGION),
    "region-weight": Word(
        "the global tier has this weight for the region, everywhere", {**_REGION, "weight": Arg(Type.NUMBER)}
    ),
    "weights-usual": Word("the global tier has every region's usual weight, everywhere"),
    "agents-answer": Word("every region agent answers"),
    "agent-answers": Word("the region's agent answers", _REGION),
    "api-answers": Word("the cloud's management API answers for every fleet and load balancer", _CLOUD),
    "apis-answer": Word("every management API answers, the global tier's too"),
    "deploy-unfinished": Word("a deploy has not ended yet"),
    "deploy-held": Word("a deploy waits for a person"),
    "deploy-settled": Word("no deploy is under way: it has ended, or waits for a person"),
    "lease-free": Word("no run has a zone or region out (I1)"),
    "version-everywhere": Word("every instance of every zone runs the version", {"version": Arg(Type.VERSION)}),
    "release-known": Word("the release manifest is there and names every region", {"version": Arg(Type.VERSION)}),
    "frozen": Word("deploys and drills are frozen (I14)"),
    "seconds-passed": Word("so much time has passed since the step began", {"for": Arg(Type.DURATION)}),
}


def command_of(step: Step, runbook: str) -> str:
    """The exact command line that does by hand what the step does."""
    match step.kind:
        case Do.DO:
            return shlex.join(["failout", *_operation(step, runbook)])
        case Do.WAIT if step.look:
            return f"failout runbook wait {_look(step.look)} --timeout {duration_told(step.timeout_s)}"
        case Do.VERIFY if step.look:
            return f"failout runbook verify {_look(step.look)}"
        case Do.ASK:
            return f"failout runbook approve RUN   # {step.text}"
        case Do.NOTIFY:
            return f"# tell people ({step.level}): {step.text}"
        case _:
            return "\n".join(f"{command_of(branch, runbook)} &" for branch in step.branches) + "\nwait"


def _look(look: Look) -> str:
    return shlex.join(look.told().split(" "))


def _operation(step: Step, runbook: str) -> list[str]:
    word = OPERATIONS[step.text]
    command = step.text.split(" ")
    for name, arg in word.args.items():
        if name in step.args:
            command += [arg.flag, step.args[name]] if arg.flag else [step.args[name]]
    command += ["--reason", f"runbook {runbook}"] if word.reason else []
    return command + (["--yes"] if word.yes else [])


def every_step(steps: tuple[Step, ...], visit: Callable[[Step], None]) -> None:
    """Call `visit` for each step and each branch of a parallel one, in order."""
    for step in steps:
        visit(step)
        every_step(step.branches, visit)
