"""All checkers of a history, one per invariant, with what each of them has to know beside the world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from orchestrator.core.policy import DeployPolicy
from orchestrator.engine.ports import Lease
from orchestrator.sim.checkers import (
    Checker,
    NobodyNotices,
    NoReplacementUnderTraffic,
    OneZoneOut,
    OnlyHealthyAdvances,
    ReturnsInSteps,
)
from orchestrator.sim.deeds import (
    IntentFirst,
    JudgedAfterwards,
    Movers,
    NewestFirst,
    NothingStaysOutSilently,
    People,
    StopsWhenTold,
)
from orchestrator.sim.drilled import EndsWhenItHarms
from orchestrator.sim.faults import STATE
from orchestrator.sim.overuse import CarriesTheLoad


def all_checkers(
    policy: DeployPolicy,
    leases: Callable[[], Sequence[Lease]],
    people: People,
    moves: Movers,
    *,
    calm: bool,
    wrong_for_s: Callable[[], float] = lambda: 0.0,
    slowed_s: Callable[[], float] = lambda: 0.0,
    cuts: Collection[str] = (),
) -> list[Checker]:
    return [
        OneZoneOut(
            waived=lambda zone: people.waives("I1", zone),
            later=people.later,
            region_waived=lambda region: moves.waives("I1", region),
        ),
        OnlyHealthyAdvances(
            waived=lambda zone: people.waives("I2", zone),
            region_waived=lambda region: moves.waives("I2", region),
        ),
        CarriesTheLoad(max_utilisation=policy.max_utilisation, moment_s=3 * policy.poll_s, slowed_s=slowed_s),
        JudgedAfterwards(max_utilisation=policy.max_utilisation, people=people),
        NothingStaysOutSilently(
            longest_s=max(policy.upgrade_timeout_s, policy.prepare_timeout_s), people=people, moves=moves
        ),
        ReturnsInSteps(policy=policy, waived=lambda zone: people.overrides("I2", zone)),
        IntentFirst(),
        NewestFirst(leases=leases),
        NoReplacementUnderTraffic(),
        StopsWhenTold(leases=leases, people=people),
        EndsWhenItHarms(
            max_utilisation=policy.max_utilisation,
            people=people,
            wrong_for_s=wrong_for_s,
            regions=moves.drilled,
            blind=lambda: bool(cuts),
            stateless=lambda: STATE in cuts,
        ),
        NobodyNotices(calm=calm),
    ]
