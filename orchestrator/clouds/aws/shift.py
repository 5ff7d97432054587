"""Which write comes next on an ALB's two target groups, decided from what was read. Pure: no clock, no I/O.

`steady` holds all serving zones; the zone that is coming back stands in `ramp` until it may join them. The listener
splits requests by the groups' weights (0..999) and never fails over between them, so a weighted `ramp` without a
healthy target loses its part of the users' requests. Hence the order of writes everywhere below: weight off before
targets leave, targets healthy before weight goes on (I2, I9, I10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from orchestrator.core.errors import Rejected
from orchestrator.core.traffic import Placement, ZoneSeen, ZoneTraffic

WEIGHT_MAX = 999
# Weights up to 999 make a share at least half as exact as this, in zones that hold a tenth of their region or more.
GRAIN = Fraction(1, 200)


class Group(StrEnum):
    STEADY = "steady"
    RAMP = "ramp"


@dataclass(frozen=True, slots=True)
class Weights:
    steady: int
    ramp: int


ALL_STEADY = Weights(100, 0)


@dataclass(frozen=True, slots=True)
class Targets:
    """One zone's part of one target group. `attached`: its Auto Scaling group registers instances here.

    `states`: instance id -> healthy, initial, unhealthy, draining, ... as DescribeTargetHealth says.
    """

    attached: bool = False
    states: Mapping[str, str] = field(default_factory=dict)

    @property
    def standing(self) -> frozenset[str]:
        return frozenset(i for i, state in self.states.items() if "draining" not in state)

    @property
    def draining(self) -> frozenset[str]:
        return frozenset(self.states) - self.standing

    @property
    def healthy(self) -> frozenset[str]:
        return frozenset(i for i, state in self.states.items() if state == "healthy")

    @property
    def present(self) -> bool:
        return self.attached or bool(self.standing)


NONE = Targets()


@dataclass(frozen=True, slots=True)
class FrontSeen:
    """What one load balancer does now. `instances`: zone -> size of its fleet, without instances that are going away."""

    weights: Weights
    instances: Mapping[str, int]
    steady: Mapping[str, Targets]
    ramp: Mapping[str, Targets]

    def others_in_ramp(self, zone: str) -> list[str]:
        return sorted(z for z, targets in self.ramp.items() if z != zone and targets.present)

    def share(self, zone: str) -> float | None:
        """Say how much each healthy instance of a zone on the ramp gets of what an instance in steady gets."""
        if self.weights.ramp == 0:
            return 0.0
        mine, others = len(self.ramp.get(zone, NONE).healthy), _serving(self.steady, zone)
        if not others:
            return 1.0
        if not mine or not self.weights.steady:
            return None
        return float(Fraction(self.weights.ramp, self.weights.steady) * others / mine)


@dataclass(frozen=True, slots=True)
class SetWeights:
    weights: Weights


@dataclass(frozen=True, slots=True)
class Attach:
    zone: str
    group: Group


@dataclass(frozen=True, slots=True)
class Detach:
    zone: str
    group: Group


@dataclass(frozen=True, slots=True)
class Deregister:
    """Targets that stand in a group which their Auto Scaling group has left: put there by hand, or left over."""

    zone: str
    group: Group
    instances: tuple[str, ...]


Write = SetWeights | Attach | Detach | Deregister


def zone_seen(front: FrontSeen, zone: str) -> ZoneSeen:
    """Tell one zone's traffic. A load balancer group without a healthy target fails open: then all of its targets take."""
    steady, ramp = front.steady.get(zone, NONE), front.ramp.get(zone, NONE)
    taking = _taking(front.steady, front.weights.steady, zone) | _taking(front.ramp, front.weights.ramp, zone)
    placement: Placement | None = None
    share: float | None = None
    healthy = steady.healthy & ramp.healthy
    if not steady.present and not ramp.present:
        placement, share = Placement.OUT, 0.0
    elif steady.attached and not ramp.present:
        placement, share, healthy = Placement.STEADY, 1.0, steady.healthy
    elif ramp.attached and not steady.present:
        placement, share, healthy = Placement.RAMP, front.share(zone), ramp.healthy
    draining = len(steady.draining | ramp.draining)
    return ZoneSeen(placement, share, len(taking), draining, len(healthy), front.instances.get(zone, 0))


