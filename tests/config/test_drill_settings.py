"""`signals:` and `drills:` of failout.yaml: what is wrong is told with its line and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config import read_settings
from orchestrator.core.drill import DrillPolicy
from orchestrator.core.errors import Rejected
from orchestrator.core.signal import Command, HttpCheck

GOOD = """\
service: gates
signals:
  users: {kind: http, url: "https://gates.example/healthz", status: 204, contains: ok, timeout_s: 2}
  pages: {kind: command, command: [/usr/local/bin/pages, gates]}
drills:
  outcome_signals: [users]
  blocking_signals: [pages]
  duration_s: 600
  read_every_s: 1
  unknown_max_s: 30
"""


def test_signals_and_drills_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "failout.yaml").write_text(GOOD)
    settings = read_settings(tmp_path / "failout.yaml")
    users = HttpCheck("users", "https://gates.example/healthz", 204, "ok", 2.0)
    assert {"users": users, "pages": Command("pages", ("/usr/local/bin/pages", "gates"))} == settings.signals
    assert DrillPolicy(("users",), ("pages",), 600.0, 1.0, 30.0) == settings.drills


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("status: 204", "stattus: 204", 3, "unknown key 'stattus' in users; did you mean 'status'?"),
        ("status: 204", "status: 1000", 3, "'status' must be a number from 100 to 599"),
        ("https://gates", "ftp://gates", 3, "'url' must be an http or https address"),
        ("kind: command", "kind: comand", 4, "'kind' is 'comand'; did you mean 'command'?"),
        ("[/usr/local/bin/pages, gates]", "pages gates", 4, "'command' must be a list of words"),
        ("timeout_s: 2", "timeout_s: 600", 3, "'timeout_s' must be a number from 0.001 to 60"),
        ("outcome_signals: [users]", "outcome_signals: [user]", 6, "there is no signal 'user'; did you mean 'users'?"),
        ("blocking_signals: [pages]", "blocking_signals: pages", 7, "must be a list of names"),
        ("duration_s", "duration", 8, "did you mean 'duration_s'?"),
        ("read_every_s: 1", "read_every_s: 0", 9, "must be a number from 0.5 to 300"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, why: str) -> None:
    (tmp_path / "failout.yaml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(Rejected) as wrong:
        read_settings(tmp_path / "failout.yaml")
    assert f"failout.yaml:{line}" in str(wrong.value)
    assert why in str(wrong.value)
