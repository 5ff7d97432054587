"""I15 in the simulated world: what has to end a drill, and that it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.sim.checkers import SLACK
from orchestrator.sim.deeds import DeedChecker, Nobody, People
from orchestrator.sim.truth import Life, RegionTruth, ZoneTruth
from orchestrator.sim.world import World

HEEDS_WITHIN_S = 30.0  # a look at every signal and every survivor with slow calls, and a carrier that dies meanwhile


@dataclass(slots=True, eq=False)
class EndsWhenItHarms(DeedChecker):
    """I15: no drill takes a zone out, or keeps it out, that has had a reason to end for 30 s.

    A reason is an outcome signal or a blocking one that is bad in truth, whatever was read of it, or that nobody could
    read for as long as policy allows; or a survivor that is lost, or a region that is full without what is out. Survivors
    in a world of which a part cannot be asked are not lost (I6). While the kill switch is on, a drill stays where it is
    (I14), and so it does while nobody reaches the state, in which every order stands. Does not verify: how soon the zone
    is whole again, or a zone that a person has taken over.
    """

    rule: ClassVar[str] = "I15"
    max_utilisation: float = 0.75
    people: People = field(default_factory=Nobody)
    wrong_for_s: Callable[[], float] = lambda: 0.0
    regions: Callable[[], Sequence[str]] = tuple
    blind: Callable[[], bool] = lambda: False  # some region cannot be asked now
    stateless: Callable[[], bool] = lambda: False  # nor the state
    _failing: dict[str, float] = field(default_factory=dict)  # what drills have out -> since when survivors fail it
    _out: set[str] = field(default_factory=set)
    _killed: bool = False
    _from_s: float = float("-inf")

    def switched(self, world: World, name: str, *, on: bool) -> None:
        if name == "kill":
            self._killed, self._from_s = on, world.now_s

    def left(self, world: World, zone: ZoneTruth) -> None:
        self._out.add(zone.zone.id)
        if self.people.drilled(zone.zone.id):
            self.exercised += 1
            self._judge(world, zone.zone.id, "left")

    def returned(self, world: World, zone: ZoneTruth) -> None:  # noqa: ARG002
        self._out.discard(zone.zone.id)
        self.clear(zone.zone.id)

    def passes(self, world: World) -> None:
        if self.stateless():
            self._from_s = world.now_s
        out = [zone_id for zone_id in sorted(self._out) if self.people.drilled(zone_id)] if self._out else []
        out += [region for region in self.regions() if not world.dns_weights[region]]
        wrong = bool(out) and self.wrong_for_s() > 0.0
        for place in out:
            self.exercised += wrong
            self._judge(world, place, "is kept out")
            self._judge_survivors(world, place)
        if self._failing:
            self._failing = {place: since_s for place, since_s in self._failing.items() if place in out}

    def _judge(self, world: World, place: str, doing: str) -> None:
        wrong_s = self.wrong_for_s()
        if wrong_s > HEEDS_WITHIN_S and self._heard(world):
            self.report(world, place, f"{doing} by a drill, {wrong_s:.0f} s after a signal gave a reason to end it")

    def _judge_survivors(self, world: World, place: str) -> None:
        zones = [place] if place in world.zones else [z.zone.id for z in world.regions[place].zones]
        why = None if self.blind() else _survivors_fail(world, zones, self.max_utilisation)
        if why is None:
            self._failing.pop(place, None)
            return
        self.exercised += 1
        lasts_s = world.now_s - self._failing.setdefault(place, world.now_s)
        if lasts_s > HEEDS_WITHIN_S and self._heard(world):
            self.report(world, place, f"is kept out by a drill, though for {lasts_s:.0f} s {why}")

    def _heard(self, world: World) -> bool:
        """Nothing that is automatic is stopped, or was until a moment ago."""
        return not self._killed and world.now_s > self._from_s + HEEDS_WITHIN_S


def _survivors_fail(world: World, out: Sequence[str], max_utilisation: float) -> str | None:
    for region in world.regions.values():
        here = [zone for zone in region.zones if zone.zone.id not in out]
        gone = next((zone.zone.id for zone in here if not _ready(zone)), None)
        if gone is not None:
            return f"its survivor {gone} is lost"
        if here and (why := _full(region, here, max_utilisation)) is not None:
            return why
    return None


def _full(region: RegionTruth, here: Sequence[ZoneTruth], max_utilisation: float) -> str | None:
    carries = sum(_ready(zone) * zone.zone.rps_per_instance for zone in here)
    missing = any(_ready(zone) < zone.desired for zone in here)
    if sum(zone.rps for zone in here) > ((max_utilisation if missing else 1.0) + SLACK) * carries:
        return f"{region.region.id} gets {region.rps:.0f}/s on {carries:.0f}/s"
    return None


def _ready(zone: ZoneTruth) -> int:
    return 0 if zone.dark else sum(b.life is Life.RUNNING and b.listening and b.ready for b in zone.boxes)