def next_writes(front: FrontSeen, desired: Mapping[str, ZoneTraffic]) -> Iterator[Write]:
    """Yield the writes that bring the front closer to `desired` and that need no look in between.

    At most one write of the listener and one per zone and group. Zones leave first: nothing that is wrong with a
    return may hold up an evacuation. Raises Rejected, after all that can be done is yielded, for a wish that two
    groups cannot express.
    """
    listener_is_free = True
    for write in _in_order(front, desired):
        if isinstance(write, SetWeights):
            if not listener_is_free or write.weights == front.weights:
                continue
            listener_is_free = False
        yield write


def _in_order(front: FrontSeen, desired: Mapping[str, ZoneTraffic]) -> Iterator[Write]:
    if _ramp_loses_requests(front):
        yield SetWeights(ALL_STEADY)
    step: dict[Placement, Callable[[FrontSeen, str, ZoneTraffic], Iterator[Write]]]
    step = {Placement.OUT: _out, Placement.STEADY: _steady, Placement.RAMP: _ramp}
    for placement, next_of_zone in step.items():
        for zone in sorted(z for z, traffic in desired.items() if traffic.placement is placement):
            yield from next_of_zone(front, zone, desired[zone])
    ramping = sorted(z for z, traffic in desired.items() if traffic.placement is Placement.RAMP)
    if len(ramping) > 1:
        raise Rejected(f"{' and '.join(ramping)} cannot be on the ramp of one load balancer together")


def _ramp_loses_requests(front: FrontSeen) -> bool:
    """The zone on the ramp died, or a hand left weights behind. Without another target in service, any split is lost."""
    ramp_serves = any(targets.healthy for targets in front.ramp.values())
    steady_stands = any(targets.standing for targets in front.steady.values())
    return front.weights.ramp > 0 and not ramp_serves and steady_stands


def _out(front: FrontSeen, zone: str, _: ZoneTraffic) -> Iterator[Write]:
    yield from _leave(front, zone, Group.STEADY)
    if front.ramp.get(zone, NONE).present:
        yield from _leave_ramp(front, zone)


def _ramp(front: FrontSeen, zone: str, wanted: ZoneTraffic) -> Iterator[Write]:
    ramp = front.ramp.get(zone, NONE)
    if front.steady.get(zone, NONE).present:
        yield from _leave(front, zone, Group.STEADY)
    elif front.others_in_ramp(zone):
        return  # Their own turn, above, clears the ramp; until then this zone waits where it is.
    elif not ramp.attached:
        # Weight first: targets that turn healthy in a weighted group take traffic that nobody decided on.
        yield SetWeights(ALL_STEADY) if front.weights.ramp else Attach(zone, Group.RAMP)
    else:
        yield from _share(front, zone, wanted.share)


def _share(front: FrontSeen, zone: str, wanted: float) -> Iterator[Write]:
    """Weight goes on, or up, only when every instance of the zone is healthy in ramp; it may go down at any time.

    Half a grain off is left alone: a survivor that blinks must not rewrite the listener, and a whole grain is a mismatch.
    """
    ramp, share = front.ramp[zone], front.share(zone)
    if share is not None and abs(share - wanted) < GRAIN / 2 and (front.weights.ramp > 0) == (wanted > 0):
        return
    complete = len(ramp.healthy) == len(ramp.standing) == front.instances.get(zone, 0) > 0
    # share None: what is on the ramp is dead, and putting its weight back is not this zone's business.
    if complete or (share is not None and share > wanted and ramp.healthy):
        yield SetWeights(weights_for(wanted, len(ramp.healthy), _serving(front.steady, zone), zone))


