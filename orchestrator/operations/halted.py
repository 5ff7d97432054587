"""I14, I8: what the kill switch keeps still is told to a person: which run, where it stands, by which switch, what goes on.

The machines stop between two steps and say nothing, for nothing happened to them; here it is read from rows and switches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.core.drill_row import parse as parse_drill
from orchestrator.core.errors import Transient
from orchestrator.core.outing_row import parse as parse_outing
from orchestrator.core.region import where_it_stands
from orchestrator.core.region_row import parse as parse_region
from orchestrator.engine.ports import EVERY_SERVICE, Run, Store, Switch
from orchestrator.operations.kinds import command_for
from orchestrator.operations.regions import of_drill
from orchestrator.operations.switches import ends, whose
from orchestrator.ports import Clock, Notice, Notifier

AGAIN_S: Final = 900.0  # between two notices of one run that stands
RULE: Final = "I14"


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a run stands. `goes_on`: the command that lets it go on; `next_command`: that, and how to end it instead."""

    switch: Switch
    evidence: str
    goes_on: str
    next_command: str


def halted(run: Run, switches: Sequence[Switch]) -> Halt | None:
    """Say what keeps this run still; None where nothing does, or where it waits for a person or has nothing to do."""
    switch = next(
        (s for s in switches if s.on and s.name == "kill" and s.service in {run.service, EVERY_SERVICE}), None
    )
    if switch is None or not _would_act(run):
        return None
    why = f"kill is on for {whose(switch.service)}, set by {switch.author}: {switch.reason} ({RULE})"
    goes_on = ends(switch.name, switch.service)
    after = f"{goes_on}   (it goes on then; to end it instead, first: {command_for(run, 'abort')})"
    return Halt(switch, f"{_stands(run)}: {why}", goes_on, after)


def _would_act(run: Run) -> bool:
    """A person's outing goes on under the kill switch; what only stays out by a person's wish has nothing to do."""
    if run.finished or run.status in {"held", "paused"}:
        return False
    drills = run.kind in {"outing", "region"} and of_drill(run)
    return drills or (run.kind != "outing" and run.status != "out")


def _stands(run: Run) -> str:
    match run.kind:
        case "region":
            return where_it_stands(parse_region(run.state))
        case "outing":
            outing = parse_outing(run.state)
            return f"{outing.zone} stands {outing.stage}"
        case "drill":
            drill = parse_drill(run.state)
            return f"the drill of {drill.wish.place} stands {drill.phase}"
        case _:
            return f"the {run.kind} stands" + (f", with {run.zone} out" if run.zone else "")


class Halts:
    """Watches the runs that `carrier` carries. Call `look` every second or so."""

    def __init__(self, store: Store, notifier: Notifier, service: str, carrier: str) -> None:
        self._store, self._notifier, self._service, self._carrier = store, notifier, service, carrier
        self._told: dict[str, datetime] = {}  # run -> when a person was told last

    async def forever(self, clock: Clock) -> None:
        while True:
            with contextlib.suppress(Transient):  # The store is not there: look again.
                await self.look(clock.now())
            await clock.sleep(1.0)

    async def look(self, now: datetime) -> None:
        switches = [s for s in await self._store.switches() if s.on and s.name == "kill"]
        runs = await self._store.unfinished(self._service) if switches else ()
        found = {run.id: (run, halt) for run in runs if (halt := halted(run, switches)) is not None}
        self._told = {run: at for run, at in self._told.items() if run in found}
        for run, halt in found.values():
            at = self._told.get(run.id)
            if run.carrier == self._carrier and (at is None or (now - at).total_seconds() >= AGAIN_S):
                self._told[run.id] = now
                level = "page" if run.zone else "warning"  # Something is out, and nothing brings it back (I8).
                zone = run.zone if run.kind in {"deploy", "outing"} else None
                notice = Notice(level, run.id, zone, "stands", halt.evidence, RULE, halt.next_command)
                await self._notifier.notify(notice)
