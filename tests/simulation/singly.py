"""Each guard here is taken away alone, in a history in which no other one stands in for it.

Those that stand in for each other are taken away together, in `mutations`. docs/invariants.md is generated from both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from simulation.mutations import HEAVY, Mutation, Patch, fine, no_refusal, nothing

from orchestrator.core import region as core_region
from orchestrator.core import region_plan
from orchestrator.core.deploy_table import E
from orchestrator.core.guards import ZoneLoad
from orchestrator.core.machine import Event
from orchestrator.core.policy import OnExpiry
from orchestrator.core.region_plan import RegionPlan
from orchestrator.core.topology import Topology
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.scenario import BRISK, Command, Scenario, Strike, Switching, good_deploy, make_topology
from orchestrator.sim.signals import USERS, SignalTurn
from orchestrator.sim.truth import Behaviour, Blow, Physics
from orchestrator.workflows import capacity, drill, leaving, region, returning, settling, steering
from orchestrator.workflows import outing as outing_workflow

AWS, AZURE = "aws/us-east-1", "azure/eastus"
ONE_REGION = Scenario(make_topology({AWS: 3}), users_rps=150.0)
FULL_REGION = replace(ONE_REGION, users_rps=210.0)  # two zones carry it only once they are made larger
UNEVEN = Scenario(make_topology({AWS: 2, AZURE: 3}), users_rps=300.0)
NOT_SCALED = replace(BRISK, scale_survivors=False)
SHORT_LIVED = Physics(connection_life_s=10.0)
# A hand puts a zone back that a paused run has out; minutes later, under more load, an order goes on with it.
PUT_BACK = Scenario(
    make_topology({AWS: 3}, instances=2),
    users_rps=110.0,
    loads=((30.0, 145.0),),
    commands=(Command(5.4, "pause"), Command(15.0, "resume"), Command(60.0, "resume")),
    physics=Physics(boot_s=12.0),
    away=f"{AWS}a",
    away_until_s=9.0,
)
REGION_OUT = replace(
    Scenario(make_topology({AWS: 3, AZURE: 2}), users_rps=100.0),
    physics=SHORT_LIVED,
    policy=replace(BRISK, out_expires_s=20.0),
    region_orders=(RegionOrder(1.0, "evacuate", AZURE), RegionOrder(100.0, "return", AZURE)),
    deploy_at_s=150.0,
)


def outing(at_s: float, kind: str, zone: str, *overrides: str, lasts_s: float = 60.0) -> ZoneOrder:
    return ZoneOrder(at_s, kind, zone, lasts_s, OnExpiry.RESTORE, overrides)


def moved(*overrides: str, at_s: float = 5.0, **changes: Any) -> Scenario:
    """A region is evacuated and returns."""
    orders = (RegionOrder(at_s, "evacuate", AZURE, overrides), RegionOrder(60.0, "return", AZURE))
    return replace(REGION_OUT, policy=BRISK, region_orders=orders, deploy_at_s=100.0, **changes)


@dataclass(frozen=True)
class Single(Mutation):
    """One guard alone. `rule`: what it keeps, and what its history breaks without it."""

    rule: str = ""
    seeds: int = 0


async def not_relieved(_: object, job: Any) -> Event:
    return job.event(E.PREPARED, "nobody looked", {"undo": {"scale": {}, "weights": {}}})


def all_of_it(_: float, __: Mapping[str, int], usual: Mapping[str, int]) -> dict[str, int]:
    return dict(usual)


def unplanned(leaving: Collection[str], _: object, topology: Topology, **__: object) -> RegionPlan:
    return RegionPlan(region_plan.usual_weights_without(leaving, topology))


def as_measured(loads: Mapping[str, ZoneLoad], *_: object) -> dict[str, ZoneLoad]:
    return dict(loads)


async def never(*_: object) -> bool:
    return False


def _single(rule: str, guard: str, takes_away: str, history: Scenario, patch: Patch) -> Single:
    return Single((guard,), takes_away, history, (patch,), rule=rule)


SINGLY: tuple[Single, ...] = (
    _single(
        "I1",
        "core/guards.py:refuse_beside_one_on_its_way",
        "a zone that a hand has just put back takes no users yet, I2 is overridden, and another one leaves",
        replace(
            ONE_REGION,
            users_rps=75.0,
            zone_orders=(outing(0.5, "drain", f"{AWS}a", "I2"),),
            deploy_at_s=60.0,
            physics=Physics(health_pass_s=6.0),
            away=f"{AWS}b",
            away_until_s=20.0,
        ),
        (capacity, "refuse_beside_one_on_its_way", no_refusal),
    ),
    _single(
        "I1",
        "workflows/outing.py:OutingPerformer._contested",
        "a zone that left dead, beside another one, and came back well, leaves beside it again",
        replace(
            good_deploy(),
            users_rps=60.0,
            strikes=(Strike(0.5, f"{AZURE}-2", Blow.DEAD, 20.0),),
            zone_orders=(
                ZoneOrder(1.0, "evacuate", f"{AZURE}-1", 300.0),
                ZoneOrder(3.0, "evacuate", f"{AZURE}-2", 300.0),
                ZoneOrder(40.0, "restore", f"{AZURE}-2"),
                ZoneOrder(46.0, "evacuate", f"{AZURE}-2"),
            ),
            deploy_at_s=300.0,
        ),
        (outing_workflow.OutingPerformer, "_contested", nothing),
    ),
    _single(
        "I1",
        "core/guards.py:refuse_beside_zones_out",
        "nobody asks whether another zone is out when a region leaves",
        moved("I3", users_rps=50.0, away=f"{AWS}c", away_until_s=20.0),
        (region_plan, "refuse_beside_zones_out", no_refusal),
    ),
    _single(
        "I2",
        "core/region_plan.py:refuse_leaving",
        "nobody asks how the others do when a region leaves",
        moved(strikes=(Strike(0.5, f"{AWS}c", Blow.GRAY, 40.0, 0.3),), at_s=15.0),
        (region_plan, "refuse_unsound_survivors", no_refusal),
    ),
    _single(
        "I2",
        "core/guards.py:refuse_unsound_survivors",
        "nobody asks how the others do when a zone leaves",
        replace(
            ONE_REGION,
            strikes=(Strike(1.0, f"{AWS}b", Blow.GRAY, 60.0, 0.3),),
            zone_orders=(outing(20.0, "drain", f"{AWS}a", lasts_s=30.0),),
            deploy_at_s=100.0,
        ),
        (capacity, "refuse_unsound_survivors", no_refusal),
    ),
    _single(
        "I2",
        "core/health.py:judge",
        "no step of a return is compared with the survivors",
        replace(
            ONE_REGION,
            policy=replace(BRISK, ramp_step_s=10.0),
            strikes=(Strike(22.0, f"{AWS}a", Blow.GRAY, 60.0, 0.3),),
        ),
        (returning, "judge", fine),
    ),
    _single(
        "I2",
        "core/health.py:judge_synthetic",
        "users are the first to try a new version",
        replace(ONE_REGION, target=Behaviour(lies=True)),
        (returning, "judge_synthetic", fine),
    ),
    _single(
        "I2",
        "workflows/region.py:RegionPerformer._verify",
        "users are the first to try a region that comes back",
        replace(REGION_OUT, strikes=(Strike(70.0, f"{AZURE}-1", Blow.GRAY, 60.0, 0.3),)),
        (region, "judge_synthetic", fine),
    ),
    _single(
        "I3",
        "core/guards.py:refuse_absent_survivors",
        "instances to which no users are sent yet count as capacity, I1 is overridden",
        replace(
            ONE_REGION,
            users_rps=170.0,
            strikes=(Strike(1.0, f"{AWS}c", Blow.DEAD, 20.0),),
            physics=Physics(health_pass_s=20.0),
            zone_orders=(outing(26.0, "drain", f"{AWS}a", "I1", lasts_s=30.0),),
            deploy_at_s=120.0,
        ),
        (capacity, "refuse_absent_survivors", no_refusal),
    ),
    _single(
        "I3",
        "core/region_plan.py:plan_regions",
        "nobody asks whether the other regions carry all of the load",
        moved(users_rps=320.0),
        (region, "plan_regions", unplanned),
    ),
    _single(
        "I3",
        "workflows/region.py:RegionPerformer._rule",
        "what is ready in a zone that is out counts as capacity when a region leaves",
        moved("I1", "I2", users_rps=200.0, away=f"{AWS}c", away_until_s=80.0),
        (region, "carrying", as_measured),
    ),
    _single(
        "I3",
        "core/guards.py:refuse_scaling_back",
        "survivors are made smaller again though another zone is lost meanwhile",
        replace(FULL_REGION, strikes=(Strike(15.0, f"{AWS}c", Blow.DARK, 60.0),)),
        (settling, "refuse_scaling_back", no_refusal),
    ),
    _single(
        "I3",
        "core/guards.py:refuse_usual_weights",
        "users are sent back to a region that has lost another zone meanwhile",
        replace(HEAVY, policy=NOT_SCALED, strikes=(Strike(24.0, f"{AWS}b", Blow.DEAD, 100.0),)),
        (settling, "refuse_usual_weights", no_refusal),
    ),
    _single(
        "I3",
        "core/guards.py:with_those_coming",
        "users that another run has just sent here are not counted before they come",
        replace(
            UNEVEN,
            policy=NOT_SCALED,
            zone_orders=(
                outing(1.0, "drain", f"{AWS}b"),
                outing(2.0, "drain", f"{AZURE}-1", "I1", "I2"),
            ),
            deploy_at_s=100.0,
        ),
        (capacity, "with_those_coming", lambda _region, loads, *_: loads),
    ),
    _single(
        "I4",
        "core/guards.py:carrying",
        "what is ready in a zone that is out counts as capacity",
        replace(
            UNEVEN,
            users_rps=340.0,
            zone_orders=(
                outing(1.0, "drain", f"{AZURE}-2", lasts_s=70.0),
                outing(25.0, "drain", f"{AZURE}-1", "I1", "I2"),
            ),
            deploy_at_s=130.0,
        ),
        (capacity, "carrying", as_measured),
    ),
    _single(
        "I4",
        "workflows/leaving.py:Leaving._unknown",
        "a zone leaves on what its guards said minutes ago",
        PUT_BACK,
        (leaving.Leaving, "_unknown", nothing),
    ),
    _single(
        "I4",
        "workflows/leaving.py:Leaving._put_back",
        "a zone that a hand has put back is taken from its users again unasked",
        PUT_BACK,
        (leaving.Leaving, "_put_back", nothing),
    ),
    _single(
        "I4",
        "workflows/capacity.py:Capacity.relieve",
        "nothing is made up for after an evacuation",
        replace(FULL_REGION, zone_orders=(outing(1.0, "evacuate", f"{AWS}a", lasts_s=30.0),), deploy_at_s=100.0),
        (capacity.Capacity, "relieve", not_relieved),
    ),
    _single(
        "I8",
        "workflows/region.py:RegionPerformer._stay_out",
        "nobody is told that a region is out for too long",
        REGION_OUT,
        (region, "_LEVELS", {}),
    ),
    _single(
        "I8",
        "core/region.py:decide",
        "the kill switch silences the alarm of a region that is out for too long",
        replace(REGION_OUT, switches=(Switching(30.0, "kill", on=True), Switching(95.0, "kill", on=False))),
        (core_region, "_is_late", lambda *_: False),
    ),
    _single(
        "I9",
        "workflows/steering.py:Steering.takes_nothing",
        "steps that were planned while nobody was there are not planned again",
        replace(
            ONE_REGION,
            loads=((6.0, 4.0), (40.0, 150.0)),
            commands=(Command(12.5, "pause"), Command(60.0, "resume")),
        ),
        (steering.Steering, "takes_nothing", never),
    ),
    _single(
        "I9",
        "core/region_plan.py:weights_at",
        "a region gets all of its users back at once",
        replace(REGION_OUT, users_rps=150.0),
        (region, "weights_at", all_of_it),
    ),
    _single(
        "I15",
        "workflows/drill.py:_Watch._signals",
        "nobody reads a signal once the zone leaves",
        replace(
            ONE_REGION,
            zone_orders=(ZoneOrder(1.0, "drain", f"{AWS}b", 200.0, drill=True),),
            signals=(SignalTurn(20.0, USERS, "bad", 60.0),),
            deploy_at_s=130.0,
        ),
        (drill._Watch, "_signals", nothing),
    ),
    _single(
        "I15",
        "workflows/drill.py:_Watch._survivors",
        "a drill goes on while a survivor is lost",
        replace(
            ONE_REGION,
            users_rps=100.0,
            zone_orders=(ZoneOrder(1.0, "drain", f"{AWS}b", 200.0, drill=True),),
            strikes=(Strike(25.0, f"{AWS}a", Blow.DEAD, 50.0),),
            deploy_at_s=130.0,
        ),
        (drill._Watch, "_survivors", nothing),
    ),
    _single(
        "I16",
        "workflows/settling.py:Settling._empty_surplus",
        "instances that a survivor is to lose are ended with their users",
        Scenario(make_topology({AZURE: 3}), users_rps=250.0),
        (settling.Settling, "_empty_surplus", nothing),
    ),
)
