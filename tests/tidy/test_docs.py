"""Documents say only what is true today: commands exist, links lead somewhere, what is generated is fresh."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from types import ModuleType

import click
import pytest
from tidy.source import ROOT, text_of, tracked

from orchestrator import cli
from orchestrator.cli import deploy, doctor, drill, proof, sim
from orchestrator.cli.root import root
from orchestrator.core import errors

DOCUMENTS = sorted(path for path in tracked() if path.endswith(".md"))
# A command line in a code block, or in backticks within a line of prose.
LINE = re.compile(r"(?m)^(?:\$ )?(failout [^#\n]*)")
INLINE = re.compile(r"`(failout [^`]*)`")


def commands_in(text: str) -> Iterator[str]:
    for part, block in enumerate(text.split("```")):
        yield from (hit.strip() for hit in (LINE if part % 2 else INLINE).findall(block))


def why_wrong(line: str) -> str | None:
    """Walk the words down the groups, up to a pipe, an ellipsis or a comment; options must be the command's own."""
    words = shlex.split(re.split(r"\s[|&]|\.\.\.|…|\s#", line)[0])[1:]
    context, command = click.Context(root), root
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.list_commands(context):
            return f"{line!r}: there is no {name!r}"
        command = command.get_command(context, name) or root
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--version"}
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    return f"{line!r} has {unknown}" if unknown and command.name != "agent" else None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_a_document_exists(document: str) -> None:
    assert [] == [told for line in commands_in(text_of(document)) if (told := why_wrong(line))]


def test_a_command_that_is_not_there_is_noticed() -> None:
    lines = list(commands_in("Run `failout deploy --too v2`.\n```\n$ failout nope now  # x\nfailout status\n```\n"))
    assert ["failout deploy --too v2", "failout nope now", "failout status"] == lines
    assert [True, True, False] == [why_wrong(line) is not None for line in lines]


def _leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            assert inner is not None
            yield from _leaves(inner, f"{name} {word}".strip())


def test_every_command_has_json_and_debug_but_those_that_the_documents_name() -> None:
    known = {name: {opt for given in command.params for opt in given.opts} for name, command in _leaves(root)}
    without = {option: {name for name in known if option not in known[name]} for option in ("--json", "--debug")}
    assert {"--json": {"serve", "agent"}, "--debug": {"agent"}} == without
    assert "Every command but `serve` and `agent`" in text_of("README.md")
    assert "on every command but `agent`" in text_of("docs/exit-codes.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_within_the_repository_leads_somewhere(document: str) -> None:
    here = (ROOT / document).parent
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text_of(document))
    assert [] == [link for link in links if not (here / link).exists()]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(generator().DOCUMENTS))
def test_what_is_generated_is_fresh(name: str) -> None:
    assert generator().DOCUMENTS[name]() == text_of(f"docs/{name}"), "run `python docs/generate.py`"


def _codes() -> dict[int, str]:
    found = {error.exit_code: error.__name__ for error in _family(errors.FailoutError) if "exit_code" in vars(error)}
    found[cli.UNEXPECTED] = "unexpected"
    return found | {
        0: "",
        deploy.NOT_SUCCEEDED: "not succeeded",
        deploy.HELD: "held",
        proof.NOT_MET: "not met",
        drill.INTERRUPTED: "interrupted drill",
        cli.INTERRUPTED: "interrupted",
        cli.READER_GONE: "reader gone",
        cli.TERMINATED: "terminated",
    }


def _family(error: type[errors.FailoutError]) -> Iterator[type[errors.FailoutError]]:
    for child in error.__subclasses__():
        yield child
        yield from _family(child)


def test_the_exit_codes_are_those_that_the_code_has() -> None:
    rows = re.findall(r"(?m)^\| (\d+) \| ?([^|]*?) ?\|", text_of("docs/exit-codes.md"))
    assert _codes() == {int(code): name for code, name in rows}
    assert (deploy.NOT_SUCCEEDED,) * 3 == (doctor.UNFIT, sim.VIOLATED, drill.FAILED)
    assert errors.Rejected.exit_code == cli.USAGE


def test_every_command_that_says_how_it_ends_stands_in_the_row_of_that_code() -> None:
    rows = {int(code): row for code, row in re.findall(r"(?m)^\| (\d+) \|(.*)$", text_of("docs/exit-codes.md"))}
    said = {
        (name, int(code))
        for name, command in _leaves(root)
        for sentence in re.findall(r"Ends with (.*?)(?:[.] |[.]?$)", " ".join((command.help or "").split()))
        for code in re.findall(r"\b1[0-3]\b", sentence)
    }
    assert {("audit verify", 10), ("region return", 11), ("proof", 12), ("drill run", 13)} <= said
    assert [] == sorted((name, code) for name, code in said if f"`{name}`" not in rows[code])
