"""A runbook that is wrong says where and names the nearest word; whatever the text, nothing else escapes."""

from __future__ import annotations

import random
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from runbooks.places import TOPOLOGY

from orchestrator.cli.root import root
from orchestrator.core.diagnosis import Diagnosis
from orchestrator.core.errors import FailoutError, NotFound, Rejected
from orchestrator.core.runbook import begin
from orchestrator.core.script import (
    CONDITIONS,
    OPERATIONS,
    Do,
    bind,
    command_of,
    duration_s,
    duration_told,
    every_step,
    fill,
)
from orchestrator.documents import parse_document, parse_look, read_document
from orchestrator.operations.runbooks import SHIPPED, find_runbook, find_runbooks, require_values

GOOD = """---
id: mend
title: Mend a zone
task: Something small
parameters:
  zone: {type: zone, says: the zone}
preconditions:
  - agents-answer
  - not zone-out zone=$zone
---
# Mend a zone

Words for people.

```failout
name: look
verify: zone-ready
zone: $zone
timeout: 30s
on_failure: goto tell
```

```text
not a step
```

```failout
name: both
parallel:
  - name: left
    wait: zone-steady
    zone: $zone
  - name: right
    verify: frozen
```

```failout
name: tell
notify: "$zone is looked at"
level: warning
```
"""
FILE = Path("mend.md")


def told(text: str) -> list[str]:
    return parse_document(text, FILE, TOPOLOGY).told()


