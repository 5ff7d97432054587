"""Outages and bugs that other tools had, and what Failout does in the same world. Each fails on the mistaken behaviour.

Where the mistake is one rule, the same history is run with the mistake as well: then the simulator must complain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core.deploy_table import E
from orchestrator.core.guards import CapacityPlan, Refusal, ZoneLoad
from orchestrator.core.machine import Event
from orchestrator.core.policy import OnFailure
from orchestrator.core.topology import Topology
from orchestrator.core.traffic import ZoneSeen
from orchestrator.sim.history import History
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import BRISK, Command, Cut, Scenario, good_deploy, make_topology
from orchestrator.sim.truth import STEADY_POOL, Behaviour, Happening, Physics
from orchestrator.workflows import capacity
from orchestrator.workflows.job import Job
from orchestrator.workflows.returning import Returning

AWS, AZURE = "aws/us-east-1", "azure/eastus"
A, B, C = (f"{AWS}{letter}" for letter in "abc")
ONE_REGION = Scenario(make_topology({AWS: 3}), users_rps=160.0)
HOLD = replace(BRISK, on_failure=OnFailure.HOLD)


def told(result: Result, name: str, zone: str = "") -> list[Happening]:
    """What the run's own log says: every event of this name, of one zone or of all."""
    return [h for h in result.trace if (h.kind, h.what) == ("log", name) and zone in ("", h.args.get("zone"))]


def left(result: Result, *, after_s: float = 0.0, before_s: float = float("inf")) -> list[str]:
    """Zones whose instances were taken off their load balancer, in order."""
    kinds = (("detach", STEADY_POOL), ("admin", "Down"))
    found = [
        (h.what if h.kind == "detach" else h.what.rpartition("/")[0])
        for h in result.trace
        if (h.kind, h.args.get("pool") or h.args.get("state")) in kinds and after_s < h.at_s < before_s
    ]
    return list(dict.fromkeys(found))


# grafana/rollout-operator #126

UNTIL_S = 60.0
BEGINS, THAWED = "begins", "repairs on"


def emptied(zone: str, once: str) -> Result:
    """A good deploy, while every instance of `zone` is deleted, and none is created until a minute has passed.

    It happens right after something is noted of the first zone: "begins" or what `once` says.
    """
    history = History(1, ONE_REGION)
    world, place = history.world, history.world.zones[zone]

    def look() -> None:
        if not [h for h in world.trace if (h.kind, h.what) == (once, A)] and once != BEGINS:
            history.scheduler.after(0.01, look)
            return
        world.note("emptied", zone)
        world.disturb(place.region)
        for box in list(place.boxes):
            world.end(box)

    def create() -> None:
        world.note("filled", zone)
        for _ in range(place.desired):
            world.launch(place, place.model)

    history.scheduler.after(0.01, look)
    history.scheduler.at(UNTIL_S, create)
    return history.go()


def left_beside_nothing(result: Result) -> list[str]:
    from_s, until_s = (next(h.at_s for h in result.trace if h.kind == kind) for kind in ("emptied", "filled"))
    return left(result, after_s=from_s, before_s=until_s)


def none_is_not_ready(
    _: str, loads: Mapping[str, ZoneLoad], topology: Topology, gate: object
) -> Refusal | None:  # the mistake: look for instances that are not ready, and find none where there are none
    del gate
    bad = [z.id for z in topology.zones() if z.id in loads and loads[z.id].healthy < loads[z.id].instances]
    return Refusal("I2", ", ".join(bad)) if bad else None


def no_absent(_: str, seen: Mapping[str, ZoneSeen]) -> Refusal | None:
    bad = [zone for zone, s in seen.items() if s.taking < s.total]
    return Refusal("I2", ", ".join(bad)) if bad else None


