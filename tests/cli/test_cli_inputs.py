"""What is typed wrong, too large or empty is rejected where it is read, before anything begins."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from cli.shell import Say, Shell

from orchestrator.cli.common import Number, Text
from orchestrator.cli.root import COMMANDS, root

WHY = ("--reason", "a test")


def _commands(group: click.Group, context: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS if group is root else group.commands:
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, context, f"{path} {name}")


def test_every_reason_says_something_and_every_number_is_finite() -> None:
    wrong = [
        f"{path} {parameter.name}"
        for path, command in _commands(root, click.Context(root))
        for parameter in command.params
        if (parameter.name == "reason" and not isinstance(parameter.type, Text))
        or (parameter.type.name.startswith("float") and not isinstance(parameter.type, Number))
    ]
    assert [] == wrong


@pytest.mark.parametrize(
    "command",
    [
        "freeze",
        "unfreeze",
        "state restore copy",
        "zone drain aws/us-east-1a",
        "drill schedule remove x",
        "deploy --to v2",
    ],
)
@pytest.mark.parametrize("reason", ["", " \t"])
def test_an_empty_reason_is_no_reason(say: Say, command: str, reason: str) -> None:
    ended = say(*command.split(), "--reason", reason)
    assert 2 == ended.code
    assert "'--reason': it is empty; say why" in ended.err


@pytest.mark.parametrize("minutes", ["nan", "inf", "-inf", "1e999"])
def test_a_simulation_has_an_end(say: Say, minutes: str) -> None:
    ended = say("sim", "--minutes", minutes)
    assert (2, 1) == (ended.code, ended.err.count("\n"))
    assert "'--minutes'" in ended.err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("state prune --older-than 999999w", "--older-than is at most 36500d, a hundred years, not '999999w'"),
        ("serve --listen 127.0.0.1:99999", "--listen is ADDRESS:PORT, the port from 0 to 65535, not '127.0.0.1:99999'"),
        ("serve --listen 127.0.0.1:²", "--listen is ADDRESS:PORT, the port from 0 to 65535, not '127.0.0.1:²'"),
    ],
)
def test_what_is_too_large_is_rejected_and_makes_no_state(say: Say, service: Shell, command: str, told: str) -> None:
    assert (2, f"failout: {told}") == say(*command.split()).said
    assert not (service.folder / "state").exists()


def test_a_schedule_without_a_signal_names_its_own_command(say: Say) -> None:
    given = ("--cron", "0 10 * * tue", "--zone", "aws/us-east-1a", *WHY)
    refused = say("drill", "schedule", "add", "weekly", *given)
    wanted = "next: failout drill schedule add weekly ... --signal NAME   (or drills.outcome_signals)"
    assert (3, wanted) == (refused.code, refused.err.splitlines()[-1])
