"""Reads runbooks: Markdown that people read, with YAML front matter and fenced steps that Failout executes.

Every complaint names file and line, and the nearest valid word. What is read is only ever looked up in the closed lists
of core.script: nothing in a document is run as code or by a shell.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from orchestrator.core.diagnosis import Diagnosis
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.script import (
    CONDITIONS,
    END,
    OPERATIONS,
    STEP_TIMEOUT_S,
    Arg,
    Do,
    Look,
    OnFailure,
    Parameter,
    Runbook,
    Step,
    Type,
    Word,
    duration_s,
    places,
)
from orchestrator.core.topology import Topology

SIZE_MAX: Final = 256 * 1024
FENCE: Final = "```failout"
LEVELS: Final = ("info", "warning", "page")
_HEAD_KEYS: Final = ("id", "title", "task", "diagnosis", "parameters", "preconditions")
_STEP_KEYS: Final = ("name", "when", "timeout", "on_failure", "then", "alarm_after", "level")
_WHOLE_KEYS: Final = ("on_failure", "then", "alarm_after")  # Said of a parallel step, not of one of its branches.
_MISPLACED: Final = "a step says exactly one of " + ", ".join(Do)


@dataclass(frozen=True, slots=True)
class Problem:
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """`parts` are the prose (text) and the steps, in the order of the file. `problems` empty: it may run."""

    path: Path
    runbook: Runbook
    parts: tuple[str | Step, ...]
    problems: tuple[Problem, ...]

    def told(self) -> list[str]:
        return [f"{self.path}:{p.line}: {p.text}" for p in sorted(self.problems, key=lambda p: p.line)]

    def require(self) -> Runbook:
        """Return the runbook, or raise Rejected with every problem."""
        if self.problems:
            raise Rejected("\n".join(self.told()))
        return self.runbook


def read_document(path: Path, topology: Topology | None = None) -> Document:
    """Read one file; with `topology`, its zones, regions and clouds must be there.

    Raises NotFound, or Rejected when it is no text; what is wrong inside stands in `problems`.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no runbook {path}") from None
    except OSError as error:
        raise Rejected(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > SIZE_MAX:
        raise Rejected(f"{path} is larger than {SIZE_MAX // 1024} KiB")
    try:
        return parse_document(raw.decode("utf-8"), path, topology)
    except UnicodeDecodeError as error:
        raise Rejected(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None


def parse_document(text: str, path: Path, topology: Topology | None = None) -> Document:
    """Read a document's text; never raises."""
    return _Reader(path, known_places(topology) if topology else {}).read(text)


def parse_look(text: str, topology: Topology) -> Look:
    """One condition as a person types it: `not zone-out zone=aws/us-east-1a`. Raises Rejected with the nearest word."""
    reader = _Reader(Path("condition"), known_places(topology))
    look = reader.one_line_look(_Value(1, text=text))
    if look is None or reader.problems:
        raise Rejected("; ".join(p.text for p in reader.problems))
    return look


def known_places(topology: Topology) -> Mapping[Type, Sequence[str]]:
    """What a zone, a region or a cloud may be called in this topology."""
    return {
        Type.ZONE: [z.id for z in topology.zones()],
        Type.REGION: [r.id for r in topology.regions],
        Type.CLOUD: sorted({r.cloud for r in topology.regions}),
    }


def reason_value_is_wrong(kind: Type, text: str, known: Mapping[Type, Sequence[str]]) -> str | None:
    """Return why `text` is no value of `kind`, or None. Places are looked up where `known` has them."""
    try:
        if kind is Type.DURATION:
            duration_s(text)
        elif kind is Type.NUMBER:
            float(text)
        elif kind is not Type.TEXT and (not text or text.startswith("-") or any(c.isspace() for c in text)):
            return f"{text!r} is no {kind}"
    except ValueError as error:
        return str(error)
    if kind in known and text not in known[kind]:
        near = difflib.get_close_matches(text, known[kind], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[kind])}"
        return f"there is no {kind} {text!r}; {hint}"
    return None


# ---- YAML with lines


@dataclass(frozen=True, slots=True)
class _Value:
    """A scalar's text, a list or a mapping, and the line it stands on."""

    line: int
    text: str | None = None
    items: tuple[_Value, ...] | None = None
    keys: Mapping[str, _Value] | None = None


@dataclass(slots=True)
class _Reader:
    path: Path
    known: Mapping[Type, Sequence[str]]
    problems: list[Problem] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def bad(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, text))

    def unknown(self, line: int, what: str, word: str, known: Iterable[str]) -> None:
        words = [str(word) for word in known]
        near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words)}"
        self.bad(line, f"unknown {what} {word!r}; {hint}")

    # -- the file

    def read(self, text: str) -> Document:
        lines = text.splitlines()
        head, body_from = self._head(lines)
        title, diagnosis, task = self._say_what(head)
        self._parameters(head.get("parameters"))
        preconditions = self._preconditions(head.get("preconditions"))
        parts = self._parts(lines, body_from)
        steps = tuple(part for part in parts if isinstance(part, Step))
        self._follow(steps)
        if not steps and not self.problems:
            self.bad(len(lines) or 1, f"no step: there is no block that begins with {FENCE}")
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        book_id = self._text(head, "id")
        if book_id and self.path.stem != book_id:
            self.bad(head["id"].line, f"id {book_id!r} must be the name of the file, {self.path.stem!r}")
        runbook = Runbook(
            book_id or self.path.stem,
            title,
            diagnosis,
            task,
            tuple(self.parameters.values()),
            preconditions,
            steps,
            digest,
        )
        return Document(self.path, runbook, parts, tuple(self.problems))

    def _head(self, lines: Sequence[str]) -> tuple[Mapping[str, _Value], int]:
        if not lines or lines[0].rstrip() != "---":
            self.bad(1, "the file must begin with front matter between two lines of ---")
            return {}, 0
        end = next((i for i in range(1, len(lines)) if lines[i].rstrip() == "---"), None)
        if end is None:
            self.bad(1, "the front matter has no end: a second line of --- is missing")
            return {}, len(lines)
        head = self._mapping(lines[1:end], 2, "front matter")
        for key, value in head.items():
            if key not in _HEAD_KEYS:
                self.unknown(value.line, "key of the front matter", key, _HEAD_KEYS)
        return head, end + 1

    def _say_what(self, head: Mapping[str, _Value]) -> tuple[str, Diagnosis | None, str]:
        title, task, named = self._text(head, "title"), self._text(head, "task"), self._text(head, "diagnosis")
        for key in ("id", "title"):
            if key not in head:
                self.bad(1, f"the front matter must say {key!r}")
        if bool(task) == bool(named):
            self.bad(1, "the front matter must say either a diagnosis or a task")
        if not named:
            return title, None, task
        line = head["diagnosis"].line
        if named not in list(Diagnosis):
            self.unknown(line, "diagnosis", named, Diagnosis)
            return title, None, task
        diagnosis = Diagnosis(named)
        if self.path.stem != diagnosis.file_stem:
            self.bad(line, f"the runbook of {diagnosis} must be the file {diagnosis.file_stem}.md")
        return title, diagnosis, task

    def _text(self, head: Mapping[str, _Value], key: str) -> str:
        value = head.get(key)
        if value is not None and not value.text:
            self.bad(value.line, f"{key!r} must be a text")
        return (value.text or "") if value else ""

    def _parameters(self, given: _Value | None) -> None:
        if given is None:
            return
        if given.keys is None:
            self.bad(given.line, "'parameters' must be a mapping of names")
            return
        for name, value in given.keys.items():
            keys = value.keys or {}
            if not name.isidentifier() or not keys:
                self.bad(value.line, f"parameter {name!r} must be a plain name with a mapping: type, says, default")
                continue
            for key, sub in keys.items():
                if key not in {"type", "says", "default"}:
                    self.unknown(sub.line, f"key of parameter {name}", key, ("type", "says", "default"))
            kind = self._text(keys, "type")
            if kind not in list(Type):
                self.unknown(value.line, f"type of parameter {name}", kind, Type)
                continue
            default = keys["default"].text if "default" in keys else None
            parameter = Parameter(name, Type(kind), self._text(keys, "says"), default, value.line)
            if default is not None:
                self._typed(value.line, f"the default of {name}", default, parameter.type)
            self.parameters[name] = parameter

    def _preconditions(self, given: _Value | None) -> tuple[Look, ...]:
        if given is None:
            return ()
        if given.items is None:
            self.bad(given.line, "'preconditions' must be a list of conditions")
            return ()
        looks = (self.one_line_look(item) for item in given.items)
        return tuple(look for look in looks if look is not None)

    def _parts(self, lines: Sequence[str], start: int) -> tuple[str | Step, ...]:
        parts: list[str | Step] = []
        prose: list[str] = []
        at, other = start, ""
        while at < len(lines):
            line = lines[at]
            mark = line.strip()[:3]
            if other or not line.startswith(FENCE) or line.rstrip() != FENCE:
                if mark in {"```", "~~~"}:
                    other = "" if mark == other else other or mark
                prose.append(line)
                at += 1
                continue
            end = next((i for i in range(at + 1, len(lines)) if lines[i].rstrip() == "```"), None)
            if end is None:
                self.bad(at + 1, "this step has no end: a line of ``` is missing")
                break
            parts += ["\n".join(prose)] if prose else []
            prose = []
            step = self._step(_Value(at + 2, keys=self._mapping(lines[at + 1 : end], at + 2, "step")))
            parts += [step] if step else []
            at = end + 1
        return (*parts, *(["\n".join(prose)] if prose else []))

    # -- steps

    def _step(self, block: _Value, *, inside: bool = False) -> Step | None:
        keys = block.keys or {}
        kinds = [kind for kind in Do if kind in keys]
        if len(kinds) != 1:
            self.bad(block.line, f"{_MISPLACED}, not {' and '.join(kinds) or 'none'}")
            return None
        kind = kinds[0]
        if inside and kind in {Do.ASK, Do.PARALLEL}:
            self.bad(keys[kind].line, f"{kind!r} cannot stand inside parallel: it needs a person, or steps of its own")
            return None
        for key in [k for k in _WHOLE_KEYS if inside and k in keys]:
            self.bad(keys[key].line, f"{key!r} cannot stand inside parallel: say it of the parallel step itself")
        name = self._text(keys, "name")
        if not name or not all(c.isalnum() or c in "-_" for c in name) or name == END:
            self.bad(
                keys["name"].line if "name" in keys else block.line,
                f"a step needs a name of letters, digits and -, not {name!r}",
            )
        args = {k: v for k, v in keys.items() if k not in _STEP_KEYS and k != kind}
        step = Step(name, kind, line=keys[kind].line, **self._common(keys))
        return self._with_kind(step, keys[kind], args, inside=inside)

    def _common(self, keys: Mapping[str, _Value]) -> dict[str, Any]:
        on_failure, _, goto = self._text(keys, "on_failure").partition(" ")
        known = [str(o) for o in OnFailure if o is not OnFailure.GOTO] + ["goto NAME"]
        if on_failure and on_failure not in list(OnFailure):
            self.unknown(keys["on_failure"].line, "on_failure", on_failure, known)
            on_failure = ""
        if on_failure and (on_failure == OnFailure.GOTO) is not bool(goto):
            self.bad(keys["on_failure"].line, f"on_failure is one of {', '.join(known)}")
        level = self._text(keys, "level") or "info"
        if level not in LEVELS:
            self.unknown(keys["level"].line, "level", level, LEVELS)
        timeout = self._seconds(keys, "timeout")
        return {
            "when": self.one_line_look(keys["when"]) if "when" in keys else None,
            "timeout_s": STEP_TIMEOUT_S if timeout is None else timeout,
            "on_failure": OnFailure(on_failure) if on_failure else OnFailure.STOP,
            "goto": goto.strip(),
            "then": self._text(keys, "then"),
            "alarm_s": self._seconds(keys, "alarm_after"),
            "level": level,
        }

    def _with_kind(self, step: Step, value: _Value, args: Mapping[str, _Value], *, inside: bool) -> Step | None:
        if step.kind is Do.PARALLEL:
            self._no_more(step, args)
            if inside or not value.items:
                self.bad(value.line, "'parallel' must be a list of steps")
                return None
            branches = [self._step(item, inside=True) for item in value.items]
            return replace(step, branches=tuple(b for b in branches if b is not None))
        if not value.text:
            self.bad(value.line, f"{step.kind!r} must be a text")
            return None
        if step.kind in {Do.ASK, Do.NOTIFY}:
            self._no_more(step, args)
            self._named(value.line, value.text)
            return replace(step, text=value.text)
        negated, told = _negation(value.text)
        known = OPERATIONS if step.kind is Do.DO else CONDITIONS
        what = "operation" if step.kind is Do.DO else "condition"
        if told not in known or (negated and step.kind is Do.DO):
            self.unknown(value.line, what, value.text if step.kind is Do.DO else told, known)
            return None
        filled = self._args(value.line, told, known[told], args)
        if step.kind is Do.DO:
            return replace(step, text=told, args=filled)
        return replace(step, look=Look(told, filled, negated))

    def _no_more(self, step: Step, args: Mapping[str, _Value]) -> None:
        for key, value in args.items():
            self.unknown(value.line, f"key of a step that says {step.kind}", key, _STEP_KEYS)

    def _args(self, line: int, name: str, word: Word, given: Mapping[str, _Value]) -> dict[str, str]:
        args: dict[str, str] = {}
        for key, value in given.items():
            if key not in word.args:
                self.unknown(value.line, f"parameter of {name!r}", key, [*word.args, *_STEP_KEYS])
            elif not value.text:
                self.bad(value.line, f"{key!r} must be a text")
            else:
                args[key] = value.text
                self._argument(value.line, f"{key!r} of {name!r}", value.text, word.args[key])
        for key, arg in word.args.items():
            if arg.required and key not in given:
                self.bad(line, f"{name!r} needs {key!r} (a {arg.type})")
        return args

    def _argument(self, line: int, what: str, text: str, arg: Arg) -> None:
        named = self._named(line, text)
        if not named:
            self._typed(line, what, text, arg.type)
            return
        known = self.parameters.get(named[0])
        alone = text in {f"${named[0]}", f"${{{named[0]}}}"}
        if alone and known and arg.type not in {Type.TEXT, known.type}:
            self.bad(line, f"{what} is a {arg.type}, but parameter {named[0]!r} is a {known.type}")

    def _named(self, line: int, text: str) -> list[str]:
        """The parameters in `text`; each must be declared."""
        found = places(text)
        for name in found:
            if name not in self.parameters:
                self.unknown(line, "parameter", name, self.parameters)
        return found

    def one_line_look(self, value: _Value) -> Look | None:
        """`not zone-out zone=$zone`"""
        negated, told = _negation(value.text or "")
        name, *rest = told.split() or [""]
        if name not in CONDITIONS:
            self.unknown(value.line, "condition", name, CONDITIONS)
            return None
        pairs = [part.partition("=") for part in rest]
        given = {key: _Value(value.line, text=text) for key, _, text in pairs}
        return Look(name, self._args(value.line, name, CONDITIONS[name], given), negated)

    def _typed(self, line: int, what: str, text: str, kind: Type) -> None:
        why = reason_value_is_wrong(kind, text, self.known)
        if why:
            self.bad(line, f"{what}: {why}")

    def _seconds(self, keys: Mapping[str, _Value], key: str) -> float | None:
        text = self._text(keys, key)
        if not text:
            return None
        try:
            return duration_s(text)
        except ValueError as error:
            self.bad(keys[key].line, f"{key!r}: {error}")
            return None

    def _follow(self, steps: tuple[Step, ...]) -> None:
        """Names are unique, and every goto and then leads somewhere."""
        names: dict[str, int] = {}
        for step in (s for top in steps for s in (top, *top.branches)):
            if step.name in names:
                self.bad(step.line, f"step {step.name!r} stands twice, first on line {names[step.name]}")
            names.setdefault(step.name, step.line)
        targets = [step.name for step in steps] + [END]
        for step in steps:
            for target in filter(None, (step.goto, step.then)):
                if target not in targets:
                    self.unknown(step.line, "step", target, targets)

    # -- YAML

    def _mapping(self, lines: Sequence[str], first: int, what: str) -> Mapping[str, _Value]:
        try:
            node = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
            value = self._value(node, first, 0)
        except yaml.MarkedYAMLError as error:
            at = error.problem_mark.line if error.problem_mark else 0
            self.bad(first + at, f"this {what} is not YAML: {error.problem}")
            return {}
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.bad(first, f"this {what} is not YAML: {' '.join(str(error).split())[:120]}")
            return {}
        if value.keys is None:
            self.bad(first, f"a {what} must be a mapping of keys")
            return {}
        return value.keys

    def _value(self, node: yaml.Node | None, first: int, depth: int) -> _Value:
        if depth > 8:  # noqa: PLR2004 - deeper than any step, and an anchor may contain itself
            raise ValueError("nested too deeply")
        if node is None:
            return _Value(first)
        line = first + node.start_mark.line
        if isinstance(node, yaml.MappingNode):
            keys: dict[str, _Value] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in keys:
                    self.bad(first + key_node.start_mark.line, f"key {key!r} stands twice")
                keys[key] = replace(self._value(value_node, first, depth + 1), line=first + key_node.start_mark.line)
            return _Value(line, keys=keys)
        if isinstance(node, yaml.SequenceNode):
            return _Value(line, items=tuple(self._value(item, first, depth + 1) for item in node.value))
        return _Value(line, text=str(node.value))


def _negation(text: str) -> tuple[bool, str]:
    return (True, text[4:].strip()) if text.startswith("not ") else (False, text.strip())