@pytest.mark.parametrize(("zone", "once"), [(C, BEGINS), (A, THAWED)], ids=["one to come", "the one just done"])
def test_a_zone_without_instances_is_not_ready(zone: str, once: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pods of a zone were deleted and no new ones existed yet; no pod was "not ready", so the next zone was
    terminated at once: an outage (grafana/rollout-operator #126).

    Failout counts what is there against what is wanted, and zero are not all: the next zone stays until they are back.
    """
    result = emptied(zone, once)
    assert result.status == "succeeded"
    assert {violation.rule for violation in result.violations} <= {"I16"}, (
        "whoever deleted them harmed users, no run did"
    )
    assert left_beside_nothing(result) == []

    monkeypatch.setattr(capacity, "refuse_unsound_survivors", none_is_not_ready)
    monkeypatch.setattr(capacity, "refuse_absent_survivors", no_absent)
    monkeypatch.setattr(capacity, "plan_capacity", lambda *_, **__: CapacityPlan())  # It would ask how many are there.
    assert left_beside_nothing(emptied(zone, once)) != []


# grafana/rollout-operator #339


def test_a_fix_is_rolled_over_the_zone_that_the_broken_version_left_down() -> None:
    """The first pods of a rollout crashed, a person pushed a fix, and the operator went on waiting for the crashing pods
    to become healthy: they had to be deleted by hand (grafana/rollout-operator #339).

    Failout holds with the zone out, and a new target is rolled over it without waiting for what is broken.
    """
    scene = replace(
        good_deploy(), target=Behaviour(boots=False), policy=HOLD, commands=(Command(200.0, "retarget", "v3"),)
    )
    result = History(1, scene).go()
    assert (result.status, result.violations) == ("succeeded", ())
    assert told(result, "unhealthy", A) != [], "the broken version did come up broken"
    first = next(h for h in told(result, "upgraded") if h.at_s > 200.0)
    assert first.args["zone"] == A, "the broken zone gets the fix first"
    assert first.at_s < 230.0, "and waits for nothing"


# grafana/rollout-operator #178


def harmful_when_the_second_zone_leaves() -> History:
    """The new version is well until the second zone leaves; from then on it fails a fifth of its requests."""
    history = History(1, ONE_REGION)

    def look() -> None:
        if not history.world.zones[B].region.attached[STEADY_POOL] & {B}:
            history.world.versions["v2"] = Behaviour(error_share=0.2)
            history.world.touch(history.world.zones[A].region)
            return
        history.scheduler.after(0.5, look)

    history.scheduler.after(0.5, look)
    return history


def test_errors_that_begin_at_the_second_zone_stop_the_deploy_there() -> None:
    """Errors towards customers began when the second zone was rolled, and the rollout went on, because pods were ready
    (grafana/rollout-operator #178).

    Failout looks at users' requests, not at readiness alone, so that the third zone never leaves: those that serve the
    old version go on doing so.
    """
    history = harmful_when_the_second_zone_leaves()
    result = history.go()
    assert result.status != "succeeded"
    assert C not in left(result)
    assert {box.version for box in history.world.zones[C].boxes} == {"v1"}


def test_errors_that_a_zone_shows_at_once_never_reach_a_second_one() -> None:
    """What #178 asks for: wait after the first zone and look for errors. Bake is that, and it is not skipped."""
    result = History(1, replace(ONE_REGION, target=Behaviour(error_share=0.05))).go()
    assert (result.status, result.violations) == ("failed", ())
    assert left(result) == [A]


# argoproj/argo-rollouts #3756


@pytest.mark.parametrize("at_s", [5.0, 9.0, 11.5, 15.0, 28.0, 45.0], ids=lambda s: f"{s:.0f} s")
def test_a_paused_deploy_is_aborted_and_ends(at_s: float) -> None:
    """Aborting a paused rollout never ended: the controller reconciled the same object for ever until somebody unpaused
    it by hand (argoproj/argo-rollouts #3756).

    An abort ends a pause: the zone that is out comes back at the version it had, and the run ends, in so many effects.
    """
    orders = (Command(at_s, "pause"), Command(at_s + 20.0, "abort"))
    result = History(1, replace(good_deploy(), commands=orders)).go()
    assert (result.status, result.violations) == ("aborted", ())
    assert result.ended_s < at_s + 20.0 + 120.0 + 60.0, "60 s are what the simulator looks on after the end"
    assert len([h for h in told(result, "effect-began") if h.at_s > at_s + 20.0]) <= 12


# fluxcd/flagger #30


@pytest.mark.parametrize("at_s", [16.0, 20.0, 30.0], ids=["at its first step", "at its last step", "while it bakes"])
def test_a_new_target_is_measured_from_the_first_step_again(at_s: float) -> None:
    """A revision that arrived during the analysis inherited what the one before had passed, and could be promoted without
    having been validated (fluxcd/flagger #30).

    Failout drains the zone again and starts every gate anew. Here the new revision is the sick one: it must not pass on
    the credit of the first, and no other zone ever gets it.
    """
    history = History(1, replace(ONE_REGION, commands=(Command(at_s, "retarget", "v3"),)))
    history.world.versions["v3"] = Behaviour(error_share=0.05)
    result = history.go()
    assert (result.status, result.violations) == ("failed", ())
    assert left(result) == [A]
    since = [h.what for h in result.trace if h.kind == "log" and h.args.get("zone") == A and h.at_s > at_s]
    gates = [what for what in since if what in {"drained", "upgraded", "verified", "step-passed", "unhealthy"}]
    assert gates[:3] == ["drained", "upgraded", "unhealthy"], "synthetic requests find it before any user does"


def test_a_sound_new_target_passes_as_many_steps_as_any() -> None:
    result = History(1, replace(ONE_REGION, commands=(Command(20.0, "retarget", "v3"),))).go()
    assert (result.status, result.violations) == ("succeeded", ())
    assert len([h for h in told(result, "step-passed", A) if h.at_s > 20.0]) == len(told(result, "step-passed", B))
    assert len([h for h in told(result, "baked", A) if h.at_s > 20.0]) == 1


# spinnaker/keel #1487


async def not_baked(_: Returning, job: Job) -> Event:
    return job.event(E.BAKED, "the pause is over: it began when the upgrade did")


def gaps_s(result: Result) -> list[float]:
    """From one zone being back whole to the next one's leaving, s."""
    joined = {str(h.args["zone"]): h.at_s for h in told(result, "joined")}
    began = {str(h.args["zone"]): h.at_s for h in told(result, "effect-began") if h.args["step"] == "drain"}
    order = sorted(joined, key=lambda zone: joined[zone])
    return [began[after] - joined[before] for before, after in pairwise(order)]


def test_the_pause_between_two_places_begins_when_the_first_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between two regions was counted from the start of the first deployment, so that the other regions were
    deployed 30 s into it, while it was still under way (spinnaker/keel #1487).

    An upgrade that takes longer than the pause is the case: here 40 s against a bake of 5 s. The next zone leaves only
    after the one before it is whole and has been watched for all of the bake.
    """
    slow = replace(good_deploy(), physics=Physics(boot_s=40.0))
    result = History(1, slow).go()
    assert (result.status, result.violations) == ("succeeded", ())
    assert len(gaps_s(result)) == 5
    assert min(gaps_s(result)) >= BRISK.bake_s

    monkeypatch.setattr(Returning, "bake", not_baked)
    assert min(gaps_s(History(1, slow).go())) < BRISK.bake_s


# patroni and two sites


@pytest.mark.parametrize("one_way", [False, True], ids=["cut off", "answers are lost"])
@pytest.mark.parametrize("region", [AWS, AZURE])
def test_of_two_sites_the_one_that_cannot_be_heard_is_not_called_dead(region: str, one_way: bool) -> None:
    """Patroni does not fail over between two sites by itself: nobody there can tell a dead primary from a dead network,
    and a quorum needs more than two data centers (zalando/patroni #1151).

    Failout does not either. A region that its orchestrator cannot reach keeps its users: no weight is moved, no zone of
    the other region leaves beside it, and the deploy goes on once the region can be heard again.
    """
    cut = Cut(36.0, region, 25.0, one_way=one_way)
    result = History(1, replace(good_deploy(), cuts=(cut,))).go()
    assert (result.status, result.violations) == ("succeeded", ())
    assert [h for h in result.trace if h.kind == "dns"] == []
    assert sum(result.harmed.values()) == 0
    assert len(left(result, after_s=cut.at_s + 1.0, before_s=cut.at_s + cut.seconds)) <= 1
