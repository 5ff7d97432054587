"""What was read lately is not waited for again, and what was read long ago says nothing of now."""

from __future__ import annotations

from workflows.outing_stage import Service, now_

from orchestrator.sim.scheduler import Process
from orchestrator.workflows.gauge import LONGEST, Gauge


def test_a_zone_is_verified_with_the_loads_that_were_read_while_it_was_upgraded() -> None:
    service = Service()
    run = service.deploy()
    service.until_status(run, "succeeded", within_s=3600.0)
    took = [e.duration_s for e in now_(service.store.events(run)) if e.event.kind == "verified"]
    assert 6 == len(took)
    assert max(took) < 1.5 * service.policy.load_window_s  # For the synthetic requests; a window more was waited for.


def test_i3_a_load_is_not_averaged_over_what_users_asked_for_before() -> None:
    """A zone was admitted on what its region had carried before the weights were moved."""
    service, window_s, measured = Service(users_rps=60.0), 2.0, list[float]()
    process = Process("gauge")
    gauge = Gauge(service.ports(process))

    async def measure() -> None:
        await gauge.tick()
        await service.ports(process).clock.sleep(LONGEST * window_s + 1.0)
        service.world.set_load(600.0)
        loads = await gauge.loads(window_s)
        measured.append(sum(load.rps for load in loads.values()))

    service.scheduler.spawn(process, measure())
    service.wait(30.0)
    assert [True] == [rps > 500.0 for rps in measured]
