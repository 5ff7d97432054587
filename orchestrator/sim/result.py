"""How a simulated history ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from orchestrator.sim.checkers import Violation
from orchestrator.sim.faults import Fault
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.scenario import Command
from orchestrator.sim.truth import Happening


@dataclass(frozen=True, slots=True)
class Result:
    """`events`: (effect, event) counts, for coverage; `ended_s` is virtual time."""

    seed: int
    status: str
    ended_s: float
    violations: tuple[Violation, ...]
    exercised: dict[str, int]
    faults: dict[str, int]
    harmed: dict[str, float]
    events: Counter[tuple[str, str]]
    trace: tuple[Happening, ...]
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    placed: dict[int, Fault] = field(default_factory=dict)  # what befell which call of the run
    said: tuple[Command, ...] = ()  # by people who watched
    said_of_zones: tuple[ZoneOrder, ...] = ()
