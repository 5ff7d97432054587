"""What was read lately is not waited for again, and what was read long ago says nothing of now."""

from __future__ import annotations

from workflows.outing_stage import Service, now_

from orchestrator.core.guards import Refusal, refuse_unsound_survivors, unsound
from orchestrator.core.health import GatePolicy
from orchestrator.sim.scheduler import Process
from orchestrator.sim.truth import Blow
from orchestrator.workflows.gauge import LOAD_STALE_S, LONGEST, Gauge


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


def test_i2_a_zone_that_failed_many_is_not_sound_because_few_have_come_since() -> None:
    """At night one window has three requests of it, and what it did twenty seconds ago was forgotten. Seed 1796036953853."""
    service, window_s, told = Service(users_rps=400.0), 2.0, list[str | None]()
    process = Process("gauge")
    gauge, zone = Gauge(service.ports(process)), service.world.zones["aws/us-east-1c"]

    async def measure() -> None:
        clock = service.ports(process).clock
        service.world.strike(zone, Blow.GRAY, 0.5)
        await gauge.tick()
        await clock.sleep(2.0)
        service.world.set_load(8.0)
        await clock.sleep(LOAD_STALE_S + 3.0)
        loads = await gauge.loads(window_s)
        told.append(unsound(zone.zone.id, loads[zone.zone.id], GatePolicy()))

    service.scheduler.spawn(process, measure())
    service.wait(30.0)
    assert ["aws/us-east-1c fails"] == [why and why[:20] for why in told]


def test_i2_a_zone_that_serves_few_is_watched_for_five_windows_before_it_counts_as_sound() -> None:
    """A carrier that had just begun saw none of what a zone failed: one request in two seconds. Seed 1796095000716."""
    service, window_s, told = Service(users_rps=6.0), 2.0, list[tuple[float, Refusal | None]]()
    process = Process("gauge")
    gauge, sick = Gauge(service.ports(process)), service.world.zones["aws/us-east-1c"]

    async def measure() -> None:
        clock = service.ports(process).clock
        service.world.strike(sick, Blow.GRAY, 0.95)
        while clock.monotonic() < 30.0:
            loads = await gauge.loads(window_s)
            told.append((clock.monotonic(), refuse_unsound_survivors("", loads, service.topology, GatePolicy())))
            await clock.sleep(1.0)

    service.scheduler.spawn(process, measure())
    service.wait(40.0)
    assert all(refusal is not None for _, refusal in told), "too few to tell at first, then sick"
    first, last = told[0][1], told[-1][1]
    assert (True, True) == (first and "too few to tell" in first.reason, last and "aws/us-east-1c fails" in last.reason)


def test_a_service_without_users_is_watched_and_then_as_sound_as_its_readiness() -> None:
    service, told = Service(users_rps=0.5), list[tuple[float, Refusal | None]]()
    process = Process("gauge")
    gauge = Gauge(service.ports(process))

    async def measure() -> None:
        clock = service.ports(process).clock
        began_s = clock.monotonic()
        while clock.monotonic() < began_s + 15.0:
            loads = await gauge.loads(2.0)
            told.append(
                (clock.monotonic() - began_s, refuse_unsound_survivors("", loads, service.topology, GatePolicy()))
            )
            await clock.sleep(1.0)

    service.scheduler.spawn(process, measure())
    service.wait(30.0)
    welcome_s = next(at_s for at_s, refusal in told if refusal is None)
    assert 10.0 <= welcome_s <= 12.0
