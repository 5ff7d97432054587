"""Raise, ask and take down labs by name. A lab is a folder with a daemon; the daemon's lab.json says where to ask."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from orchestrator.core.errors import NotFound, Rejected, Transient
from orchestrator.lab.blueprint import Blueprint

NAME_LENGTH: Final = 40
DOWN_TIMEOUT_S: Final = 15.0


def folder_of(home: Path, name: str) -> Path:
    """Return the folder of the lab `name`. Raises Rejected for a name that is no plain word."""
    if not name or len(name) > NAME_LENGTH or not all(c.isalnum() or c in "-_" for c in name):
        raise Rejected(f"{name!r} is no name for a lab: letters, digits, - and _ only, at most {NAME_LENGTH}")
    return home / "labs" / name


def labs(home: Path) -> list[str]:
    """Names of the labs that have a folder, up or left behind."""
    return sorted(p.parent.name for p in (home / "labs").glob("*/plan.json"))


def raise_lab(
    folder: Path, blueprint: Blueprint, tell: Callable[[str], None], *, with_parent: bool
) -> subprocess.Popen[str]:
    """Start the daemon and wait until the lab serves. `with_parent`: the lab ends when this process does.

    Raises Rejected when a lab of that name is up, or with the reason why it could not be raised.
    """
    if is_up(folder):
        raise Rejected(f"lab {folder.name} is up already; `failout lab down --name {folder.name}` takes it down")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700, parents=True)
        blueprint.write(folder)
    except OSError as error:
        raise Rejected(f"{folder} cannot be made: {error.strerror}") from error
    command = [
        sys.executable,
        "-m",
        "orchestrator.lab.daemon",
        str(folder),
        *(["--with-parent"] if with_parent else []),
    ]
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    assert daemon.stdout is not None
    for line in daemon.stdout:
        told = json.loads(line)
        if told["kind"] == "up":
            return daemon
        if told["kind"] == "failed":
            daemon.wait()
            raise Rejected(f"the lab could not be raised: {told['text']}; its log is {folder / 'daemon.log'}")
        tell(told["text"])
    code = daemon.wait()
    raise Rejected(f"the lab's daemon ended with {code} before it was up; its log is {folder / 'daemon.log'}")


def is_up(folder: Path) -> bool:
    where = _where(folder)
    if where is None:
        return False
    try:
        os.kill(int(where["pid"]), 0)
    except OSError:
        return False
    return True


def control(folder: Path, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the daemon. Raises NotFound when no such lab is up, Rejected with the daemon's reason."""
    where = _where(folder)
    if where is None or not is_up(folder):
        raise NotFound(f"no lab {folder.name!r} is up; `failout lab up --name {folder.name}` raises it")
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(where["url"] + path, data, {"authorization": f"Bearer {where['token']}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            answer: dict[str, Any] = json.load(reply)
    except urllib.error.HTTPError as error:
        told = json.load(error)
        kind = NotFound if told.get("exit_code") == NotFound.exit_code else Rejected
        raise kind(str(told.get("error"))) from None
    except OSError as error:
        raise Transient(f"lab {folder.name} does not answer: {error}") from error
    return answer


def take_down(folder: Path) -> None:
    """End the lab's daemon and with it every process of the lab; its records stay in the folder."""
    where = _where(folder)
    if where is None or not is_up(folder):
        (folder / "lab.json").unlink(missing_ok=True)
        raise NotFound(f"no lab {folder.name!r} is up")
    pid = int(where["pid"])
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while is_up(folder):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            break
        _reap(pid)
        time.sleep(0.05)


def _reap(pid: int) -> None:
    """When the daemon is our own child it stays a zombie until waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _where(folder: Path) -> dict[str, Any] | None:
    try:
        where: dict[str, Any] = json.loads((folder / "lab.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return where
