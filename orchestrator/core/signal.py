"""What failout.yaml says of a signal: one outside opinion on the service (I15). How each is asked: orchestrator/signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from orchestrator.core.errors import Rejected

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Good when `url` answers `status`, and `contains` is in the body's first 64 KiB where it is given."""

    name: str
    url: str
    status: int = 200
    contains: str = ""
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Command:
    """Good at exit code 0, bad at 1 or 2, unknown at any other. No shell is between."""

    name: str
    argv: tuple[str, ...]
    timeout_s: float = TIMEOUT_S


SignalSpec: TypeAlias = HttpCheck | Command
# kind -> its keys besides `kind`
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("url", "status", "contains", "timeout_s"),
    "command": ("command", "timeout_s"),
}


def parse_signal(name: str, given: Mapping[str, Any]) -> SignalSpec:
    """Raises Rejected with what is wrong; whoever read the file has made sure that no key is unknown."""
    timeout_s = given.get("timeout_s", TIMEOUT_S)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 60:  # noqa: PLR2004
        raise Rejected(f"'timeout_s' must be a number up to 60, not {timeout_s!r}")
    if given["kind"] == "command":
        argv = given.get("command")
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and word for word in argv):
            raise Rejected(f"'command' must be a list of words, such as [/usr/local/bin/check, users], not {argv!r}")
        return Command(name, tuple(argv), float(timeout_s))
    url, status, contains = given.get("url"), given.get("status", 200), given.get("contains", "")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise Rejected(f"'url' must be an http or https address, not {url!r}")
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:  # noqa: PLR2004
        raise Rejected(f"'status' must be a number from 100 to 599, not {status!r}")
    if not isinstance(contains, str):
        raise Rejected(f"'contains' must be a text, not {contains!r}")
    return HttpCheck(name, url, status, contains, float(timeout_s))
