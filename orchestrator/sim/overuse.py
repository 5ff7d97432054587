"""I3 in the simulated world: who is used beyond the bound, and who made it so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.sim import load
from orchestrator.sim.checkers import DETECT_S, GONE, SLACK, Checker, disturbed, found_sick, is_in, lost
from orchestrator.sim.truth import WELL, RegionTruth, ZoneTruth
from orchestrator.sim.world import World


@dataclass(slots=True)
class _Overuse:
    """A zone above the bound. `excused`: when it last got worse, something had just befallen the world.

    `slowed_s`: for how long calls had been slow until it began.
    """

    since_s: float
    worst: float
    excused: bool
    slowed_s: float


@dataclass(slots=True, eq=False)
class CarriesTheLoad(Checker):
    """I3: no serving zone is used beyond `max_utilisation` because of what Failout did.

    Blames whoever made it worse: a rise within 12 s of a fault, a healing or a rise of load is not ours, nor is what
    is left of it while a zone of the region is still out or on its way back; nor is a rise when a sick zone leaves
    at once, or while another zone of the region is dead or two are out, or have been since this one came back alone.
    Of these only the first excuses whoever could see what was lost, and within 12 s has taken instances from users in a
    zone that is in, or sent users here from another region: without that it would be used less. What befalls another
    region excuses nobody, unless users have just been sent here.
    Does not verify: single instances, utilisation by anything but requests, or a moment above the bound and below what
    the instances can carry (on AWS the ramp is made small before a zone joins, until its targets are seen healthy: three
    looks and two good probes, and as long as a slow call lasts).
    """

    rule: ClassVar[str] = "I3"
    max_utilisation: float = 0.75
    moment_s: float = 1.0
    slowed_s: Callable[[], float] = lambda: 0.0
    _above: dict[str, _Overuse] = field(default_factory=dict)
    _before: tuple[object, ...] = ()
    _back_to_none: set[str] = field(default_factory=set)  # zones that were out when nobody else served their region
    _beyond: set[str] = field(default_factory=set)  # regions in which users ask for more than all zones may carry
    _usual: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # region -> share by its weight, and what it may carry

    def look(self, world: World) -> None:
        after = (*[round(z.presence, 3) for z in world.zones.values()], *world.dns_weights.values())
        self.exercised += bool(self._before) and after != self._before
        self._before = after
        for region in world.regions.values():
            inside = [is_in(zone) for zone in region.zones]
            whole = all(inside)
            if not any(inside):
                self._back_to_none.update(zone.zone.id for zone in region.zones)
            elif sum(inside) > 1:
                self._back_to_none.difference_update(zone.zone.id for zone in region.zones)
            beyond_all, was_beyond = self._beyond_all(world, region), region.region.id in self._beyond
            (self._beyond.add if beyond_all else self._beyond.discard)(region.region.id)
            for zone in region.zones:
                carries = zone.serving * zone.zone.rps_per_instance
                # Used beyond the bound with all zones in: users did that.
                used = zone.rps / carries if carries and not beyond_all else 0.0
                if used > self.max_utilisation + SLACK or zone.zone.id in self._above:
                    self._judge(world, zone, used, whole=whole, eases=was_beyond)
                else:
                    self.clear(zone.zone.id)

    def _judge(self, world: World, zone: ZoneTruth, used: float, *, whole: bool, eases: bool) -> None:
        zone_id, above = zone.zone.id, self._above.get(zone.zone.id)
        if used > self.max_utilisation + SLACK:
            if above is None or used > above.worst + SLACK:
                standing = above if above and not above.excused else None
                since_s, slowed_s = (
                    (standing.since_s, standing.slowed_s) if standing else (world.now_s, self.slowed_s())
                )
                above = _Overuse(since_s, used, eases or self._excused(world, zone, used), slowed_s)
                self._above[zone_id] = above
        elif above is None or whole or not above.excused:
            self._tell(world, zone, above)
            self._above.pop(zone_id, None)
            self.clear(zone_id)
            return
        self._tell(world, zone, above)

    def _excused(self, world: World, zone: ZoneTruth, used: float) -> bool:
        """Something has just befallen the world, a sick version is out, or a neighbour has had to carry as much for such a reason."""
        region, others = zone.region, [z for z in zone.region.zones if z is not zone]
        # Those who are sent here come with what has befallen them where they were.
        origins = world.regions.values() if _sent_from(world, region, world.now_s - DETECT_S) is not None else (region,)
        if any(disturbed(world, origin) for origin in origins):
            return True
        if _without_our_act(world, region, used) < used - SLACK:
            return False
        if any(_sick_and_out(world, z) for z in region.zones):
            return True
        if any(lost(z) or found_sick(world, z) for z in others) or sum(not is_in(z) for z in zone.region.zones) > 1:
            return True  # What those should have carried falls to the others, and I1 says who may be out together.
        if zone.zone.id in self._back_to_none:
            return True  # Whatever it gets, it got back from nobody.
        theirs = [self._above[z.zone.id] for z in others if z.zone.id in self._above]
        return any(above.excused and above.worst >= used - SLACK for above in theirs)

    def _tell(self, world: World, zone: ZoneTruth, above: _Overuse | None) -> None:
        """An overuse that is over is told of too: between two looks nobody sees how long it lasts."""
        if above is None or above.excused:
            return
        lasts_s = world.now_s - above.since_s - (self.slowed_s() - above.slowed_s)
        if above.worst > 1.0 or lasts_s > self.moment_s + world.physics.health_pass_s:
            told = f"used {above.worst:.2f} for {world.now_s - above.since_s:.1f} s, now {zone.rps:.0f}/s on {zone.serving}"
            self.report(world, zone.zone.id, told)

    def _beyond_all(self, world: World, region: RegionTruth) -> bool:
        """More is asked for there than all zones may carry. Who is sent there beyond its usual part does not count."""
        if not self._usual:
            total = sum(r.region.weight for r in world.regions.values())
            for r in world.regions.values():
                whole_rps = sum(z.zone.instances * z.zone.rps_per_instance for z in r.zones)
                self._usual[r.region.id] = (r.region.weight / total, self.max_utilisation * whole_rps)
        usual, most_rps = self._usual[region.region.id]
        return world.users_rps * min(region.share, usual) > most_rps


def _sick_and_out(world: World, zone: ZoneTruth) -> bool:
    return zone.presence <= GONE and any(world.versions[box.version] != WELL for box in zone.boxes)


def _sent_from(world: World, region: RegionTruth, since_s: float) -> float | None:
    """The smallest share of all users that the region had when some were sent elsewhere since then; None if it gets no more now."""
    lately = [shares[region.region.id] for at_s, shares in reversed(world.sent) if at_s > since_s]
    least = min(lately, default=region.share)
    return least if least < region.share else None


def _without_our_act(world: World, region: RegionTruth, used: float) -> float:
    """How much a zone would be used, had nobody lately taken instances from its region's users, or sent it more of them.

    Only what was done when the last that befell the region could be seen.
    """
    since_s = max(world.now_s - DETECT_S, region.disturbed_at_s + DETECT_S)
    taken = [
        b for b, at_s in region.withdrawn.items() if at_s > since_s and is_in(b.zone) and not load.meant_to_serve(b)
    ]
    carries = sum(z.serving * z.zone.rps_per_instance for z in region.zones)
    more = sum(box.zone.zone.rps_per_instance for box in taken)
    before = _sent_from(world, region, since_s)
    return used * carries / ((carries + more) or 1.0) * (1.0 if before is None else before / region.share)
