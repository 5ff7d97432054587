"""`failout signal check` says what each signal says, and its exit code is what a script can go by."""

from __future__ import annotations

import pytest
from cli.shell import Shell

SETTINGS = """\
service: gates
signals:
  users: {kind: command, command: [/bin/true]}
  pages: {kind: command, command: [/bin/false]}
  nobody: {kind: command, command: [/no/such/check]}
"""


@pytest.fixture
def there(shell: Shell) -> Shell:
    (shell.folder / "failout.yaml").write_text(SETTINGS)
    return shell


def test_each_signal_is_asked_and_one_that_is_not_good_is_ten(there: Shell) -> None:
    ended = there.run("signal", "check", "--json")
    told = ended.json("signal-check")
    assert (10, False) == (ended.code, told["good"])
    assert {"users": "good", "pages": "bad", "nobody": "unknown"} == {s["name"]: s["state"] for s in told["signals"]}


def test_the_one_that_is_named_is_asked_alone(there: Shell) -> None:
    assert [0, 10, 10] == [there.run("signal", "check", name).code for name in ("users", "pages", "nobody")]


def test_a_name_that_is_not_there_is_answered_with_the_nearest(there: Shell) -> None:
    code, err = there.run("signal", "check", "user").said
    assert (4, True) == (code, err.endswith("; did you mean 'users'?")), err


def test_where_no_signal_is_named_it_says_where_to_look(shell: Shell) -> None:
    (shell.folder / "failout.yaml").write_text("service: gates\n")
    code, err = shell.run("signal", "check").said
    assert (4, True) == (code, "names no signals; `failout init` shows how they are written" in err)