def test_a_good_document_has_no_problem_and_its_steps_in_order() -> None:
    document = parse_document(GOOD, FILE, TOPOLOGY)
    assert [] == document.told()
    assert ["look", "both", "tell"] == [s.name for s in document.runbook.steps]
    assert [Do.WAIT, Do.VERIFY] == [s.kind for s in document.runbook.steps[1].branches]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("verify: zone-ready", "verify: zone-redy", 17, "unknown condition 'zone-redy'; did you mean 'zone-ready'?"),
        ("zone: $zone\ntimeout", "zone: $zoen\ntimeout", 18, "unknown parameter 'zoen'; did you mean 'zone'?"),
        ("zone: $zone\ntimeout", "zone: aws/us-east-1x\ntimeout", 18, "no zone 'aws/us-east-1x'; did you mean 'aws/us-east-1"),
        ("zone: $zone\ntimeout", "zoone: $zone\ntimeout", 18, "did you mean 'zone'?"),
        ("timeout: 30s", "timeout: soon", 19, "'soon' is no duration"),
        ("timeout: 30s", "timout: 30s", 19, "did you mean 'timeout'?"),
        ("goto tell", "goto tel", 17, "unknown step 'tel'; did you mean 'tell'?"),
        ("goto tell", "gto", 20, "unknown on_failure 'gto'"),
        ("level: warning", "level: warnin", 40, "did you mean 'warning'?"),
        ("type: zone", "type: zon", 6, "did you mean 'zone'?"),
        ("  - agents-answer", "  - agents-anwser", 8, "did you mean 'agents-answer'?"),
        ("task: Something small", "diagnosis: ZoneDwn", 4, "did you mean 'ZoneDown'?"),
        ("id: mend", "id: mand", 2, "must be the name of the file, 'mend'"),
        ("name: tell\n", "name: look\n", 39, "stands twice, first on line 17"),
        ("verify: zone-ready", "do: zone-ready", 17, "unknown operation 'zone-ready'"),
        ("name: look\n", "name: look\nask: really\n", 16, "a step says exactly one of"),
        ("name: look\n", "name: [look\n", 17, "not YAML"),
        ("    verify: frozen", "    verify: frozen\n    on_failure: ask", 35, "say it of the parallel step itself"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line_and_the_nearest_word(old: str, new: str, line: int, words: str) -> None:
    assert GOOD.count(old) >= 1
    problems = told(GOOD.replace(old, new, 1))
    assert any(p.startswith(f"mend.md:{line}: ") and words in p for p in problems), problems


def test_a_diagnosis_has_a_runbook_of_its_name() -> None:
    ids = set(find_runbooks(None, None))
    assert set() == {d.file_stem for d in Diagnosis} - ids


def test_at_least_twelve_runbooks_are_shipped_and_all_are_sound_for_the_lab() -> None:
    found = find_runbooks(None, TOPOLOGY)
    assert 12 <= len(found)
    assert [] == [line for document in found.values() for line in document.told()]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.md")), ids=lambda p: p.stem)
def test_what_a_runbook_tells_the_reader_is_a_command_line_that_exists(path: Path) -> None:
    """Each rendered command is parsed by the command line itself, options and all."""
    runbook = read_document(path, TOPOLOGY).require()
    values = {p.name: _example(p.type) for p in runbook.parameters}
    lines: list[str] = []
    every_step(bind(runbook, values), lambda s: lines.extend(command_of(s, runbook.id).splitlines()))
    commands = [line for line in lines if line.startswith("failout ")]
    assert commands
    for line in commands:
        _parse(line.removesuffix(" &").split("   # ")[0])


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.md")), ids=lambda p: p.stem)
def test_what_show_prints_is_what_a_run_performs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every line of prose stands there, and each fenced step as the command of the very step that a run begins with."""
    document = read_document(path, TOPOLOGY)
    values = {p.name: _example(p.type) for p in document.require().parameters}
    begun = begin(document.runbook, "run-1", "gates", values, datetime(2026, 1, 1, tzinfo=UTC)).steps
    monkeypatch.chdir(tmp_path)  # Where there is no failout.yaml.
    told = CliRunner().invoke(root, ["runbook", "show", path.stem, *(f"-p{k}={v}" for k, v in values.items())])
    assert 0 == told.exit_code, told.output
    commands = [(step.name, [f"    {line}" for line in command_of(step, path.stem).splitlines()]) for step in begun]
    shown = _blocks(told.output)
    assert [name for name, _ in commands] == [name for name, _ in shown]
    for (name, lines), (_, below) in zip(commands, shown, strict=True):
        assert lines == below[: len(lines)], name
    for part in document.parts:
        assert not isinstance(part, str) or fill(part, values) in told.output


def _blocks(output: str) -> list[tuple[str, list[str]]]:
    """`    [name], notes` and the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for line in output.splitlines():
        if line.startswith("    ["):
            found.append((line[5:].partition("]")[0], []))
        elif found:
            found[-1][1].append(line)
    return found


def _example(kind: str) -> str:
    return {"zone": "aws/us-east-1a", "region": "aws/us-east-1", "cloud": "aws", "duration": "1m"}.get(kind, "v2")


def _parse(line: str) -> None:
    command, args, context = _found(line)
    command.make_context("x", args, parent=context)


def _found(line: str) -> tuple[click.Command, list[str], click.Context]:
    """The command that the words name, and the words that are left."""
    command: click.Command = root
    args = shlex.split(line)[1:]
    context = click.Context(root, info_name="failout")
    while isinstance(command, click.Group):
        found = command.get_command(context, args[0])
        assert found is not None, line
        command, args = found, args[1:]
    return command, args, context


SAID = re.compile(r"`(failout [^`]+)`")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.md")), ids=lambda p: p.stem)
def test_every_command_that_the_text_names_can_be_typed_as_it_stands(path: Path) -> None:
    """`failout zone restore ZONE --reason WHY` parses; a bare `failout zone restore` need only be there."""
    runbook = read_document(path, TOPOLOGY).require()
    values = {p.name: _example(p.type) for p in runbook.parameters}
    text = path.read_text("utf-8")
    for line in SAID.findall(text):
        command, args, context = _found(fill(line, values))
        if args:
            command.make_context("x", args, parent=context)
    assert [] == re.findall(r"failout [a-z]+", SAID.sub("", text)), "a command stands between backquotes"


def test_commands_and_conditions_are_exactly_those_that_something_performs() -> None:
    from orchestrator.core.policy import DeployPolicy  # noqa: PLC0415
    from orchestrator.engine.memory import MemoryStore  # noqa: PLC0415
    from orchestrator.operations.checks import Checks  # noqa: PLC0415
    from orchestrator.operations.drill_steps import DrillSteps  # noqa: PLC0415
    from orchestrator.operations.runbooks import BoundOperations  # noqa: PLC0415
    from orchestrator.workflows.looking import Looker  # noqa: PLC0415

    nothing: Any = object()
    store, world = MemoryStore(), nothing
    more = {**Checks(*[nothing] * 5).bound(), **DrillSteps(*[nothing] * 4).bound()}
    assert set(OPERATIONS) == BoundOperations(world, store, DeployPolicy(), nothing, more).bound
    assert set(CONDITIONS) == Looker(world, store, DeployPolicy()).conditions


def test_parameters_are_checked_against_the_topology_before_anything_begins() -> None:
    runbook = parse_document(GOOD, FILE, TOPOLOGY).require()
    with pytest.raises(Rejected, match="did you mean 'azure/eastus-1'"):
        require_values(runbook, {"zone": "azure/eastus1"}, TOPOLOGY)
    with pytest.raises(Rejected, match="has no parameter 'zoen'"):
        bind(runbook, {"zoen": "azure/eastus-1"})
    with pytest.raises(Rejected, match="needs --param zone"):
        bind(runbook, {})


def test_a_runbook_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'deploy-held'"):
        find_runbook("deploy-hold", None, None)


def test_a_condition_by_hand_names_the_nearest_word_too() -> None:
    assert parse_look("not zone-out zone=aws/us-east-1a", TOPOLOGY).negated
    with pytest.raises(Rejected, match="did you mean 'zone-out'"):
        parse_look("zone-ot zone=aws/us-east-1a", TOPOLOGY)


def test_durations_are_read_back_as_they_are_told() -> None:
    assert [90.0, 300.0, 7200.0, 86400.0, 1.5] == [duration_s(t) for t in ("90s", "5m", "2h", "1d", "1.5")]
    for seconds in (1.0, 45.0, 60.0, 90.0, 3600.0, 172800.0):
        assert seconds == duration_s(duration_told(seconds))


@given(st.text(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_document_with_problems_at_worst(text: str) -> None:
    document = parse_document(text, FILE, TOPOLOGY)
    assert all(p.line >= 1 for p in document.problems)


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_a_damaged_document_raises_nothing_and_never_runs_an_unknown_word(seed: int) -> None:
    """Lines swapped, dropped, doubled, characters replaced: problems, or steps made of known words only."""
    chance = random.Random(seed)
    text = chance.choice([GOOD, *(p.read_text("utf-8") for p in sorted(SHIPPED.glob("*.md")))])
    for _ in range(chance.randrange(1, 6)):
        text = _damaged(text, chance)
    document = parse_document(text, FILE, TOPOLOGY)
    try:
        runbook = document.require()
    except FailoutError:
        return
    for step in runbook.steps:
        assert step.kind is not Do.DO or step.text in OPERATIONS
        assert step.look is None or step.look.condition in CONDITIONS


def _damaged(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    match chance.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(
                at,
                chance.choice(["```failout", "```", "---", "name: &a [*a]", "  - ", "\t: x", "{", "a: !!python/x y"]),
            )
        case 2:
            lines[at] = lines[at] + chance.choice([": x", " #", "$zone", "\x00", "'", '"', "&a", "\u2028"])
        case 3:
            lines.insert(at, lines[chance.randrange(len(lines))])
        case _:
            keep = chance.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:keep]
    return "\n".join(lines)


def test_check_ends_with_2_and_names_file_line_and_word_of_every_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "mend.md"
    wrong.write_text(GOOD.replace("zone-ready", "zone-redy").replace("level: warning", "level: loud"))
    told = CliRunner().invoke(root, ["runbook", "check", str(wrong)])
    assert 2 == told.exit_code
    lines = told.output.splitlines()
    assert f"{wrong}:17: unknown condition 'zone-redy'; did you mean 'zone-ready'?" == lines[0]
    assert lines[1].startswith(f"{wrong}:40: unknown level 'loud'")
