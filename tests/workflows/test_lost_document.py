"""The traffic document is lost (`failout state restore`): a run leaves as it is what it does not know, and gives nobody users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from workflows.outing_stage import AWS, AWS_B, AZURE, Service, now_

from orchestrator.core.deploy_row import parse
from orchestrator.core.errors import Transient
from orchestrator.core.outing import Mode
from orchestrator.core.outing_table import Stage
from orchestrator.core.policy import OnFailure
from orchestrator.core.traffic import OUT, STEADY, DesiredTraffic, Placement, ZoneSeen, ZoneTraffic, as_it_is, ramp
from orchestrator.sim.scheduler import Process
from orchestrator.sim.truth import Behaviour, Blow
from orchestrator.workflows.steering import Steering

T = TypeVar("T")


class Anyone:
    number = 1

    async def check(self) -> None: ...


def lose(service: Service) -> None:
    """What restoring a backup does to it."""
    document = now_(service.store.load_traffic("gates")) or DesiredTraffic(0, 0, {}, {})
    service.store._traffic["gates"] = DesiredTraffic(document.version + 1, document.fence, {}, {})


def ask(service: Service, what: Callable[[Steering], Awaitable[T]]) -> T:
    """What another process comes to in a moment."""
    process, came = Process("another"), list[T]()

    async def body() -> None:
        came.append(await what(Steering(service.ports(process))))

    service.scheduler.spawn(process, body())
    service.wait(1.0)
    if process.failure is not None:
        raise process.failure
    return came[0]


def order(service: Service, run: str, kind: str) -> None:
    now_(service.store.post_order(run, kind, author="ada", reason="restored", now=service.now()))
    service.wait(3.0)


@pytest.mark.parametrize(("zone", "mode"), [(AWS, Mode.DRAIN), (AWS, Mode.EVACUATE), (AZURE, Mode.EVACUATE)])
def test_i2_i9_a_sick_zone_that_is_out_gets_no_users_when_it_is_restored(zone: str, mode: Mode) -> None:
    service = Service()
    run = service.take_out(zone, mode)
    service.until_status(run, "out")
    service.world.strike(service.world.zones[zone], Blow.GRAY, 0.6)
    service.wait(20.0)
    lose(service)
    order(service, run, "pause")
    order(service, run, "resume")
    before = service.harmed()
    service.restore(zone)
    service.wait(60.0)
    assert (0.0, 0.0) == (service.presence(zone), service.harmed() - before)


@pytest.mark.parametrize("kind", ["resume", "abort"])
def test_i2_i13_a_deploy_that_is_held_with_a_sick_version_gives_it_no_users(kind: str) -> None:
    service = Service(on_failure=OnFailure.HOLD)
    service.world.versions["v2"] = Behaviour(error_share=0.9)
    run = service.deploy()
    service.until_status(run, "held")
    service.wait(30.0)
    before = service.harmed()
    lose(service)
    order(service, run, kind)
    service.wait(60.0)
    assert 0.0 == service.harmed() - before


def test_i9_a_zone_on_its_ramp_keeps_its_share_and_goes_through_every_step() -> None:
    service = Service(ramp_step_s=20.0)
    run = service.deploy()
    service.until(lambda: str(parse(service.run(run).state).zone(AWS).state) == "ramping" and service.presence(AWS) > 0)
    service.scheduler.kill(service.carriers[-1][1])
    share = service.presence(AWS)
    lose(service)
    service.until(lambda: service.presence(AWS) != share or "ramped" in service.kinds(run), within_s=200.0)
    assert "ramped" not in service.kinds(run)
    assert service.kinds(run).count("step-passed") >= 1
    assert "succeeded" == service.until_status(run, "succeeded", "held", within_s=3600.0).status
    assert 0.0 == service.harmed()


def test_i2_where_its_cloud_is_silent_nobody_knows_and_nothing_is_given() -> None:
    service = Service()
    run = service.take_out(AWS)
    service.until_status(run, "out")
    service.scheduler.kill(service.carriers[-1][1])
    lose(service)
    zone = service.topology.zone(AWS)
    assert OUT == ask(service, lambda steers: steers.wanted(zone))
    service.clouds.down.add("aws")
    with pytest.raises(Transient, match="refused"):
        ask(service, lambda steers: steers.wanted(zone))
    service.restore(AWS)
    service.carry(run)
    service.wait(10.0)
    assert 0.0 == service.presence(AWS)
    service.clouds.down.clear()
    service.until_status(run, "restored", "succeeded", "held")
    assert (pytest.approx(service.presence(AWS)), 0.0) == (1.0, service.harmed())


def test_i1_a_run_touches_no_zone_of_its_region_of_which_nobody_knows() -> None:
    """A survivor's step used to put a zone back that another run had out before the document was lost."""
    service = Service()
    run = service.take_out(AWS)
    service.until_status(run, "out")
    service.scheduler.kill(service.carriers[-1][1])
    lose(service)
    survivor = service.topology.zone(AWS_B)
    ask(service, lambda steers: steers.want_zone(survivor, STEADY, Anyone()))
    ask(service, lambda steers: steers.step_region(survivor, Anyone()))
    service.wait(30.0)
    assert 0.0 == service.presence(AWS)


