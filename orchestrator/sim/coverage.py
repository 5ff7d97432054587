"""Which transitions of the shipped machines the histories have taken, of all that their tables know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from orchestrator.core.deploy import DeployState, ZoneProgress, apply, meaning
from orchestrator.core.deploy_row import DeployMachine
from orchestrator.core.deploy_table import ORDER_REFUSED, RUN_TRANSITIONS, ZONE_TRANSITIONS, E, R, RunStatus
from orchestrator.core.drill import ORDER_REFUSED as DRILL_ORDER_REFUSED
from orchestrator.core.drill import TRANSITIONS as DRILL_TRANSITIONS
from orchestrator.core.drill import DrillState
from orchestrator.core.drill_row import DrillMachine
from orchestrator.core.machine import Event, Json
from orchestrator.core.outing import OutingState
from orchestrator.core.outing import meaning as meaning_for_outing
from orchestrator.core.outing_row import OutingMachine
from orchestrator.core.outing_table import HELD, TRANSITIONS, OutingEvent, Stage
from orchestrator.core.region import ORDER_REFUSED as REGION_ORDER_REFUSED
from orchestrator.core.region import TRANSITIONS as REGION_TRANSITIONS
from orchestrator.core.region import M, Phase, RegionState
from orchestrator.core.region import meaning as meaning_for_region
from orchestrator.core.region_row import RegionMachine
from orchestrator.core.topology import ZoneState

OnMove: TypeAlias = Callable[
    [str, bool], None
]  # of a zone's outing or drill, of the deploy (""): does it wait for a person?
# What an order to the run is for each zone that it moves; any other move of a zone in its wake is a rollback's.
_OF_ORDER: Mapping[str, E] = {R.RESUME: E.RESUME, R.RETARGET: E.RETARGET}


def _nobody(zone: str, waits: bool) -> None:
    """Nobody watches."""


@dataclass(slots=True)
class WatchedMachine(DeployMachine):
    """The machine that ships, and a count of (state, event) for every transition that a zone or the run makes."""

    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    on_move: OnMove = _nobody

    def apply(self, state: DeployState, event: Event, now: datetime) -> DeployState:
        after = apply(state, event, now)
        self.taken.update(_transitions(state, event, after))
        self.on_move("", after.status is RunStatus.HELD)
        return after


@dataclass(slots=True)
class WatchedOutings(OutingMachine):
    """The same for outings; what moves no stage (a pause, a warning) is no transition."""

    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    on_move: OnMove = _nobody
    on_evacuation: Callable[[str], None] = lambda _: None

    def apply(self, state: OutingState, event: Event, now: datetime) -> OutingState:
        after = OutingMachine.apply(self, state, event, now)
        if event.kind != ORDER_REFUSED:
            kind = meaning_for_outing(state, OutingEvent(event.kind))
            if TRANSITIONS[state.stage].get(kind) is after.stage:
                self.taken[_of_outing(state.stage), kind] += 1
            self.on_move(state.zone, after.stage in HELD)
            if after.stage is Stage.EVACUATING:
                self.on_evacuation(after.zone)
        return after


@dataclass(slots=True)
class WatchedDrills(DrillMachine):
    """The same for drills."""

    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    on_move: OnMove = _nobody

    def apply(self, state: DrillState, event: Event, now: datetime) -> DrillState:
        after = DrillMachine.apply(self, state, event, now)
        if event.kind != DRILL_ORDER_REFUSED:
            self.taken[_of_drill(state.phase), event.kind] += 1
            self.on_move(state.wish.place, False)
        return after


@dataclass(slots=True)
class WatchedMoves(RegionMachine):
    """The same for whole regions."""

    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    on_evacuation: Callable[[], None] = lambda: None
    called_back: set[str] = field(
        default_factory=set
    )  # runs: what falls sick on its way back leaves again, for no drill

    def apply(self, state: RegionState, event: Event, now: datetime) -> RegionState:
        after = RegionMachine.apply(self, state, event, now)
        if event.kind != REGION_ORDER_REFUSED:
            kind = meaning_for_region(state, M(event.kind))
            if REGION_TRANSITIONS[state.phase].get(kind) is after.phase:
                self.taken[_of_region(state.phase), kind] += 1
            if kind in {M.RETURN, M.EVACUATE}:
                (self.called_back.add if kind is M.RETURN else self.called_back.discard)(state.run)
            unasked = "I3" in after.overrides or state.phase is not Phase.PREPARING
            if after.phase is Phase.LEAVING is not state.phase and unasked:
                self.on_evacuation()
        return after


def _of_outing(stage: str) -> str:
    return f"outing {stage}"


def _of_region(phase: str) -> str:
    return f"region {phase}"


def _of_drill(phase: str) -> str:
    return f"drill {phase}"


def _transitions(before: DeployState, event: Event, after: DeployState) -> Iterator[tuple[str, str]]:
    if event.kind == ORDER_REFUSED:
        return
    if event.zone is None:
        yield before.status, event.kind
        for old, new in zip(before.zones, after.zones, strict=True):
            if old.state is not new.state or old.goal != new.goal:
                rejoins = event.kind == R.SUSPEND and old.state is ZoneState.BAKING
                yield old.state, E.REJOINED if rejoins else meaning(before, old, _OF_ORDER.get(event.kind, E.SENT_BACK))
        return
    zone = before.zone(event.zone)
    yield zone.state, meaning(before, zone, E(event.kind))
    if before.status is not after.status:
        yield before.status, next(k for k, status in RUN_TRANSITIONS[before.status].items() if status is after.status)
    for old, new in _others(before, after, event.zone):
        if old.state is not new.state:
            yield old.state, E.SENT_BACK


def _others(before: DeployState, after: DeployState, zone: str) -> Iterator[tuple[ZoneProgress, ZoneProgress]]:
    return ((old, new) for old, new in zip(before.zones, after.zones, strict=True) if old.zone != zone)


def every_transition() -> frozenset[tuple[str, str]]:
    """(state, event) of the deploy's two tables, of the outing's, the drill's and the region's."""
    zones = ((str(state), str(event)) for state, events in ZONE_TRANSITIONS.items() for event in events)
    runs = ((str(status), str(event)) for status, events in RUN_TRANSITIONS.items() for event in events)
    outings = ((_of_outing(stage), str(event)) for stage, events in TRANSITIONS.items() for event in events)
    drills = ((_of_drill(phase), str(event)) for phase, events in DRILL_TRANSITIONS.items() for event in events)
    regions = ((_of_region(phase), str(event)) for phase, events in REGION_TRANSITIONS.items() for event in events)
    return frozenset((*zones, *runs, *outings, *drills, *regions))


def coverage(taken: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """`covered` of `all` transitions, and the names of those that no history took."""
    known, seen = every_transition(), {(str(state), str(event)) for state, event in taken}
    missing: list[Json] = [f"{state} {event}" for state, event in sorted(known - seen)]
    return {"covered": len(known & seen), "all": len(known), "missing": missing}
