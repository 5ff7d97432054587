"""Log lines on stderr: one a thing that happened, for people or as JSON, each with run, zone and step."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import structlog

from orchestrator.engine.carry import Log

_QUIET = {"effect-began", "run-claimed"}


def logger(kind: str) -> Log:
    """`human`, `json`, or `none`."""
    if kind == "none":
        return lambda event, /, **fields: None  # noqa: ARG005
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    render: Any = structlog.processors.JSONRenderer() if kind == "json" else _human
    log = structlog.wrap_logger(structlog.WriteLogger(sys.stderr), processors=[stamp, render])
    return log.info  # type: ignore[no-any-return]


def _human(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    """06:12:01 aws/us-east-1a  drained in 2.2 s: out: 0 of 3 instances take traffic"""
    event = fields.pop("event")
    at = datetime.fromisoformat(str(fields.pop("timestamp"))).astimezone(UTC).strftime("%H:%M:%S")
    if event in _QUIET:
        raise structlog.DropEvent
    where = str(fields.get("zone") or fields.get("run") or "")
    if event == "notice":
        rule = f" (rule {fields['rule']})" if fields.get("rule") else ""
        told = f"{fields['level'].upper()}: {fields['what']}: {fields['evidence']}{rule}"
        return f"{at} {where:<18} {told}{_next(fields.get('next_command'))}"
    took = f" in {fields['duration_s']:.1f} s" if fields.get("duration_s") else ""
    told = fields.get("evidence") or fields.get("reason") or fields.get("error") or fields.get("message") or ""
    return f"{at} {where:<18} {event}{took}{': ' if told else ''}{told}{_next(fields.get('next'))}"


def _next(command: object) -> str:
    return f"; next: {command}" if command else ""
