"""The error tree, split by what the caller should do.

Adapters translate at their edge with ``raise ... from``; nothing above them knows a cloud's exception.
"""

from __future__ import annotations


class FailoutError(Exception):
    """Base of every error that Failout raises on purpose. `exit_code` is what the CLI ends with."""

    exit_code = 1
    next_command: str | None = None  # what the person may run next


class Refused(FailoutError):
    """A guard said no. `rule` is the invariant (`I3`)."""

    exit_code = 3

    def __init__(self, rule: str, reason: str, *, zone: str | None = None, next_command: str | None = None) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason
        self.zone = zone
        self.next_command = next_command


class Rejected(FailoutError):
    """The input is wrong and must be mended: config, manifest, unknown zone, a request the cloud calls invalid."""

    exit_code = 2


class NotFound(Rejected):
    """Something named by the input does not exist: zone, run, version, lab."""

    exit_code = 4


class Transient(FailoutError):
    """Worth trying again: throttled, timed out, reset, a stale etag. `retry_after_s` when the far side said so."""

    exit_code = 5

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreAway(Transient):
    """The state cannot be read or written now. Whoever carries a run waits for it: no effect has failed."""


class Denied(FailoutError):
    """Credentials are missing, expired or lack a permission. A person must act; retrying will not help."""

    exit_code = 6


class NoCapacity(FailoutError):
    """The cloud has no room for the instances asked for. Another zone or cloud must carry the load."""

    exit_code = 7


class StaleCarrier(FailoutError):
    """Another process carries this run now, or its lease is gone: stop, change nothing (I1, I11)."""

    exit_code = 8


class Bug(FailoutError):
    """A state that the code promises cannot happen."""

    exit_code = 70


class IllegalTransition(Bug):
    """An event arrived that the machine's state does not expect. Nothing was changed."""