def _steady(front: FrontSeen, zone: str, _: ZoneTraffic) -> Iterator[Write]:
    """Join `steady`, then leave `ramp`.

    In both groups at once the zone's instances carry two parts, for as long as nobody looks. So the ramp is first made
    smaller (`joining_share`). The ramp's weight goes at the first instance healthy in steady.
    """
    steady, ramp = front.steady.get(zone, NONE), front.ramp.get(zone, NONE)
    if not steady.attached:
        most, share = joining_share(len(ramp.standing), _serving(front.steady, zone)), front.share(zone)
        if share is not None and share > most + GRAIN / 2 and front.weights.ramp:
            yield SetWeights(weights_for(float(most), len(ramp.healthy), _serving(front.steady, zone), zone))
        else:
            yield Attach(zone, Group.STEADY)
    elif ramp.present and (steady.healthy or not front.weights.ramp):
        yield from _leave_ramp(front, zone)


def _leave_ramp(front: FrontSeen, zone: str) -> Iterator[Write]:
    """Weight off first, unless the ramp holds another zone: a weighted group without targets answers 503."""
    if front.weights.ramp and not front.others_in_ramp(zone):
        yield SetWeights(ALL_STEADY)
    else:
        yield from _leave(front, zone, Group.RAMP)


def _leave(front: FrontSeen, zone: str, group: Group) -> Iterator[Write]:
    targets = (front.steady if group is Group.STEADY else front.ramp).get(zone, NONE)
    if targets.attached:
        yield Detach(zone, group)
    elif targets.standing:
        yield Deregister(zone, group, tuple(sorted(targets.standing)))


def joining_share(zone_instances: int, other_instances: int) -> Fraction:
    """Return the share at which a zone stands in both groups with the least load on the busiest instance (I3).

    With z instances of the zone, s others, and the part r of the requests on the ramp, each other instance carries
    (1-r)/s until the zone is healthy in steady; from then on each of the zone's carries r/z + (1-r)/(s+z). The two are
    equal at r : 1-r = z*z : s*(s+z); as a share of what an other instance gets: z/(z+s). Less than the others carried
    alone, which I3 approved, so that a load that has risen since fits too.
    """
    return Fraction(zone_instances, zone_instances + other_instances) if zone_instances else Fraction(1)


def weights_for(share: float, zone_instances: int, other_instances: int, zone: str) -> Weights:
    """Return weights that give each of the zone's instances `share` of what each other instance gets.

    ramp : steady = share * zone_instances : other_instances, as the nearest fraction of numbers up to 999.
    """
    if share <= 0 or not zone_instances:
        return ALL_STEADY
    if not other_instances:
        return Weights(0, 100)  # All that serves its region gets what comes there, whatever its share.
    ratio = Fraction(share).limit_denominator(10_000) * zone_instances / other_instances
    nearest = min(ratio, 1 / ratio).limit_denominator(WEIGHT_MAX)
    low, high = nearest.numerator, nearest.denominator
    if not low:
        raise Rejected(f"{zone}: a share of {share:g} is finer than load balancer weights of 1:{WEIGHT_MAX}")
    return Weights(high, low) if ratio <= 1 else Weights(low, high)


def _serving(group: Mapping[str, Targets], without: str) -> int:
    """Count the targets that share the group's traffic: the healthy, or all when it fails open."""
    others = [targets for zone, targets in group.items() if zone != without]
    return sum(len(t.healthy) for t in others) or sum(len(t.standing) for t in others)


def _taking(group: Mapping[str, Targets], weight: int, zone: str) -> frozenset[str]:
    if weight <= 0:
        return frozenset()
    fails_open = not any(targets.healthy for targets in group.values())
    targets = group.get(zone, NONE)
    return targets.standing if fails_open else targets.healthy
