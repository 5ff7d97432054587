"""Checkers of what is done and when: what people said, what was recorded, who was told. They see writes, not only the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import msgspec

from orchestrator.engine.ports import Lease
from orchestrator.sim.checkers import (
    DETECT_S,
    GONE,
    SLACK,
    WHOLE,
    Edges,
    disturbed,
    found_sick,
    serves,
)
from orchestrator.sim.truth import WELL, Box, Life, ZoneTruth
from orchestrator.sim.world import World

STOPS_WITHIN_S = 15.0  # a call under way, a load being measured: what a switch cannot call back
CALL_S = 3.5  # the slowest call
QUIET_S = 30.0  # on top of the longest effect


class Deed(msgspec.Struct, frozen=True):
    """A process is about to change something through a port. `intended`: its run's row names an effect.

    `carrier` is whom the row of `run` names, seen there first at `since_s`; `stalled_until_s` when the process last woke
    up from a SIGSTOP. A reconciler's deed is no run's.
    """

    process: str
    call: str
    about: str
    intended: bool
    carrier: str | None
    since_s: float
    stalled_until_s: float
    run: str

    @classmethod
    def of_nobody(cls, process: str, call: str, about: str, stalled_until_s: float) -> Deed:
        return cls(process, call, about, False, None, 0.0, stalled_until_s, "")


class People(Protocol):
    """What people have taken upon themselves."""

    def waives(self, rule: str, zone: str) -> bool:
        """Say whether a person has overridden the rule for this zone, or evacuates it, which asks no rule."""

    def overrides(self, rule: str, zone: str) -> bool:
        """Say whether a person has overridden the rule by name for this zone."""

    def later(self, zone: str) -> frozenset[str]:
        """Say which zones have been taken out beside this one, after it."""

    def expires_s(self, zone: str) -> tuple[float, float] | None:
        """Say when a zone that is out on purpose should be back, by the clock of now, and when that first was so.

        None when nobody has it out on purpose.
        """

    def by_person(self, run: str) -> bool: ...

    def unasked(self, zone: str) -> bool:
        """Say whether a person has evacuated the zone, which is out now, and has not overridden I3."""

    def drilled(self, zone: str) -> bool:
        """Say whether a drill takes the zone out or has it out, and goes on."""


class Movers(Protocol):
    """What people and drills do with whole regions."""

    def waives(self, rule: str, region: str) -> bool: ...

    def drilled(self) -> Sequence[str]: ...

    def expires_s(self, region: str) -> tuple[float, float] | None:
        """The same as for a zone, of a region that is out."""


class Unmoved:
    def waives(self, rule: str, region: str) -> bool:  # noqa: ARG002
        return False

    def drilled(self) -> Sequence[str]:
        return ()

    def expires_s(self, region: str) -> tuple[float, float] | None:  # noqa: ARG002
        return None


class Nobody:
    def waives(self, rule: str, zone: str) -> bool:  # noqa: ARG002
        return False

    def overrides(self, rule: str, zone: str) -> bool:  # noqa: ARG002
        return False

    def later(self, zone: str) -> frozenset[str]:  # noqa: ARG002
        return frozenset()

    def expires_s(self, zone: str) -> tuple[float, float] | None:  # noqa: ARG002
        return None

    def by_person(self, run: str) -> bool:  # noqa: ARG002
        return False

    def unasked(self, zone: str) -> bool:  # noqa: ARG002
        return False

    def drilled(self, zone: str) -> bool:  # noqa: ARG002
        return False


@dataclass(slots=True, eq=False)
class DeedChecker(Edges):
    def wrote(self, world: World, deed: Deed) -> None: ...

    def told(self, world: World) -> None:
        """A person has been paged or warned."""

    def ordered(self, world: World, kind: str) -> None: ...

    def logged(self, world: World, event: str, zone: str) -> None:
        """A run has noted what came of an effect, or that it has taken up a person's order."""

    def switched(self, world: World, name: str, *, on: bool) -> None: ...

    def passes(self, world: World) -> None:
        """A second has passed."""


@dataclass(slots=True, eq=False)
class JudgedAfterwards(DeedChecker):
    """I4: a zone leaves only when what stays can carry its region's load, not what is there while it is still in.

    Projects, at the moment of leaving, the region's users onto the other zones' healthy instances; of a zone that a
    person evacuates, which asks nobody, when its run says that it is out and all is made up for. Does not verify:
    the other regions, a zone that serves nobody, one that was found sick and must leave at once, what a person
    overrides by name or puts back by hand, or what happened in the 12 s after that, a fault or a rise of load.
    """

    rule: ClassVar[str] = "I4"
    max_utilisation: float = 0.75
    people: People = field(default_factory=Nobody)

    def left(self, world: World, zone: ZoneTruth) -> None:
        nobody = not serves(world, zone) or zone.by_hand or disturbed(world, zone.region)
        sick = found_sick(world, zone)
        if zone.presence >= WHOLE or nobody or sick:
            return  # On the ramp with its whole part, without users, sick, or nobody's doing.
        if any(world.versions[box.version] != WELL for box in zone.boxes):
            return
        self._judge(world, zone, "left")

    def logged(self, world: World, event: str, zone: str) -> None:
        if event in {"prepared", "evacuated"} and self.people.unasked(zone):
            place = world.zones[zone]
            if place.region.struck_at_s < world.now_s - DETECT_S:
                self._judge(world, place, "is out and its survivors are prepared")

    def _judge(self, world: World, zone: ZoneTruth, what: str) -> None:
        self.exercised += 1
        self.clear(zone.zone.id)
        others = [z for z in zone.region.zones if z is not zone]
        carries = sum(_healthy(z) * z.zone.rps_per_instance for z in others)
        used = zone.region.rps / carries if carries else float(zone.region.rps > 1.0)
        if used > self.max_utilisation + SLACK:
            self.report(world, zone.zone.id, f"{what}; {zone.region.rps:.0f}/s on {carries:.0f}/s is {used:.2f}")


