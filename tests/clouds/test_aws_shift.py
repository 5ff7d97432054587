"""Which write comes next on the two target groups, for every situation that a deploy, a crash or a hand can leave."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest

from orchestrator.clouds.aws.shift import (
    ALL_STEADY,
    GRAIN,
    WEIGHT_MAX,
    Attach,
    Deregister,
    Detach,
    FrontSeen,
    Group,
    SetWeights,
    Targets,
    Weights,
    Write,
    next_writes,
    weights_for,
    zone_seen,
)
from orchestrator.core.errors import Rejected
from orchestrator.core.traffic import OUT, STEADY, Placement, ZoneTraffic, ramp

A, B, C = "aws/us-east-1a", "aws/us-east-1b", "aws/us-east-1c"


def targets(zone: str, *states: str, attached: bool = True) -> Targets:
    return Targets(attached, {f"i-{zone[-1]}{n}": state for n, state in enumerate(states)})


def well(zone: str) -> Targets:
    return targets(zone, "healthy", "healthy", "healthy")


def front(
    steady: Mapping[str, Targets], ramp_group: Mapping[str, Targets] | None = None, weights: Weights = ALL_STEADY
) -> FrontSeen:
    return FrontSeen(weights, dict.fromkeys((A, B, C), 3), steady, ramp_group or {})


SURVIVORS = {B: well(B), C: well(C)}
BALANCED = Weights(2, 1)  # 6 survivors, 3 on the ramp: each gets the same


def writes(seen: FrontSeen, **wanted: ZoneTraffic) -> list[Write]:
    return list(next_writes(seen, {f"aws/us-east-1{letter}": traffic for letter, traffic in wanted.items()}))


OUT_OF_STEADY = [Detach(A, Group.STEADY)]
OFF = [SetWeights(ALL_STEADY)]
SITUATIONS = {
    "a steady zone leaves": (front(SURVIVORS | {A: well(A)}), OUT, OUT_OF_STEADY),
    "a zone that is out is left alone": (front(SURVIVORS), OUT, []),
    "a zone that drains is left alone": (
        front(SURVIVORS | {A: targets(A, "draining", "draining", attached=False)}),
        OUT,
        [],
    ),
    "a target that a hand put back is taken out": (
        front(SURVIVORS | {A: targets(A, "healthy", "draining", attached=False)}),
        OUT,
        [Deregister(A, Group.STEADY, ("i-a0",))],
    ),
    "weight goes before the targets of a weighted ramp": (front(SURVIVORS, {A: well(A)}, BALANCED), OUT, OFF),
    "an unweighted ramp is left": (front(SURVIVORS, {A: well(A)}), OUT, [Detach(A, Group.RAMP)]),
    "a dying zone that is in both leaves steady and loses the ramp's weight at once": (
        front(SURVIVORS | {A: well(A)}, {A: well(A)}, BALANCED),
        OUT,
        [*OUT_OF_STEADY, *OFF],
    ),
    "a zone goes to the ramp without weight": (front(SURVIVORS), ramp(0.5), [Attach(A, Group.RAMP)]),
    "a weight left behind is taken off before anybody goes to the ramp": (
        front(SURVIVORS, {}, BALANCED),
        ramp(0.5),
        OFF,
    ),
    "a zone with one target not healthy gets no weight": (
        front(SURVIVORS, {A: targets(A, "healthy", "healthy", "initial")}),
        ramp(0.5),
        [],
    ),
    "a zone with a target missing gets no weight": (
        front(SURVIVORS, {A: targets(A, "healthy", "healthy")}),
        ramp(0.5),
        [],
    ),
    "a zone with all targets healthy gets its share": (
        front(SURVIVORS, {A: well(A)}),
        ramp(0.5),
        [SetWeights(Weights(4, 1))],
    ),
    "a share that stands is not written again": (front(SURVIVORS, {A: well(A)}, Weights(4, 1)), ramp(0.5), []),
    "a share is not raised while a target is sick": (
        front(SURVIVORS, {A: targets(A, "healthy", "healthy", "unhealthy")}, Weights(400, 1)),
        ramp(0.5),
        [],
    ),
    "a share falls with the instances that carry it": (
        front(SURVIVORS, {A: targets(A, "healthy", "healthy", "unhealthy")}, BALANCED),
        ramp(1.0),
        [SetWeights(Weights(3, 1))],
    ),
    "a share is lowered": (front(SURVIVORS, {A: well(A)}, BALANCED), ramp(0.5), [SetWeights(Weights(4, 1))]),
    "a zone that died on the ramp loses the weight": (
        front(SURVIVORS, {A: targets(A, *["unhealthy"] * 3)}, BALANCED),
        ramp(0.5),
        OFF,
    ),
    "a zone that died while joining loses the weight": (
        front(SURVIVORS | {A: targets(A, *["initial"] * 3)}, {A: targets(A, *["unhealthy"] * 3)}, BALANCED),
        STEADY,
        OFF,
    ),
    "a zone returns at once": (front(SURVIVORS), STEADY, [Attach(A, Group.STEADY)]),
    "a zone returns to a region where nobody is": (front({}), STEADY, [Attach(A, Group.STEADY)]),
    "a zone on the ramp gives up what would be too much in both groups": (
        front(SURVIVORS, {A: well(A)}, BALANCED),
        STEADY,
        [SetWeights(Weights(6, 1))],
    ),
    "a zone on the ramp joins": (front(SURVIVORS, {A: well(A)}, Weights(6, 1)), STEADY, [Attach(A, Group.STEADY)]),
    "the ramp keeps its weight until one target is healthy in steady": (
        front(SURVIVORS | {A: targets(A, *["initial"] * 3)}, {A: well(A)}, BALANCED),
        STEADY,
        [],
    ),
    "the ramp loses its weight at the first target that is healthy in steady": (
        front(SURVIVORS | {A: targets(A, "healthy", "initial", "initial")}, {A: well(A)}, BALANCED),
        STEADY,
        OFF,
    ),
    "a joined zone leaves the ramp": (
        front(SURVIVORS | {A: well(A)}, {A: well(A)}),
        STEADY,
        [Detach(A, Group.RAMP)],
    ),
    "a zone that joins is called back to the ramp": (
        front(SURVIVORS | {A: well(A)}, {A: well(A)}, BALANCED),
        ramp(0.5),
        OUT_OF_STEADY,
    ),
    "a zone waits while another is on the ramp": (front({C: well(C)}, {B: well(B)}, BALANCED), ramp(0.5), []),
}


@pytest.mark.parametrize(("seen", "wanted", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_write(seen: FrontSeen, wanted: ZoneTraffic, expected: list[Write]) -> None:
    assert expected == writes(seen, a=wanted)


def test_a_weighted_ramp_without_a_healthy_target_is_put_back_whatever_is_asked() -> None:
    dead = front(SURVIVORS, {A: targets(A, "unhealthy", "unhealthy", "unhealthy")}, BALANCED)
    assert OFF == writes(dead)


def test_the_ramp_is_not_emptied_when_nothing_else_stands() -> None:
    alone = front({}, {A: targets(A, "unhealthy", "unhealthy", "unhealthy")}, BALANCED)
    assert [] == writes(alone, a=ramp(0.5))


def test_two_zones_on_one_ramp_are_refused_after_the_zones_that_leave_have_left() -> None:
    planned = next_writes(front({C: well(C)}), {A: ramp(0.5), B: ramp(0.5), C: OUT})
    assert Detach(C, Group.STEADY) == next(planned)
    with pytest.raises(Rejected, match=f"{A} and {B}"):
        list(planned)


FAIR_SIZED = [
    (share, mine, others)
    for share, mine, others in product((0.01, 0.05, 0.1, 0.33, 0.5, 0.9, 1.0), (1, 2, 3, 7, 30), (2, 6, 9, 31))
    if others <= 9 * mine and share * mine * WEIGHT_MAX >= others
]


@pytest.mark.parametrize(("share", "zone_instances", "others"), FAIR_SIZED)
def test_weights_give_the_share_within_half_a_grain(share: float, zone_instances: int, others: int) -> None:
    weights = weights_for(share, zone_instances, others, A)
    assert 0 < weights.ramp <= WEIGHT_MAX
    assert 0 < weights.steady <= WEIGHT_MAX
    assert share == pytest.approx(weights.ramp / weights.steady * others / zone_instances, abs=float(GRAIN / 2))


def test_a_share_finer_than_the_weights_is_refused() -> None:
    with pytest.raises(Rejected, match="finer"):
        weights_for(0.001, 1, 30, A)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_all_that_serves_a_region_takes_all_of_it(share: float) -> None:
    """To refuse a smaller share kept every write from the region, also those that bring another zone back."""
    assert Weights(0, 100) == weights_for(share, 3, 0, A)


def test_a_group_without_a_healthy_target_fails_open_and_its_targets_take() -> None:
    sick = front({A: targets(A, "unhealthy", "unhealthy", "unhealthy")})
    assert zone_seen(sick, A).taking == 3
    assert zone_seen(sick, A).healthy == 0


def test_a_draining_target_takes_nothing_new_and_is_counted() -> None:
    seen = zone_seen(front(SURVIVORS | {A: targets(A, "draining", "draining", attached=False)}), A)
    assert (Placement.OUT, 0, 2) == (seen.placement, seen.taking, seen.draining)


def test_a_zone_in_both_groups_is_in_neither_place() -> None:
    seen = zone_seen(front(SURVIVORS | {A: well(A)}, {A: well(A)}, BALANCED), A)
    assert (None, None, 3) == (seen.placement, seen.share, seen.taking)


def test_a_zone_on_the_ramp_without_weight_takes_nothing() -> None:
    seen = zone_seen(front(SURVIVORS, {A: well(A)}), A)
    assert (Placement.RAMP, 0.0, 0, 3) == (seen.placement, seen.share, seen.taking, seen.healthy)
