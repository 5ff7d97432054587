"""Notices as log lines: what happened, to which zone, on what evidence, by which rule, and the command to run next."""

from __future__ import annotations

from orchestrator.engine.carry import Log
from orchestrator.ports import Notice


class LogNotifier:
    def __init__(self, log: Log) -> None:
        self._log = log

    async def notify(self, notice: Notice) -> None:
        self._log(
            "notice",
            level=notice.level,
            target=notice.run,
            zone=notice.zone,
            what=notice.what,
            evidence=notice.evidence,
            rule=notice.rule,
            next_command=notice.next_command,
        )