def _healthy(zone: ZoneTruth) -> int:
    """Its load balancer sends traffic there, and it answers."""
    return sum(any(t.healthy and not t.draining for t in box.targets.values()) for box in zone.boxes if box.listening)


@dataclass(slots=True, eq=False)
class NothingStaysOutSilently(DeedChecker):
    """I8: a zone or a region that is out for longer than any effect may take, while nothing is done, has been told to a person.

    A person's own order or hand counts as told, and a pause when it stops the run. What is out on purpose is back, or
    told of anew, when it first expires; a region is out while the global tier answers without it. Does not verify: that
    anybody reads it, what a notice says, that a carrier's clock tells the time, or a run whose carriers die one after
    the other, each before an effect may end.
    """

    rule: ClassVar[str] = "I8"
    longest_s: float = 180.0
    people: People = field(default_factory=Nobody)
    moves: Movers = field(default_factory=Unmoved)
    _weights: Mapping[str, int] = field(default_factory=dict)
    _acted_s: float = 0.0
    _told_s: float = float("-inf")
    _since: dict[str, float] = field(default_factory=dict)

    def left(self, world: World, zone: ZoneTruth) -> None:
        self._since[zone.zone.id] = world.now_s

    def returned(self, world: World, zone: ZoneTruth) -> None:  # noqa: ARG002
        self._since.pop(zone.zone.id, None)
        self.clear(zone.zone.id)

    def wrote(self, world: World, deed: Deed) -> None:
        if deed.run and not deed.call.startswith("store."):
            self._acted_s = world.now_s

    def told(self, world: World) -> None:
        self._told_s = world.now_s

    def ordered(self, world: World, kind: str) -> None:  # noqa: ARG002
        self._told_s = world.now_s

    def logged(self, world: World, event: str, zone: str) -> None:  # noqa: ARG002
        if event == "pause":
            self._told_s = world.now_s
        if event in {
            "run-claimed",
            "return",
        }:  # Another carrier begins the effect from its start; a region begins to come back.
            self._acted_s = world.now_s

    def switched(self, world: World, name: str, *, on: bool) -> None:  # noqa: ARG002
        self._told_s = world.now_s

    def _look_at_regions(self, world: World) -> None:
        self._weights = world.dns_weights
        for region, weight in self._weights.items():
            if not weight:
                self._since.setdefault(region, world.now_s)
            elif self._since.pop(region, None) is not None:
                self.clear(region)

    def passes(self, world: World) -> None:
        if world.dns_weights is not self._weights:
            self._look_at_regions(world)
        for zone_id, since_s in self._since.items():
            asked = self.moves if zone_id in world.regions else self.people
            expiry = asked.expires_s(zone_id)
            if expiry is not None:
                expires_s, from_s = expiry
                over = world.now_s > max(since_s, expires_s) + QUIET_S
            else:
                from_s = since_s
                over = world.now_s - max(since_s, self._acted_s) >= self.longest_s + QUIET_S
            self.exercised += over
            if over and self._told_s < from_s:
                self.report(world, zone_id, f"out since {since_s:.0f} s, and nobody has been told since {from_s:.0f} s")


@dataclass(slots=True, eq=False)
class IntentFirst(DeedChecker):
    """I11: nothing is changed unless the run's row says what is intended, and the row names whoever changes it.

    Whoever was overtaken may still finish the one call it was in: no cloud checks a number of ours. That a run ends as
    it would have ended without its crashes is judged by convergence. Does not verify: that the change is the effect's.
    """

    rule: ClassVar[str] = "I11"

    def wrote(self, world: World, deed: Deed) -> None:
        if not deed.run:
            return  # What a reconciler writes is what the document says, whoever's will that is.
        self.exercised += 1
        overtaken = deed.carrier != deed.process
        asleep = deed.stalled_until_s >= world.now_s - STOPS_WITHIN_S
        if overtaken and (asleep or deed.since_s >= world.now_s - CALL_S):
            return
        if not deed.intended:
            self.report(world, deed.about, f"{deed.call} of {deed.about} though no effect is intended")
        if overtaken:
            self.report(world, deed.about, f"{deed.call} by {deed.process}, while {deed.carrier} carries the run")


