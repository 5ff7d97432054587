"""Faults on order: what the stand-in's middleware does to calls that match a method and a path."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from orchestrator.core.errors import Rejected


class FaultKind(StrEnum):
    """THROTTLE, CONFLICT, ERROR and DENY answer instead of the API. RESET and CUT break the connection after the API acted.

    STALE answers a GET as it was answered last before the fault was set. FAIL and HANG let the call be accepted and
    spoil its long-running operation: FAIL does no work and ends Failed, HANG works and never reports the end (an instance
    refresh of AWS that hangs does no work either).
    """

    THROTTLE = "throttle"
    CONFLICT = "conflict"
    ERROR = "error"
    DENY = "deny"
    RESET = "reset"
    CUT = "cut"
    STALE = "stale"
    FAIL = "fail"
    HANG = "hang"


ANSWERS = frozenset({FaultKind.THROTTLE, FaultKind.CONFLICT, FaultKind.ERROR, FaultKind.DENY})
SPOILS = frozenset({FaultKind.FAIL, FaultKind.HANG})

# Status, code and message per kind when the fault does not say otherwise.
WORDS: dict[FaultKind, tuple[int, str, str]] = {
    FaultKind.THROTTLE: (429, "OperationNotAllowed", "The server rejected the request because too many were received."),
    FaultKind.CONFLICT: (409, "Conflict", "The request failed due to conflict with a concurrent request."),
    FaultKind.ERROR: (503, "ServerTimeout", "The request timed out. Please retry."),
    FaultKind.DENY: (403, "AuthorizationFailed", "The client does not have authorization to perform the action."),
    FaultKind.FAIL: (200, "InternalExecutionError", "An internal execution error occurred. Please retry later."),
}


@dataclass(slots=True)
class Fault:
    """Hits the next `count` calls whose method is `method` ("*": any) and whose path matches the regex `path`.

    `retry_after_s` None sends no Retry-After. `delay_s` is slept before the call is looked at; kind None only delays.
    """

    kind: FaultKind | None
    method: str = "*"
    path: str = ".*"
    count: int = 1
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    delay_s: float = 0.0

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and re.search(self.path, path, re.IGNORECASE) is not None

    def words(self) -> tuple[int, str, str]:
        status, code, message = WORDS[self.kind or FaultKind.ERROR]
        return self.status or status, self.code or code, self.message or message


class FaultDeck:
    """The faults in force, first set first used. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.hits = 0

    def add(self, fault: Fault) -> Fault:
        re.compile(fault.path)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that hits this call, and count it down."""
        with self._lock:
            for fault in self._faults:
                if fault.matches(method, path):
                    fault.count -= 1
                    self.hits += 1
                    if fault.count <= 0:
                        self._faults.remove(fault)
                    return fault
        return None

    def stale(self, path: str) -> bool:
        """Say whether reads of `path` are frozen: what is answered now must not be remembered as fresh."""
        with self._lock:
            return any(f.kind is FaultKind.STALE and f.matches("GET", path) for f in self._faults)


def fault_of(order: Mapping[str, Any]) -> Fault:
    """Read {"kind", "call" (regex of the path), "method", "count", "status", "code", "message", "retry_after_s", "delay_s"}.

    Raises Rejected.
    """
    known = {f.name for f in fields(Fault)} - {"kind", "path"}
    kind = order.get("kind")
    try:
        fault = Fault(FaultKind(kind) if kind else None, **{k: order[k] for k in known & order.keys()})
        fault.path = str(order.get("call", ".*"))
        re.compile(fault.path)
    except (ValueError, TypeError, re.error) as error:
        raise Rejected(f"no such fault: {error}; kinds are {', '.join(FaultKind)}") from None
    return fault
