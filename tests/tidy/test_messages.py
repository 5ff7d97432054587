"""Every `failout ...` in a message is a command as it is typed: it exists, with its arguments, its options and what it requires."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import product

import click
import pytest
from click.exceptions import UsageError
from tidy.source import text_of, tracked

from orchestrator.cli.root import root

SOURCES = sorted(path for path in tracked() if path.startswith("orchestrator/") and path.endswith(".py"))
GIVEN = "GIVEN"  # stands for what a message fills in
# Up to where a command goes: a backtick, what follows in brackets or after a blank or two, the next sentence.
COMMAND = re.compile(r"(?<!this )(?<!no )(?<!newer )(`?)\bfailout ((?:[a-z]|GIVEN|--)[^`;\n()]*)")
END = re.compile(r"\s{2,}|\s[&#]|[,:](?:\s|$)|(?<!\.)\.(?:\s|$)|\sbrings\b")
NAME = re.compile(r"[a-z -]+")  # Within backticks, and nothing given: a command is named, not told to be run.


def texts_in(source: str) -> Iterator[tuple[int, str]]:
    """Each string of the code but docstrings and click's help; what is filled in is GIVEN, or each of its alternatives."""
    tree = ast.parse(source)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(id(node.value))
        if isinstance(node, ast.keyword) and node.arg in {"help", "short_help", "epilog"}:
            prose.update(id(inner) for inner in ast.walk(node.value))
        if isinstance(node, ast.JoinedStr):
            prose.update(id(value) for value in node.values if isinstance(value, ast.Constant))
    for node in ast.walk(tree):
        if id(node) in prose:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            for parts in product(*(_alternatives(value) for value in node.values)):
                yield node.lineno, "".join(parts)


def _alternatives(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.FormattedValue):
        return _alternatives(node.value)
    if isinstance(node, ast.IfExp):
        return _alternatives(node.body) + _alternatives(node.orelse)
    return [GIVEN]


def commands_in(source: str) -> Iterator[tuple[int, str]]:
    for line, text in texts_in(source):
        for tick, found in COMMAND.findall(text):
            typed = END.split(found, maxsplit=1)[0].strip()
            yield line, f"{typed} --help" if tick and NAME.fullmatch(typed) else typed


def why_wrong(typed: str) -> str | None:
    """Walk the words down the groups and parse the rest as click would, but for the types of values."""
    try:
        words = shlex.split(typed)
    except ValueError as error:
        return str(error)
    command: click.Command = root
    context = click.Context(root, info_name="failout")
    while isinstance(command, click.Group) and not (words and words[0].startswith("-")):
        if not words or words[0] == GIVEN:
            return None  # A group that is named, or whose command a message fills in.
        name = words.pop(0)
        inner = command.get_command(context, name) if name in command.list_commands(context) else None
        if inner is None:
            return f"there is no {name}"
        command, context = inner, click.Context(inner, parent=context)
    if words[-1:] in (["--help"], ["--version"]):
        return None
    try:
        given, rest, _ = command.make_parser(context).parse_args(words)
    except UsageError as error:
        return error.format_message()
    filled = {name for name, value in given.items() if isinstance(value, str | bool | list | tuple) and value}
    missing = [p.opts[0] for p in command.params if p.required and p.name not in filled]
    return f"lacks {', '.join(missing)}" if missing else f"takes no {rest}" if rest else None


@pytest.mark.parametrize("path", SOURCES)
def test_every_command_in_a_message_is_one_as_it_is_typed(path: str) -> None:
    found = [(line, typed, why_wrong(typed)) for line, typed in commands_in(text_of(path))]
    assert [] == [f"{path}:{line}: failout {typed}: {why}" for line, typed, why in found if why]


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ("zone restore GIVEN", True),
        ("zone restore GIVEN --reason ...", False),
        ("zone restore --reason ...", True),
        ("zone restore GIVEN GIVEN --reason ...", True),
        ("zone restore GIVEN --why ...", True),
        ("zone mend GIVEN --reason ...", True),
        ("region return --cloud GIVEN --reason ...", False),
        ("sim --seed GIVEN", False),
        ("sim --sed GIVEN", True),
        ("zone GIVEN GIVEN --reason ...", False),
    ],
)
def test_what_a_person_would_be_refused_for_is_noticed(typed: str, wrong: bool) -> None:
    assert wrong is (why_wrong(typed) is not None)


def test_commands_are_found_in_texts_with_what_is_filled_in_and_each_alternative() -> None:
    source = '''"""`failout no more`"""\nx = f"next: failout zone {'drain' if y else 'restore'} {z.id} --reason ...   (or: no)"\n'''
    found = [
        typed for _, typed in commands_in(source + 'w = "`failout init` writes one; see `failout plan --to v2`."\n')
    ]
    assert [f"zone {verb} GIVEN --reason ..." for verb in ("drain", "restore")] + [
        "init --help",
        "plan --to v2",
    ] == found
