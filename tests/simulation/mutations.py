"""One mutation for each invariant: its guard is taken away. Here patching is the point.

`history` is written to need the guard; within `seeds` the swarm shows the want of it too. docs/invariants.md is
generated from this table, and from that of guards that are taken away alone (`singly`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.core import deploy, guards
from orchestrator.core.deploy_table import E
from orchestrator.core.guards import CapacityPlan
from orchestrator.core.health import Judgement, Verdict
from orchestrator.core.machine import Event
from orchestrator.core.policy import OnFailure
from orchestrator.core.traffic import RampStep
from orchestrator.engine.memory import MemoryStore
from orchestrator.sim.adapters import SimNotifier
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.scenario import BRISK, Command, Scenario, Switching, good_deploy, make_topology
from orchestrator.sim.signals import USERS, SignalTurn
from orchestrator.sim.truth import Behaviour
from orchestrator.workflows import capacity, drill, drill_checks, leaving, region, returning

HEAVY = Scenario(make_topology({"aws/us-east-1": 3, "azure/eastus": 3}), users_rps=420.0)
BY_HAND = replace(good_deploy(), away="azure/eastus-2", away_until_s=25.0)
LIAR = replace(good_deploy(), target=Behaviour(lies=True))
HELD = replace(LIAR, policy=replace(BRISK, on_failure=OnFailure.HOLD))
ROLLED_BACK = replace(good_deploy(), commands=(Command(100.0, "rollback"),))
KILLED = replace(good_deploy(), switches=(Switching(20.0, "kill", on=True), Switching(120.0, "kill", on=False)))
DRILLED = replace(
    good_deploy(),
    zone_orders=(ZoneOrder(1.0, "drain", "azure/eastus-2", 200.0, drill=True),),
    signals=(SignalTurn(20.0, USERS, "bad", 120.0),),
    deploy_at_s=180.0,
)

Patch = tuple[object, str, object]


@dataclass(frozen=True)
class Mutation:
    """`guards`: what keeps the invariant, as file:function. `takes_away` says what the mutation does to them."""

    guards: tuple[str, ...]
    takes_away: str
    history: Scenario
    patches: tuple[Patch, ...]
    seeds: int  # the swarm finds it among seeds 0 to this, exclusive

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name, instead in self.patches:
            monkeypatch.setattr(owner, name, instead, raising=owner is not deploy)


def fine(*_: object, **__: object) -> Judgement:
    return Judgement(Verdict.HEALTHY, "not looked at")


def no_refusal(*_: object, **__: object) -> None:
    return None


async def nothing(*_: object) -> None:
    return None


async def not_drained(_: object, job: Any) -> Event:
    return job.event(E.DRAINED, "nobody looked")


async def no_findings(*_: object) -> list[object]:
    return []


def _whole_region(count: Callable[..., float]) -> Callable[..., float]:
    return lambda topology, loads, region, without=None: count(topology, loads, region, None)


UNDRAINED: tuple[Patch, ...] = (
    (leaving, "refuse_replacing", no_refusal),
    (leaving.Leaving, "drain", not_drained),
)
MUTATIONS: dict[str, Mutation] = {
    "I1": Mutation(
        (
            "core/guards.py:refuse_second_zone_out",
            "core/guards.py:refuse_absent_survivors",
            "core/guards.py:refuse_beside_one_on_its_way",
            "core/region_plan.py:refuse_leaving",
        ),
        "nobody asks whether another zone is out",
        BY_HAND,
        (
            (capacity, "refuse_second_zone_out", no_refusal),
            (capacity, "refuse_absent_survivors", no_refusal),
            (capacity, "refuse_beside_one_on_its_way", no_refusal),
            (region, "refuse_leaving", no_refusal),
        ),
        seeds=40,
    ),
    "I2": Mutation(
        ("core/health.py:judge", "core/health.py:judge_fleet", "core/health.py:judge_synthetic"),
        "every judgement is healthy",
        LIAR,
        ((returning, "judge_fleet", fine), (returning, "judge_synthetic", fine), (returning, "judge", fine)),
        seeds=10,
    ),
    "I3": Mutation(
        ("core/guards.py:plan_capacity",),
        "the load always fits",
        HEAVY,
        ((capacity, "plan_capacity", lambda *_, **__: CapacityPlan()),),
        seeds=10,
    ),
    "I4": Mutation(
        ("core/guards.py:plan_capacity",),
        "capacity is counted as it is before the zone leaves",
        HEAVY,
        ((guards, "_capacity_rps", _whole_region(guards._capacity_rps)),),
        seeds=10,
    ),
    "I8": Mutation(
        ("workflows/deploy.py:DeployPerformer._notify",),
        "no notice reaches a person",
        HELD,
        ((SimNotifier, "notify", nothing),),
        seeds=30,
    ),
    "I9": Mutation(
        ("core/traffic.py:ramp_steps",),
        "a zone returns in one step",
        good_deploy(),
        ((capacity, "ramp_steps", lambda *_, **__: (RampStep(1.0, 4.0, 100),)),),
        seeds=1,
    ),
    "I11": Mutation(
        ("engine/carry.py:_Loop._act",),
        "no intent is written before an effect",
        good_deploy(),
        ((MemoryStore, "intend", nothing),),
        seeds=1,
    ),
    "I12": Mutation(
        ("core/deploy.py:DeployState.waiting",),
        "zones are rolled back oldest first",
        ROLLED_BACK,
        ((deploy, "reversed", list),),
        seeds=160,
    ),
    "I13": Mutation(
        ("core/guards.py:refuse_replacing", "workflows/leaving.py:Leaving.drain"),
        "nobody drains, nobody looks whether the zone is empty",
        good_deploy(),
        UNDRAINED,
        seeds=1,
    ),
    "I14": Mutation(
        ("core/deploy.py:decide",),
        "nobody hears of a switch",
        KILLED,
        ((MemoryStore, "_is_on", lambda *_: False),),
        seeds=20,
    ),
    "I15": Mutation(
        ("workflows/drill_checks.py:DrillChecks.findings", "workflows/drill.py:_Watch._signals"),
        "nobody reads a signal",
        DRILLED,
        ((drill_checks.DrillChecks, "findings", no_findings), (drill._Watch, "_signals", nothing)),
        seeds=120,
    ),
    "I16": Mutation(
        ("workflows/leaving.py:Leaving.drain",),
        "a zone's users are cut off by its upgrade",
        good_deploy(),
        UNDRAINED,
        seeds=5,
    ),
}
