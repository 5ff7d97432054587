"""Fleets whose own autoscalers are at work while a zone is out: nobody undoes what the other has done."""

from __future__ import annotations

import pytest
from workflows.outing_stage import AWS, AWS_B, AZURE, Service, now_

from orchestrator.core.deploy import begin
from orchestrator.core.traffic import STEADY
from orchestrator.sim.scheduler import Process
from orchestrator.sim.truth import ZoneTruth
from orchestrator.workflows.capacity import Capacity
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.job import Job
from orchestrator.workflows.steering import Steering

AZURE_B = "azure/eastus-2"
BUSY = 460.0  # more than the survivors can carry as they are
SIZE = 3


class Anyone:
    """A fence that lets everybody through."""

    number = 0

    async def check(self) -> None:
        return


async def never() -> bool:
    return False


def autoscaled(service: Service, zone: str, instances: int) -> None:
    """Its cloud's autoscaler sets another size; its minimum stays."""
    place = service.world.zones[zone]
    minimum = place.minimum
    service.world.scale(place, instances)
    place.minimum = minimum


@pytest.mark.parametrize(("zone", "survivor"), [(AWS, AWS_B), (AZURE, AZURE_B)])
def test_what_a_survivors_autoscaler_has_made_more_of_it_stays_and_its_minimum_is_given_back(
    zone: str, survivor: str
) -> None:
    service = Service(BUSY)
    place = service.world.zones[survivor]
    run = service.take_out(zone)
    service.until_status(run, "out")
    asked = place.desired
    assert (asked, True) == (place.minimum, asked > SIZE)
    autoscaled(service, survivor, asked + 2)
    service.restore(zone)
    service.until_status(run, "restored")
    assert (asked + 2, SIZE) == (place.desired, place.minimum)
    assert asked + 2 == sum(box.admitted for box in place.boxes)
    assert 0.0 == service.harmed()


def test_preparing_takes_nothing_away_that_a_survivors_autoscaler_added_since_admission() -> None:
    service = Service(BUSY)
    place = service.world.zones[AWS_B]
    run = service.take_out(AWS)
    service.until(lambda: "admitted" in service.kinds(run))
    autoscaled(service, AWS_B, 8)
    service.until_status(run, "out")
    assert 8 == place.desired
    service.restore(AWS)
    service.until_status(run, "restored")
    assert (8, SIZE) == (place.desired, place.minimum)


@pytest.mark.parametrize(("zone", "survivor"), [(AWS, AWS_B), (AZURE, AZURE_B)])
def test_a_survivor_that_grows_anew_while_it_is_made_smaller_does_not_hold_the_return(zone: str, survivor: str) -> None:
    service = Service(BUSY)
    place = service.world.zones[survivor]
    run = service.take_out(zone)
    service.until_status(run, "out")
    service.restore(zone)
    service.until(lambda: place.desired == SIZE)
    autoscaled(service, survivor, SIZE + 1)
    service.until_status(run, "restored", within_s=120.0)
    assert SIZE + 1 == place.desired
    assert 0.0 == service.harmed()


def test_a_survivor_that_is_smaller_than_before_by_now_is_not_made_larger_to_put_it_back() -> None:
    """Found by simulation: it had been scaled by another run, which put it back first."""
    service = Service(BUSY)
    place = service.world.zones[AWS_B]
    service.world.scale(place, SIZE + 1)
    service.wait(30.0)
    run = service.take_out(AWS)
    service.until_status(run, "out")
    service.world.scale(place, SIZE)
    service.restore(AWS)
    service.until_status(run, "restored")
    assert (SIZE, SIZE) == (place.desired, place.minimum)


def emptying() -> tuple[Service, ZoneTruth, str]:
    """A zone is back, and what its survivor was scaled by is being taken out of traffic."""
    service = Service(BUSY)
    place = service.world.zones[AZURE_B]
    run = service.take_out(AZURE)
    service.until_status(run, "out")
    service.restore(AZURE)
    service.until(lambda: any(not box.admitted for box in place.boxes))
    return service, place, run


def test_a_survivor_that_grows_while_its_surplus_is_emptied_loses_none_that_serves() -> None:
    service, place, run = emptying()
    autoscaled(service, AZURE_B, place.desired + 2)
    service.until_status(run, "restored", within_s=200.0)
    assert SIZE == place.desired
    assert 0.0 == service.harmed()


def test_instances_that_are_leaving_are_not_asked_back() -> None:
    """Found by simulation: an order in the middle of a scaling back asked for capacity anew, and got what was leaving too."""
    service = Service(users_rps=200.0)
    place = service.world.zones[AWS_B]
    service.world.scale(place, SIZE + 3)
    service.wait(30.0)
    service.world.scale(place, SIZE)
    assert SIZE + 3 == len(place.boxes)
    process = Process("hand")
    ports = service.ports(process)
    state = begin("gates", "v2", dict.fromkeys([AWS], "v1"), (AWS,), service.policy, service.now())
    job = Job(ports, service.topology.zone(AWS), state.zone(AWS), service.policy, Anyone(), never)
    growing = Capacity(Gauge(ports), Steering(ports)).grow(job, service.topology.zone(AWS_B), SIZE + 1)
    service.scheduler.spawn(process, growing)
    service.wait(5.0)
    assert SIZE + 1 == place.desired


def test_what_a_cloud_has_no_room_for_makes_no_survivor_unsound() -> None:
    service = Service(users_rps=200.0)
    place = service.world.zones[AWS_B]
    place.no_capacity, place.desired = True, SIZE + 2
    service.until_status(service.take_out(AWS), "out", within_s=60.0)


def test_a_zone_leaves_with_what_its_cloud_has_room_for_and_its_minimum_stays() -> None:
    service = Service(users_rps=200.0)
    place = service.world.zones[AWS]
    place.no_capacity, place.desired, place.minimum = True, SIZE + 2, 2
    service.until_status(service.take_out(AWS), "out", within_s=60.0)
    assert (SIZE, 2, SIZE) == (place.desired, place.minimum, len(place.boxes))


def test_a_scaling_back_that_was_cut_short_leaves_no_instance_out_of_traffic() -> None:
    """Failout was killed while the surplus was emptied; before it went on, the autoscaler had made more of the zone."""
    service, place, run = emptying()
    service.scheduler.kill(service.carriers[-1][1])
    autoscaled(service, AZURE_B, 8)
    service.until_status(run, "restored", within_s=200.0)
    assert (8, 8) == (place.desired, sum(box.admitted for box in place.boxes))
    document = now_(service.store.load_traffic("gates"))
    assert document is not None
    assert STEADY == document.zones[AZURE_B]