def test_i1_the_weight_of_a_region_of_which_nobody_knows_stays() -> None:
    service = Service()
    here, other = service.topology.region_of(AZURE).id, service.topology.region_of(AWS).id
    service.until_status(service.take_out(AWS), "out")
    service.scheduler.kill(service.carriers[-1][1])
    lose(service)
    service.world.set_dns({here: 40, other: 7})
    assert 7 == ask(service, lambda steers: steers.weight(service.topology.region(other)))
    ask(service, lambda steers: steers.want_weights({here: 50}, Anyone()))
    ask(service, lambda steers: steers.until_weights(Anyone()))
    assert {here: 50, other: 7} == service.world.dns_weights


@pytest.mark.parametrize(
    ("wish", "whole", "seen"),
    [
        (OUT, False, ZoneSeen(Placement.OUT, 0.0, 0, 2, 0, 3)),
        (STEADY, True, ZoneSeen(Placement.STEADY, 1.0, 0, 0, 0, 3)),
        (ramp(0.1), False, ZoneSeen(Placement.RAMP, 0.1, 3, 0, 3, 3)),
        (ramp(1.0), False, ZoneSeen(Placement.RAMP, None, 3, 0, 3, 3)),
        (OUT, False, ZoneSeen(Placement.RAMP, 0.5, 0, 0, 0, 3)),
        (ZoneTraffic(Placement.RAMP, 2 / 3, 2), True, ZoneSeen(Placement.RAMP, 2 / 3, 1, 0, 1, 3)),
        (STEADY, False, ZoneSeen(None, None, 3, 0, 3, 3)),
        (None, True, ZoneSeen(None, None, 3, 0, 3, 3)),
    ],
)
def test_what_a_zone_gets_is_what_is_wanted_of_it(wish: ZoneTraffic | None, whole: bool, seen: ZoneSeen) -> None:
    assert wish == as_it_is(seen, whole_instances=whole)


def lent(service: Service) -> None:
    """AWS is out and sick, and released: no run has its lease until a deploy mends it."""
    run = service.take_out(AWS)
    service.until_status(run, "out")
    service.world.strike(service.world.zones[AWS], Blow.GRAY, 0.6)
    service.restore(AWS)
    service.until(lambda: service.stage(run) is Stage.HELD_OUT)
    order(service, run, "release")
    assert (Stage.LENT, 0.0) == (service.stage(run), service.presence(AWS))


@pytest.mark.parametrize("lost", [False, True])
def test_i1_no_evacuation_empties_a_sound_zone_beside_one_that_only_the_cloud_knows_to_be_out(lost: bool) -> None:
    service = Service()
    lent(service)
    if lost:
        lose(service)
    waits = service.take_out(AZURE, Mode.EVACUATE)
    service.until_status(waits, "held", within_s=3600.0)
    assert pytest.approx(service.presence(AZURE)) == 1.0
    assert f"{AWS} is out; one zone may be out at a time" in service.outing(waits).reason


def test_i10_a_cloud_that_cannot_say_whether_its_zones_are_out_holds_up_no_evacuation() -> None:
    service = Service()
    lent(service)
    lose(service)
    service.clouds.down.add("aws")
    service.take_out(AZURE, Mode.EVACUATE)
    service.until(lambda: service.presence(AZURE) == 0.0, within_s=30.0)


def test_i1_a_zone_that_waits_for_its_deploy_and_is_out_by_its_cloud_alone_is_known_to_be_out() -> None:
    service = Service()
    lent(service)
    waiting = [service.topology.zone(z) for z in (AWS, AWS_B)]
    for _ in range(2):
        stand = ask(service, lambda steers: steers.standing(waiting))
        assert {AWS: OUT, AWS_B: STEADY} == dict(stand)
        lose(service)
    service.clouds.down.add("aws")
    assert {} == dict(ask(service, lambda steers: steers.standing(waiting)))
