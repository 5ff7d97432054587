"""People who watch: when a run or its zone has moved on, one of them may say something within seconds.

Orders at drawn times seldom meet what lasts a second; people speak because something has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from orchestrator.core.deploy import DeployState
from orchestrator.core.topology import ZoneState
from orchestrator.operations.status import rule_to_accept
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.scenario import ORDERS, ZONE_ORDERS, Command
from orchestrator.sim.scheduler import Scheduler

ANSWERED = 0.7  # of what waits for a person
# What a person says to a run that waits once all is healed. A sick version is taken back wherever it is.
LAST_ORDERS = ("resume", "resume", "abort", "resume")
LAST_ORDERS_SICK = ("resume", "resume", "rollback", "resume", "resume")


def accepted(state: DeployState, turn: int) -> tuple[str, ...]:
    """Rules that a person overrides when that was the `turn`th order after the healing (from 0), and the deploy waits.

    I2: too few users to tell. I3, as `status` says: of two zones one may not leave the only ramp, which the other needs.
    """
    accept = rule_to_accept(state.reason)
    serving = any(zone.state is ZoneState.HELD_SERVING for zone in state.zones)
    too_much = turn > 1 and accept is not None and accept[0] == "I3"
    return (*(["I2"] if serving and turn else []), *(["I3"] if too_much else []))


@dataclass(slots=True)
class Watchers:
    """`chance`: of a word about each move, 0..1; 0: nobody watches. `said`: each word, with the time it was said at."""

    random: Random
    chance: float
    scheduler: Scheduler
    tell: Callable[[Command], None]
    tell_of_zone: Callable[[ZoneOrder], None]
    said: list[Command] = field(default_factory=list)
    said_of_zones: list[ZoneOrder] = field(default_factory=list)

    def moved(self, zone: str, waits: bool) -> None:
        """The deploy has moved, or with `zone` the outing or the drill of that zone. `waits`: it waits for a person."""
        random = self.random
        if not self.chance or random.random() >= (max(self.chance, ANSWERED) if waits else self.chance):
            return
        delay_s = random.choice((random.uniform(0, 1), random.uniform(0, 4), random.uniform(0, 15)))
        act = partial(self._tell_of_zone, zone) if zone else self._tell
        self.scheduler.after(delay_s, act)

    def _tell(self) -> None:
        order = Command(self.scheduler.now_s, self.random.choice(ORDERS), self.random.choice(("v2", "v3")))
        self.said.append(order)
        self.tell(order)

    def _tell_of_zone(self, zone: str) -> None:
        kind, lasts_s = self.random.choice((*ZONE_ORDERS, "abort")), self.random.uniform(20, 120)
        order = ZoneOrder(self.scheduler.now_s, kind, zone, lasts_s)
        self.said_of_zones.append(order)
        self.tell_of_zone(order)
