"""`failout init` writes failout.yaml whole or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from cli.shell import Say, Shell


@pytest.mark.parametrize("force", [True, False])
def test_a_full_disk_leaves_of_failout_yaml_what_there_was(shell: Shell, *, force: bool) -> None:
    """A limit on the size of files stands for the disk."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    file = shell.folder / "failout.yaml"
    if force:
        file.write_text("service: gates\n")
    before = {path.name: path.read_text() for path in shell.folder.iterdir()}
    code, line = shell.run("init", "--service", "x", *(["--force"] if force else []), preexec_fn=full).said
    told = "failout: failout.yaml cannot be written: File too large; nothing was changed: free some space, then run it again"
    assert (5, told) == (code, line)
    assert before == {path.name: path.read_text() for path in shell.folder.iterdir()}


def test_init_replaces_what_a_link_points_to_and_keeps_who_may_read_it(say: Say, service: Shell) -> None:
    file, link = service.folder / "shared.yaml", service.folder / "failout.yaml"
    file.write_text("service: old\n")
    file.chmod(0o640)
    link.unlink()
    link.symlink_to("shared.yaml")
    assert 2 == say("init", "--service", "new").code
    assert 0 == say("init", "--service", "new", "--force").code
    assert (True, 0o640) == (link.is_symlink(), file.stat().st_mode & 0o777)
    assert 'service: "new"' in file.read_text()
    assert [] == [*service.folder.glob(".*partial")]
    assert Path("failout.yaml").resolve() == file.resolve()
