"""What outsiders say of the service in the simulated world (I15): the truth of each signal, and the way a process reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

from orchestrator.core.drill import DrillPolicy
from orchestrator.core.errors import Transient
from orchestrator.ports import Reading
from orchestrator.sim.faults import Wire
from orchestrator.sim.world import World

USERS, OTHERS = "users", "others"
SIGNALS = (USERS, OTHERS)
WATCHED = DrillPolicy((USERS,), (OTHERS,), read_every_s=3.0, unknown_max_s=10.0)
HARMED_SHARE = 0.02  # of all requests: from here on the users' signal is bad
Said: TypeAlias = Literal["good", "bad", "unknown"]


@dataclass(frozen=True, slots=True)
class SignalTurn:
    """A signal turns bad, or cannot be read, whatever is the case with the service."""

    at_s: float
    name: str
    state: Said
    seconds: float


@dataclass(slots=True)
class Outlook:
    """The truth. `turned`: what was made of a signal from outside; else `users` is bad while users are harmed."""

    world: World
    turned: dict[str, Said] = field(default_factory=dict)
    _since: dict[str, tuple[Said, float]] = field(default_factory=dict)

    def state(self, name: str) -> Said:
        if name in self.turned:
            return self.turned[name]
        return "bad" if name == USERS and self._harmed_share() > HARMED_SHARE else "good"

    def _harmed_share(self) -> float:
        regions = self.world.regions.values()
        lost = sum(r.unrouted_rps + sum(flow.rps * flow.fail_share for flow in r.flows) for r in regions)
        return lost / max(1e-9, sum(region.rps for region in regions))

    def passes(self) -> None:
        """A second has passed: remember since when each signal says what it says."""
        for name in SIGNALS:
            said = self.state(name)
            if name not in self._since or self._since[name][0] != said:
                self._since[name] = (said, self.world.now_s)

    def wrong_for_s(self) -> float:
        """For how long a drill has had a reason to end: a signal is bad, or nobody can say for longer than it may."""
        now_s, longest_s = self.world.now_s, 0.0
        for name, (said, since_s) in self._since.items():
            patience_s = WATCHED.unknown_max_s if said == "unknown" else 0.0
            if said != "good" and self.state(name) == said:  # What has got well since the last second is no reason.
                longest_s = max(longest_s, now_s - since_s - patience_s)
        return longest_s


@dataclass(frozen=True, slots=True)
class SimSignals:
    """As one process reads them (workflows.drill_checks.Signals): late, stale, or not at all."""

    outlook: Outlook
    wire: Wire

    async def read(self, names: Sequence[str]) -> Mapping[str, Reading]:
        return {name: await self._read(name) for name in names}

    async def _read(self, name: str) -> Reading:
        try:
            said = await self.wire.read("signal.read", name, partial(self.outlook.state, name))
        except Transient as error:
            return Reading("unknown", str(error))
        return Reading(said, f"{name} is {said}")
