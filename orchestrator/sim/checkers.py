"""One checker per invariant. They judge what is true in the world, never what the machine believes.

They look at every change that lasts (`World.settle`). A checker that was never put to the test says so: `exercised`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.core.policy import DeployPolicy
from orchestrator.sim import load
from orchestrator.sim.truth import RAMP_POOL, STEADY_POOL, Box, Life, RegionTruth, ZoneTruth
from orchestrator.sim.world import World

WHOLE = 0.9  # a zone with at least this presence is in
GONE = 0.001  # a zone with no more than this takes nothing
DETECT_S = 12.0  # nobody is blamed for what befell the world this recently: it could not have been seen yet
PLANNED_S = 20.0  # so long ago may the load have been measured on which a zone comes back
SLACK = 0.02  # utilisation: rounding of weights, and of whole instances
SICK = 0.04  # a share of failed requests that the gates must see
SEEN = 10.0  # so many failed requests, within DETECT_S


@dataclass(frozen=True, slots=True)
class Violation:
    at_s: float
    rule: str
    zone: str
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s: {self.rule} {self.zone} {self.what}"


@dataclass(slots=True, eq=False)
class Checker:
    """`exercised`: how often the invariant was put to the test. A broken rule is told once per zone and run of trouble."""

    rule: ClassVar[str] = ""
    exercised: int = 0
    violations: list[Violation] = field(default_factory=list)
    _standing: set[str] = field(default_factory=set)

    def look(self, world: World) -> None:
        """Judge the world as it is now, right after a change."""

    def replaced(self, world: World, box: Box) -> None:
        """Judge the replacement of `box`, which is about to happen."""

    def upgrades(self, world: World, zone: ZoneTruth, version: str) -> None:
        """A cloud has taken up the order to bring the zone to `version`, whatever it then finds to do."""

    def report(self, world: World, zone: str, what: str) -> None:
        if zone not in self._standing:
            self._standing.add(zone)
            self.violations.append(Violation(world.now_s, self.rule, zone, what))

    def clear(self, zone: str) -> None:
        self._standing.discard(zone)


@dataclass(slots=True, eq=False)
class Edges(Checker):
    """Shared by checkers that judge the moments in which a zone leaves, is made whole or has returned (see `watch`)."""

    def left(self, world: World, zone: ZoneTruth) -> None: ...

    def taken_up(self, world: World, zone: ZoneTruth) -> None:
        """It gets users again, as yet a part of what it should get."""

    def made_whole(self, world: World, zone: ZoneTruth) -> None: ...

    def returned(self, world: World, zone: ZoneTruth) -> None: ...


@dataclass(slots=True, eq=False)
class OneZoneOut(Edges):
    """I1: no serving zone is taken out while another is out.

    Out is meant: the zone may get less than its part by what was configured, or its instances are being replaced. A
    zone that a fault has emptied counts as out once it could have been seen, and serves nobody, so that it may leave;
    so may one that has just come back, for as long as nobody could have seen that, and one that its run finds sick
    before it has given its lease back: it goes on with what it has out, whatever befell another zone meanwhile.
    A whole region is out while the global tier answers without it: then no zone of another one leaves, and it leaves
    only while all of those are in, unless every zone of it was out before.
    So may one for which a person has overridden I1 by name; and one that a run had out first answers for none that left
    beside it later. Does not verify: who asked, the lease's rows, a zone that gets too little only because DNS answers
    favour another region, or one that somebody has put back by hand, though it be a region that leaves just then.
    """

    rule: ClassVar[str] = "I1"
    waived: Callable[[str], bool] = lambda _: False
    later: Callable[[str], frozenset[str]] = lambda _: frozenset()
    region_waived: Callable[[str], bool] = lambda _: False
    _weights: Mapping[str, int] = field(default_factory=dict)
    _regions_out: frozenset[str] = frozenset()

    def look(self, world: World) -> None:
        if world.dns_weights is self._weights:
            return
        self._weights = world.dns_weights
        out = frozenset(region for region, weight in world.dns_weights.items() if not weight)
        left, self._regions_out = out - self._regions_out, out
        for region in left:
            if not any(map(is_in, world.regions[region].zones)):
                continue
            self.exercised += 1
            self.clear(region)
            others = [z for z in world.zones.values() if z.zone.region not in out]
            now_back = [z for z in others if z.by_hand and z.by_hand_s >= world.now_s - DETECT_S]
            away = [z.zone.id for z in others if (not is_in(z) and z not in now_back) or _long_dead(world, z)]
            if away and not self.region_waived(region):
                self.report(world, region, f"left while out: {', '.join(away)}")

    def left(self, world: World, zone: ZoneTruth) -> None:
        if zone.presence >= WHOLE or zone.by_hand:
            return  # On the ramp with its whole part: nothing is taken from it yet.
        self.exercised += 1
        others = [z for z in world.zones.values() if z is not zone and z.zone.id not in self.later(zone.zone.id)]
        out = [z.zone.id for z in others if not is_in(z)]
        dead = [z.zone.id for z in others if _long_dead(world, z)]
        dead += [region for region in self._regions_out if zone.zone.region not in self._regions_out]
        self.clear(zone.zone.id)
        excused = _long_dead(world, zone) or zone.lit_s >= world.now_s - DETECT_S or self.waived(zone.zone.id)
        excused = excused or found_sick(world, zone)
        if (out or dead) and not excused and serves(world, zone):
            self.report(world, zone.zone.id, f"left while out: {', '.join(out + dead)}")


def is_in(zone: ZoneTruth) -> bool:
    """It gets its part and is not on its way back: on the ramp a zone is out, however large its share."""
    return zone.presence >= WHOLE and zone.zone.id not in zone.region.attached.get(RAMP_POOL, ())


def _is_whole(zone: ZoneTruth) -> bool:
    """It gets its part as one of the steady zones, though the ramp may still name it."""
    return zone.presence >= WHOLE and zone.zone.id in zone.region.attached.get(STEADY_POOL, ())


def serves(world: World, zone: ZoneTruth) -> bool:
    """Its load balancer calls some instance of it healthy, so that users' requests may go there, or did until now.

    What has drained for a while gets none, whatever its load balancer called it last.
    """
    targets = [target for box in zone.boxes for target in box.targets.values()]
    return any(target.healthy and target.drains_since_s >= world.now_s for target in targets)


def found_sick(world: World, zone: ZoneTruth) -> bool:
    """A run has just found that it must leave at once, whatever the others then carry."""
    return world.found_sick_s.get(zone.zone.id, float("-inf")) >= world.now_s - DETECT_S


def disturbed(world: World, region: RegionTruth) -> bool:
    """Something has befallen the region just now. What befalls another one excuses nothing here."""
    return region.disturbed_at_s >= world.now_s - DETECT_S


def _long_dead(world: World, zone: ZoneTruth) -> bool:
    """A fault has taken every instance, long enough ago to be seen."""
    return zone.dark and not disturbed(world, zone.region)


def lost(zone: ZoneTruth) -> bool:
    """Nobody reaches it, or its power is back and none of what a fault took is yet. What a run replaces is no fault."""
    lost = [box.lost_to_fault and box.life is not Life.RUNNING for box in zone.boxes]
    return zone.dark or (bool(lost) and all(lost))


@dataclass(slots=True, eq=False)
class OnlyHealthyAdvances(Edges):
    """I2: a zone is whole again, and another one leaves, only while every instance at work serves well.

    So it does when a region leaves, and when the first users come to a zone or a region that was out.
    Does not verify: sickness below a failed share of 4 % or of fewer than 10 requests in 12 s, slowness, what befell
    the world in the last 12 s, a dead zone that only gets its part of the weights back, and to which its load balancer
    sends nobody, what else is sick when a zone leaves that serves nobody, that its run has just found sick, that a
    person evacuates or for which a person has overridden I2 by name, or what is put back by hand.
    """

    rule: ClassVar[str] = "I2"
    waived: Callable[[str], bool] = lambda _: False
    region_waived: Callable[[str], bool] = lambda _: False
    _weights: Mapping[str, int] = field(default_factory=dict)
    _regions_out: frozenset[str] = frozenset()

    def look(self, world: World) -> None:
        if world.dns_weights is self._weights:
            return
        self._weights = world.dns_weights
        out = frozenset(region for region, weight in world.dns_weights.items() if not weight)
        before, self._regions_out = self._regions_out, out
        for region in (world.regions[r] for r in before ^ out if not self.region_waived(r)):
            if region.region.id in out:
                others = [z for z in world.zones.values() if z.zone.region not in out and is_in(z)]
                self._judge(world, others if any(map(is_in, region.zones)) else (), f"{region.region.id} left")
            elif region.share <= GONE:
                for zone in region.zones:
                    self._first_users(world, zone, [b for b in zone.boxes if load.meant_to_serve(b) and _answers(b)])

    def taken_up(self, world: World, zone: ZoneTruth) -> None:
        self._first_users(world, zone, [box for box in zone.boxes if box.rps > 0.0])

    def _first_users(self, world: World, zone: ZoneTruth, boxes: Iterable[Box]) -> None:
        self.exercised += 1
        ill = [box.id for box in boxes if sick(world, box)]
        if ill and not disturbed(world, zone.region) and not zone.by_hand:
            self.report(world, zone.zone.id, f"got its first users while {', '.join(ill)} was sick")

    def made_whole(self, world: World, zone: ZoneTruth) -> None:
        self.exercised += 1
        if (serves(world, zone) or not zone.dark) and not zone.by_hand:
            self._judge(world, [zone], f"{zone.zone.id} got its full part back")

    def left(self, world: World, zone: ZoneTruth) -> None:
        if zone.by_hand or not serves(world, zone) or self.waived(zone.zone.id) or found_sick(world, zone):
            return  # Somebody put back what a run has out, nothing is taken from users, or nobody asked.
        others = [z for z in world.zones.values() if z is not zone and is_in(z)]
        self._judge(world, others, f"{zone.zone.id} left")

    def _judge(self, world: World, zones: Iterable[ZoneTruth], doing: str) -> None:
        for zone in (z for z in zones if not disturbed(world, z.region)):
            ill = [box.id for box in zone.boxes if not box.leaving and box.rps > 0.0 and sick(world, box)]
            failing = sum(box.rps * load.fails(box, world.versions[box.version]) for box in zone.boxes)
            ill = ill if failing * DETECT_S >= SEEN else []
            missing = zone.desired and not [box for box in zone.boxes if box.life is Life.RUNNING]
            self.clear(zone.zone.id)
            if ill or missing:
                self.report(world, zone.zone.id, f"{doing} while {', '.join(ill) or 'every instance of it'} was sick")


def _answers(box: Box) -> bool:
    """Its load balancer would send users there."""
    return any(target.healthy and not target.draining for target in box.targets.values())


def sick(world: World, box: Box) -> bool:
    return load.fails(box, world.versions[box.version]) >= SICK


class NoReplacementUnderTraffic(Checker):
    """I13: no instance is replaced while its zone takes traffic or has requests in flight.

    Does not verify: the zone's health checks, scaling in, which ends instances of serving zones on purpose, or a zone
    that somebody has put back by hand in the last 12 s, and what the users whom it got so have in flight where a
    reconciler has taken it out again.
    """

    rule: ClassVar[str] = "I13"

    def replaced(self, world: World, box: Box) -> None:
        self.exercised += 1
        zone = box.zone
        physics = world.physics
        ends_s = physics.deregistration_s if zone.region.aws else physics.connection_life_s
        if zone.by_hand_s + (0.0 if zone.by_hand else ends_s) >= world.now_s - DETECT_S:
            return
        # What a machine had in flight when it died is lost already.
        busy = [b.id for b in zone.boxes if b.busy_until_s > world.now_s and b.life is Life.RUNNING]
        self.clear(zone.zone.id)
        if zone.rps > 0.0 or busy:
            self.report(world, zone.zone.id, f"{box.id} is replaced while the zone gets {zone.rps:.0f}/s")


@dataclass(slots=True, eq=False)
class ReturnsInSteps(Checker):
    """I9: a zone that changed its version spends a step at a smaller share before it is whole, and so does a region that was out.

    Only where a step below 100 % could have been measured. Steps are planned on the load of up to 20 s ago: not where it
    has risen since. Does not verify: how many steps there were, the gates'
    judgement in each, a share that grew because another zone of the region is lost or came back in the last 12 s, one
    that is all there is of a region whose other zones are out, a zone that somebody brought back by hand, or a region
    for a zone of which a person has overridden I2: without users there is no step in which anything could be measured.
    """

    rule: ClassVar[str] = "I9"
    waived: Callable[[str], bool] = lambda _: False
    policy: DeployPolicy = field(default_factory=DeployPolicy)
    _served: dict[str, set[str]] = field(default_factory=dict)
    _partial_since: dict[str, float] = field(default_factory=dict)
    _partial_s: dict[str, float] = field(default_factory=dict)
    _weights: Mapping[str, int] = field(default_factory=dict)
    _regions_back_s: dict[str, float] = field(
        default_factory=dict
    )  # region that was out -> when it got its first users

    def look(self, world: World) -> None:
        if world.dns_weights is not self._weights:
            before, self._weights = self._weights, world.dns_weights
            for region in world.regions.values():
                self._look_at_region(world, region, before.get(region.region.id, 1))
        for zone_id, zone in world.zones.items():
            part = _part(zone)
            partial = GONE < part < WHOLE
            since = self._partial_since.pop(zone_id, None)
            if since is not None:
                self._partial_s[zone_id] = self._partial_s.get(zone_id, 0.0) + world.now_s - since
            if partial:
                self._partial_since[zone_id] = world.now_s
            elif part <= GONE:
                self._partial_s[zone_id] = 0.0
            else:
                self._whole(world, zone)

    def _look_at_region(self, world: World, region: RegionTruth, before: int) -> None:
        id_, usual = region.region.id, sum(r.region.weight for r in world.regions.values())
        if not before and self._weights[id_] and region.share <= GONE:
            self._regions_back_s[id_] = world.now_s
        part = self._weights[id_] / (sum(self._weights.values()) or 1) * usual / region.region.weight
        if part < WHOLE or id_ not in self._regions_back_s:
            return
        self.exercised += 1
        partial_s = world.now_s - self._regions_back_s.pop(id_)
        most = max((share for share in self.policy.ramp_shares if share < WHOLE), default=0.0)
        fair_rps = world.users_rps * region.region.weight / usual
        enough = fair_rps * most * self.policy.ramp_step_s > 1.5 * self.policy.gate.samples_min
        waived = any(self.waived(zone.zone.id) for zone in region.zones)
        if enough and partial_s < 0.8 * self.policy.ramp_step_s and not disturbed(world, region) and not waived:
            self.report(world, id_, f"{partial_s:.1f} s below its full part after it was out")

    def _whole(self, world: World, zone: ZoneTruth) -> None:
        zone_id = zone.zone.id
        before = self._served.get(zone_id)
        versions = {box.version for box in zone.boxes if not box.leaving}
        if before is None or versions <= before:
            self._served[zone_id] = before or versions
            return
        self._served[zone_id] = before | versions
        self.exercised += 1
        others = [z for z in zone.region.zones if z is not zone]
        alone = any(lost(z) for z in zone.region.zones) or (others and not any(is_in(z) for z in others))
        if disturbed(world, zone.region) or alone or zone.by_hand or world.rose_s >= world.now_s - PLANNED_S:
            return
        if self._partial_s.get(zone_id, 0.0) < 0.8 * self.policy.ramp_step_s and self._measurable(zone):
            told = f"{self._partial_s.get(zone_id, 0.0):.1f} s below its full part at {', '.join(sorted(versions))}"
            self.report(world, zone_id, told)

    def _measurable(self, zone: ZoneTruth) -> bool:
        """Some step below 100 % surely gathers enough requests (half as many again as the gate asks for).

        Its fair part is by instances, as load balancers split: the survivors may have been scaled for its absence.
        """
        own = sum(not box.leaving for box in zone.boxes)
        serving = sum(z.serving for z in zone.region.zones if z is not zone)
        fair_rps = zone.region.rps * own / (own + serving) if own else 0.0
        shares = [share for share in self.policy.ramp_shares if share < WHOLE]
        if not zone.region.aws:
            shares = [share for share in shares if -(-share * len(zone.boxes) // 1) < len(zone.boxes)]
        most = max(shares, default=0.0)
        return fair_rps * most * self.policy.ramp_step_s > 1.5 * self.policy.gate.samples_min


def _part(zone: ZoneTruth) -> float:
    """What each of a zone's instances may get of what an instance in service gets elsewhere in its region.

    Presence says what nobody has taken away: it counts a zone that has been scaled as whole at a half, and instances
    that are only about to be healthy again among those in service.
    """
    region, own = zone.region, [box for box in zone.boxes if not box.leaving]
    if not region.aws:
        return min(zone.presence, sum(load.meant_to_serve(box) for box in own) / (len(own) or 1))
    id_ = zone.zone.id
    if id_ not in region.attached[RAMP_POOL] or id_ in region.attached[STEADY_POOL]:
        return zone.presence
    mine = sum(RAMP_POOL in box.targets and box.targets[RAMP_POOL].healthy for box in own)
    others = [box.targets[STEADY_POOL] for z in region.zones for box in z.boxes if STEADY_POOL in box.targets]
    serving = sum(target.healthy and not target.draining for target in others)
    steady, ramp = region.weights[STEADY_POOL], region.weights[RAMP_POOL]
    return ramp * serving / (steady * mine) if steady and mine and serving else zone.presence


@dataclass(slots=True, eq=False)
class NobodyNotices(Checker):
    """I16, and the product's promise: in a world without faults no request is lost, whoever crashes and whenever.

    Only judges calm scenarios: lost calls and dead orchestrators, but sound zones and a sound version. Does not
    verify: latency, or overload, which is I3's.
    """

    rule: ClassVar[str] = "I16"
    calm: bool = True

    def look(self, world: World) -> None:
        if not self.calm:
            return
        self.exercised += 1
        harmed = sum(lost for why, lost in world.ledger.harmed.items() if why != "overload")
        if harmed > 0.5:
            self.report(world, "", f"{harmed:.1f} requests lost")


@dataclass(slots=True)
class _EdgeWatch:
    """Tells all of them when a zone leaves or has returned: looked up once for all."""

    edges: list[Edges]
    _out: set[str] = field(default_factory=set)
    _less: set[str] = field(default_factory=set)  # of those: not among the steady ones yet with a full part
    _some: set[str] = field(default_factory=set)  # of those: with some part

    def look(self, world: World) -> None:
        for zone_id, zone in world.zones.items():
            now = is_in(zone)
            if zone_id in self._less and (now or _is_whole(zone)):
                self._less.discard(zone_id)
                for edge in self.edges:
                    edge.made_whole(world, zone)
            if now is (zone_id in self._out):
                (self._out.discard if now else self._out.add)(zone_id)
                for edge in self.edges:
                    (edge.returned if now else edge.left)(world, zone)
                self._some.add(zone_id)
            if zone_id in self._out:
                self._take_up(world, zone)
                if not _is_whole(zone):
                    self._less.add(zone_id)

    def _take_up(self, world: World, zone: ZoneTruth) -> None:
        zone_id, some = zone.zone.id, zone.presence > GONE
        if some is not (zone_id in self._some):
            (self._some.add if some else self._some.discard)(zone_id)
            for edge in self.edges if some else ():
                edge.taken_up(world, zone)


def watch(world: World, checkers: Iterable[Checker]) -> None:
    """Have every change that lasts judged by each of them, and the world as it is now."""
    checkers = list(checkers)
    lookers = [_EdgeWatch([c for c in checkers if isinstance(c, Edges)]).look]
    lookers += [c.look for c in checkers if type(c).look is not Checker.look]
    for look in lookers:
        look(world)
    world.watchers += lookers
    world.on_upgrade += [c.upgrades for c in checkers if type(c).upgrades is not Checker.upgrades]
    world.on_replaced += [c.replaced for c in checkers if type(c).replaced is not Checker.replaced]
