"""The world itself: the right order of acts harms nobody, and each wrong order is seen by the checker it concerns."""

from __future__ import annotations

import pytest

from orchestrator.core.policy import DeployPolicy
from orchestrator.sim.checkers import watch
from orchestrator.sim.deeds import Nobody, Unmoved
from orchestrator.sim.judges import all_checkers
from orchestrator.sim.scenario import BRISK, two_clouds
from orchestrator.sim.scheduler import Scheduler
from orchestrator.sim.truth import RAMP_POOL, STEADY_POOL, WELL, Admin, Behaviour, Blow
from orchestrator.sim.world import World, build

AWS, AZURE = "aws/us-east-1a", "azure/eastus-1"


class Script:
    """A world, its checkers, and the acts of one zone's deploy done by hand, in whatever order."""

    def __init__(self, users_rps: float = 240.0, target: Behaviour = WELL, policy: DeployPolicy = BRISK) -> None:
        self.scheduler = Scheduler()
        versions = {"v2": target}
        self.world: World = build(two_clouds(), self.scheduler, version="v1", users_rps=users_rps, versions=versions)
        self.checkers = all_checkers(policy, tuple, Nobody(), Unmoved(), calm=True)
        watch(self.world, self.checkers)

    def wait(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now_s + seconds)

    def drain(self, zone_id: str) -> None:
        zone = self.world.zones[zone_id]
        if zone.region.aws:
            self.world.detach(zone, STEADY_POOL)
            return
        for box in zone.boxes:
            self.world.set_admin(box, Admin.DOWN)
            self.world.set_admitted(box, admitted=False)

    def replace(self, zone_id: str) -> None:
        zone = self.world.zones[zone_id]
        self.world.stage(zone, "v2")
        self.world.replace(zone, "v2")

    def ramp(self, zone_id: str, ramp: int) -> None:
        """`ramp` of 500 is the zone's whole part beside two others."""
        zone = self.world.zones[zone_id]
        if zone.region.aws:
            self.world.attach(zone, RAMP_POOL)
            self.wait(1.0)
            self.world.set_weights(zone.region, {STEADY_POOL: 1000, RAMP_POOL: ramp})
            return
        for box in zone.boxes[: max(1, ramp * len(zone.boxes) // 500)]:
            self.world.set_admin(box, Admin.NONE)

    def join(self, zone_id: str) -> None:
        zone = self.world.zones[zone_id]
        if zone.region.aws:
            self.world.attach(zone, STEADY_POOL)
            self.wait(0.5)
            self.world.set_weights(zone.region, {STEADY_POOL: 100, RAMP_POOL: 0})
            self.world.detach(zone, RAMP_POOL)

    def broken(self) -> set[str]:
        self.wait(10.0)
        return {violation.rule for checker in self.checkers for violation in checker.violations}

    def deploy(self, zone_id: str) -> None:
        self.drain(zone_id)
        self.wait(8.0)
        self.replace(zone_id)
        self.wait(8.0)
        for weight in (250, 500):
            self.ramp(zone_id, weight)
            self.wait(5.0)
        self.join(zone_id)
        self.wait(8.0)


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_the_right_order_harms_nobody(zone: str) -> None:
    script = Script()
    script.deploy(zone)
    assert script.broken() == set()
    assert sum(script.world.ledger.harmed.values()) == 0
    assert {box.version for box in script.world.zones[zone].boxes} == {"v2"}
    exercised = {checker.rule: checker.exercised for checker in script.checkers}
    deeds = {"I8", "I11", "I12", "I14", "I15"}  # nobody writes through a port here, and no person says anything
    assert {rule for rule, count in exercised.items() if not count} == deeds


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_replacing_without_a_drain_is_seen(zone: str) -> None:
    script = Script()
    script.replace(zone)
    assert "I13" in script.broken()


def test_replacing_without_a_drain_costs_requests_where_connections_are_cut() -> None:
    script = Script()
    script.replace(AZURE)
    assert "I16" in script.broken()
    assert script.world.ledger.harmed["act"] > 1


def test_replacing_while_connections_are_still_open_is_seen() -> None:
    """On Azure `Down` alone leaves established connections: drained means none is left."""
    script = Script()
    for box in script.world.zones[AZURE].boxes:
        script.world.set_admin(box, Admin.DOWN)
    script.wait(5.0)
    script.replace(AZURE)
    assert {"I13", "I16"} <= script.broken()


def test_two_zones_out_are_seen_across_clouds() -> None:
    script = Script()
    script.drain(AWS)
    script.wait(8.0)
    script.drain(AZURE)
    assert "I1" in script.broken()


def test_a_zone_that_leaves_while_another_is_only_half_back_is_seen() -> None:
    script = Script()
    script.drain(AWS)
    script.wait(8.0)
    script.ramp(AWS, 250)
    script.wait(8.0)
    script.drain(AZURE)
    assert "I1" in script.broken()


def test_weight_before_the_instances_are_ready_is_seen() -> None:
    """A target group without a healthy target fails open: users reach instances that do not listen yet."""
    script = Script()
    script.drain(AWS)
    script.wait(8.0)
    script.replace(AWS)
    script.wait(1.5)
    zone = script.world.zones[AWS]
    script.world.attach(zone, RAMP_POOL)
    script.world.set_weights(zone.region, {STEADY_POOL: 1000, RAMP_POOL: 500})
    assert "I16" in script.broken()


@pytest.mark.parametrize("zone", [AWS, AZURE])
@pytest.mark.parametrize("sick", [Behaviour(lies=True), Behaviour(error_share=0.2)], ids=["lies", "errors"])
def test_a_sick_version_that_gets_its_full_part_is_seen(zone: str, sick: Behaviour) -> None:
    script = Script(target=sick)
    script.deploy(zone)
    script.wait(20.0)
    assert "I2" in script.broken()


def test_the_next_zone_leaving_beside_a_gray_one_is_seen() -> None:
    script = Script()
    script.world.strike(script.world.zones[AZURE], Blow.GRAY, 0.3)
    script.wait(30.0)
    script.drain(AWS)
    assert "I2" in script.broken()


def test_survivors_that_cannot_carry_the_load_are_seen() -> None:
    script = Script(users_rps=420.0)
    script.drain(AWS)
    assert "I3" in script.broken()


def test_a_return_in_one_step_is_seen() -> None:
    script = Script()
    script.drain(AWS)
    script.wait(8.0)
    script.replace(AWS)
    script.wait(8.0)
    script.join(AWS)
    assert "I9" in script.broken()


def test_a_return_on_the_version_it_left_with_may_take_one_step() -> None:
    script = Script()
    script.drain(AWS)
    script.wait(8.0)
    script.join(AWS)
    assert script.broken() == set()


def test_a_region_that_is_emptied_before_resolvers_have_forgotten_it_loses_requests() -> None:
    script = Script()
    script.world.set_dns({"aws/us-east-1": 0, "azure/eastus": 100})
    script.wait(2.0)
    for zone in script.world.regions["aws/us-east-1"].zones:
        script.world.detach(zone, STEADY_POOL)
    assert "I16" in script.broken()


def test_a_dead_zone_harms_users_only_until_its_load_balancer_notices() -> None:
    script = Script(users_rps=300.0)
    script.world.strike(script.world.zones[AWS], Blow.DEAD)
    script.wait(60.0)
    assert script.world.ledger.harmed["fault"] == pytest.approx(50 * 0.4, abs=3)