@dataclass(slots=True, eq=False)
class NewestFirst(DeedChecker):
    """I12: a zone goes back to the version it had only when no zone that changed after it is still changed.

    Judged on instances as they are replaced; a zone that was upgraded once more counts from then on, though it may have
    had the version already. The zone that the run has in hand when a person orders it, or finds sick,
    goes back first, under the same lease: it is out already. So does one that is out when the run takes it. Does not
    verify: that a rollback skips the bake; health is I2's.
    """

    rule: ClassVar[str] = "I12"
    old: str = "v1"
    _first_s: dict[str, float] = field(default_factory=dict)
    _last_s: dict[str, float] = field(default_factory=dict)
    _back: set[str] = field(default_factory=set)
    leases: Callable[[], Sequence[Lease]] = tuple
    _in_hand: set[int] = field(default_factory=set)  # fences of leases

    def ordered(self, world: World, kind: str) -> None:  # noqa: ARG002
        if kind in {"abort", "rollback"}:
            self._in_hand.update(lease.fence for lease in self.leases())

    def logged(self, world: World, event: str, zone: str) -> None:
        if event in {"unhealthy", "incomplete"} or (
            event == "admitted" and zone in world.zones and world.zones[zone].presence <= GONE
        ):
            self._in_hand.update(lease.fence for lease in self.leases() if lease.zone == zone)

    def replaced(self, world: World, box: Box) -> None:
        zone, zone_id = box.zone, box.zone.zone.id
        if zone.model != self.old:
            self._first_s.setdefault(zone_id, world.now_s)
            self._last_s[zone_id] = world.now_s
            self._back.discard(zone_id)
            return
        if zone_id in self._back or zone_id not in self._first_s:
            return
        self.exercised += 1
        self._back.add(zone_id)
        first_s, last_s = self._first_s.pop(zone_id), self._last_s.pop(zone_id)
        if any(lease.fence in self._in_hand for lease in self.leases() if lease.zone == zone_id):
            return
        for other, at_s in self._first_s.items():
            if at_s > first_s and self._last_s[other] > last_s and self._changed(world.zones[other]):
                self.report(world, zone_id, f"goes back before {other}, which changed after it")

    def upgrades(self, world: World, zone: ZoneTruth, version: str) -> None:
        if version != self.old and zone.zone.id in self._last_s:
            self._last_s[zone.zone.id] = world.now_s

    def _changed(self, zone: ZoneTruth) -> bool:
        return any(b.version != self.old and not b.leaving and b.life is Life.RUNNING for b in zone.boxes)


@dataclass(slots=True, eq=False)
class StopsWhenTold(DeedChecker):
    """I14: while the kill switch is on nothing is changed; while a freeze is on no further zone leaves.

    What was under way may end (15 s). A zone that left before the freeze is brought back, and a rollback, an abort or
    an outing that a person ordered goes on; so does a run that was about to empty its zone when it was paused, once a
    person resumes it or gives it a new target. Does not verify: automatic failovers.
    """

    rule: ClassVar[str] = "I14"
    leases: Callable[[], Sequence[Lease]] = tuple
    people: People = field(default_factory=Nobody)
    _since: dict[str, float] = field(default_factory=dict)
    _started: dict[str, int] = field(default_factory=dict)
    _going_back: bool = False
    _before: frozenset[int] = frozenset()  # fences of the leases that there were when the switch was turned
    _resumed_at_s: float = float("-inf")

    def switched(self, world: World, name: str, *, on: bool) -> None:
        if on:
            self._since[name], self._before = world.now_s, frozenset(lease.fence for lease in self.leases())
        else:
            self._since.pop(name, None)

    def ordered(self, world: World, kind: str) -> None:
        if kind in {"abort", "rollback", "retarget"}:
            self._going_back = kind != "retarget"
        if kind in {"resume", "retarget"}:
            self._resumed_at_s = world.now_s

    def passes(self, world: World) -> None:
        if self._since:
            self.exercised += any(world.now_s > since_s + STOPS_WITHIN_S for since_s in self._since.values())

    def wrote(self, world: World, deed: Deed) -> None:
        since_s = self._since.get("kill", float("inf"))
        asleep = deed.stalled_until_s >= world.now_s - STOPS_WITHIN_S
        if world.now_s > since_s + STOPS_WITHIN_S and not asleep and not self.people.by_person(deed.run):
            self.report(world, deed.about, f"{deed.call} though everything automatic was stopped at {since_s:.0f} s")

    def left(self, world: World, zone: ZoneTruth) -> None:
        zone_id = zone.zone.id
        lease = next((lease for lease in self.leases() if lease.zone == zone_id), None)
        if lease is None or self.people.by_person(lease.run):
            return
        going_on = self._started.get(zone_id) == lease.fence
        self._started[zone_id] = lease.fence
        since_s = self._since.get("freeze", float("inf"))
        let_go = lease.fence in self._before and since_s < self._resumed_at_s
        if world.now_s > since_s + STOPS_WITHIN_S and not going_on and not let_go and not self._going_back:
            self.report(world, zone_id, f"left though nothing may start since {since_s:.0f} s")
