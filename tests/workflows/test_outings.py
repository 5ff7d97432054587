"""Zones taken out by people, on the workflows that ship, in the simulated world: what users notice, and who makes way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from workflows.outing_stage import AWS, AWS_B, AZURE, Service, now_

from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.outing import Asker, Mode
from orchestrator.core.outing_table import Stage
from orchestrator.engine import ledger
from orchestrator.operations.deploys import order
from orchestrator.operations.switches import turn
from orchestrator.sim.faults import Fault
from orchestrator.sim.truth import Blow

EVACUATE = Mode.EVACUATE


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_a_zone_drained_and_restored_harms_nobody_and_returns_in_one_step(zone: str) -> None:
    service = Service()
    run = service.take_out(zone)
    service.until_status(run, "out")
    assert 0.0 == service.presence(zone)
    service.restore(zone)
    service.until_status(run, "restored")
    assert (1.0, 0.0) == (pytest.approx(service.presence(zone)), service.harmed())
    assert 1 == service.kinds(run).count("step-passed")
    assert () == tuple(now_(service.store.leases("gates")))


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_an_evacuated_zone_returns_in_steps(zone: str) -> None:
    service = Service()
    run = service.take_out(zone, EVACUATE)
    service.until_status(run, "out")
    assert ["go", "evacuated"] == service.kinds(run)[:2]
    assert 0.0 == service.presence(zone)
    service.restore(zone)
    service.until_status(run, "restored")
    assert pytest.approx(service.presence(zone)) == 1.0
    assert 1 < len(service.outing(run).steps)


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_i10_a_zone_is_emptied_while_its_clouds_api_is_down_once_its_instances_were_seen(zone: str) -> None:
    service = Service()
    first = service.take_out(zone)
    service.until_status(first, "out")
    service.restore(zone)
    service.until_status(first, "restored")
    service.clouds.down.add(zone.split("/", maxsplit=1)[0])
    run = service.take_out(zone, EVACUATE)
    service.until(lambda: "evacuated" in service.kinds(run), within_s=20.0)
    assert all(not box.admitted for box in service.world.zones[zone].boxes)
    service.clouds.down.clear()
    service.restore(zone)
    service.until_status(run, "restored")
    assert pytest.approx(service.presence(zone)) == 1.0
    assert all(box.admitted for box in service.world.zones[zone].boxes)


def test_i3_a_drain_that_survivors_cannot_carry_is_refused_with_the_arithmetic_and_can_be_overridden_by_name() -> None:
    service = Service(users_rps=560.0, scale_survivors=False, admit_timeout_s=10.0)
    refused = service.take_out(AWS)
    service.until_status(refused, "refused")
    assert "refused by I3" in service.outing(refused).reason
    assert "allowed 0.75" in service.outing(refused).reason
    run = service.take_out(AWS, overrides=("I3",))
    service.until_status(run, "out")
    told = [e.event.evidence for e in now_(service.store.events(run)) if e.event.kind == "admitted"]
    assert "I3 is overridden" in told[0]
    assert any("overriding I3" in act for act, _ in service.audit())


def test_i3_after_an_evacuation_the_survivors_are_scaled_and_afterwards_scaled_back() -> None:
    service = Service(users_rps=460.0)
    before = {z: len(place.boxes) for z, place in service.world.zones.items()}
    run = service.take_out(AWS, EVACUATE)
    service.until_status(run, "out")
    assert ["go", "evacuated", "replanned"] == service.kinds(run)[:3]
    assert len(service.world.zones[AWS_B].boxes) > before[AWS_B]
    service.restore(AWS)
    service.until_status(run, "restored")
    assert before == {z: len(place.boxes) for z, place in service.world.zones.items()}


def test_i3_survivors_without_room_stay_as_they_are_and_the_global_tier_moves_what_they_cannot_carry() -> None:
    service = Service(users_rps=420.0)
    aws = service.topology.region_of(AWS)
    for zone in aws.zones:
        service.world.zones[zone.id].no_capacity = True
    before = {z: len(place.boxes) for z, place in service.world.zones.items()}
    weights = dict(service.world.dns_weights)
    run = service.take_out(AWS)
    service.until_status(run, "out")
    told = [e.event.evidence for e in now_(service.store.events(run)) if e.event.kind == "replanned"]
    assert "no room" in told[0]
    assert "the global tier moves load" in told[0]
    assert service.world.dns_weights["azure/eastus"] > service.world.dns_weights[aws.id]
    assert before == {z: len(place.boxes) for z, place in service.world.zones.items()}
    service.restore(AWS)
    service.until_status(run, "restored")
    assert (weights, 0.0) == (service.world.dns_weights, service.harmed())


def test_i1_a_drain_is_refused_while_a_deploy_has_another_zone_out_naming_it() -> None:
    service = Service()
    deploy = service.deploy()
    service.until(lambda: bool(now_(service.store.leases("gates"))))
    with pytest.raises(Refused, match=rf"deploy {deploy} of eve has .* since") as refused:
        service.take_out(AZURE)
    assert ("I1", f"failout deployments show {deploy}   (or: abort)") == (
        refused.value.rule,
        refused.value.next_command,
    )
    assert service.audit()[-1][1].startswith("refused by I1")


def test_i1_an_evacuation_suspends_the_deploy_and_goes_once_its_zone_is_back() -> None:
    service = Service()
    deploy = service.deploy()
    service.until(lambda: "upgraded" in service.kinds(deploy))
    (lease,) = now_(service.store.leases("gates"))
    other = AZURE if lease.zone != AZURE else AWS
    run = service.take_out(other, EVACUATE)
    service.until(lambda: "evacuated" in service.kinds(run))
    assert pytest.approx(service.presence(lease.zone)) == 1.0
    assert "held" == service.run(deploy).status
    assert 0.0 == service.harmed()
    service.restore(other)
    service.until_status(run, "restored")
    now_(order(service.store, deploy, "resume", author="eve", reason="on", now=service.now()))
    service.until_status(deploy, "succeeded", within_s=3000.0)
    assert {"v2"} == {box.version for place in service.world.zones.values() for box in place.boxes}


def test_i1_a_dead_zone_is_evacuated_while_another_is_out() -> None:
    service = Service()
    deploy = service.deploy()
    service.until(lambda: "drained" in service.kinds(deploy))
    (lease,) = now_(service.store.leases("gates"))
    other = AZURE if lease.zone != AZURE else AWS
    service.world.strike(service.world.zones[other], Blow.DEAD)
    service.wait(5.0)
    run = service.take_out(other, EVACUATE)
    service.until(lambda: "evacuated" in service.kinds(run), within_s=20.0)
    assert "dead" in service.kinds(run)
    assert 2 == len(now_(service.store.leases("gates")))
    service.world.heal(service.world.zones[other])
    service.until_status(deploy, "held")
    service.wait(10.0)
    service.restore(other)
    service.until_status(run, "restored", "held")
    assert "restored" == service.run(run).status, service.told()


def test_i1_a_person_is_not_made_to_wait_by_a_drill_and_no_persons_outing_is_undone() -> None:
    service = Service()
    drill = service.take_out(AWS, asker=Asker.DRILL)
    service.until_status(drill, "out")
    mine = service.take_out(AZURE)
    service.until_status(mine, "out")
    assert "restored" == service.run(drill).status
    theirs = service.take_out(AWS, EVACUATE)
    service.wait(60.0)
    assert ("out", Stage.WAITING) == (service.run(mine).status, service.stage(theirs))
    service.restore(AZURE)
    service.until_status(theirs, "out")


def test_an_evacuation_of_a_zone_that_drains_speeds_it_up_and_a_second_drain_is_refused() -> None:
    service = Service()
    run = service.take_out(AWS)
    service.until(lambda: service.stage(run) in {Stage.PREPARING, Stage.DRAINING})
    with pytest.raises(Refused, match="already"):
        service.take_out(AWS)
    assert run == service.take_out(AWS, EVACUATE)
    service.until_status(run, "out")
    assert EVACUATE is service.outing(run).ask.mode


def test_a_zone_that_fails_on_its_way_back_is_emptied_at_once_and_pages() -> None:
    service = Service()
    run = service.take_out(AWS)
    service.until_status(run, "out")
    service.restore(AWS)
    service.until(lambda: service.stage(run) is Stage.RAMPING)
    service.world.strike(service.world.zones[AWS], Blow.GRAY, 0.5)
    service.until_status(run, "held")
    assert (Stage.OUT, True) == (service.stage(run), service.outing(run).sick)
    assert "page" in {notice.level for notice in service.notices}
    service.world.heal(service.world.zones[AWS])
    service.wait(5.0)
    service.restore(AWS)
    service.until_status(run, "restored")
    assert 1 < len(service.outing(run).steps)


def test_i8_an_evacuation_that_waits_until_it_expires_is_told_and_withdrawn() -> None:
    """It said nothing, and was carried out hours later, of a zone that was well by then."""
    service = Service()
    first = service.take_out(AWS)
    service.until_status(first, "out")
    waits = service.take_out(AZURE, EVACUATE)
    service.wait(3610.0)
    told = [n for n in service.notices if n.zone == AZURE]
    assert [("warning", "expires", "I8"), ("page", "expired", "I8")] == [(n.level, n.what, n.rule) for n in told]
    assert f"{AZURE} has not left by 2030-01-01 01:00:" in told[1].evidence
    assert f"run {first} has {AWS}" in told[1].evidence
    assert f"failout zone evacuate {AZURE} --override I1" in str(told[1].next_command)
    service.restore(AWS)
    service.wait(60.0)
    assert (Stage.WITHDRAWN, 1.0) == (service.stage(waits), pytest.approx(service.presence(AZURE)))


def test_i4_an_evacuation_that_waits_goes_when_it_is_asked_for_again_with_the_rule_overridden() -> None:
    service = Service()
    service.until_status(service.take_out(AWS), "out")
    waits = service.take_out(AZURE, EVACUATE)
    service.wait(20.0)
    assert Stage.WAITING == service.stage(waits)
    assert waits == service.take_out(AZURE, EVACUATE, overrides=("I1",))
    service.until_status(waits, "out", within_s=30.0)
    assert ("I1",) == service.outing(waits).ask.overrides


def test_i14_a_freeze_refuses_a_drain_and_no_evacuation_and_no_restore() -> None:
    service = Service()
    now_(turn(service.store, "gates", "freeze", on=True, author="bob", reason="sale", now=service.now()))
    with pytest.raises(Refused, match="set by bob: sale"):
        service.take_out(AWS)
    run = service.take_out(AWS, EVACUATE)
    service.until_status(run, "out")
    service.restore(AWS)
    service.until_status(run, "restored")


def test_i14_the_kill_switch_stops_no_person() -> None:
    service = Service()
    now_(turn(service.store, "gates", "kill", on=True, author="bob", reason="odd", now=service.now()))
    run = service.take_out(AWS, EVACUATE)
    service.until_status(run, "out")
    service.restore(AWS)
    service.until_status(run, "restored")


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
def test_i11_a_carrier_killed_at_any_call_leaves_the_same_end(mode: Mode, fault: Fault) -> None:
    for call in range(2, 80, 7):
        service = Service(plan={call: fault})
        run = service.take_out(AWS, mode)
        service.until_status(run, "out")
        service.restore(AWS)
        service.until_status(run, "restored")
        assert pytest.approx(service.presence(AWS)) == 1.0
        assert () == tuple(now_(service.store.leases("gates"))), call


def test_wrong_input_changes_nothing_and_is_audited() -> None:
    service = Service()
    with pytest.raises(NotFound, match="no zone"):
        service.take_out("aws/nowhere-1a")
    with pytest.raises(Rejected, match="cannot be overridden"):
        service.take_out(AWS, overrides=("I13",))
    with pytest.raises(NotFound, match="is not out"):
        service.restore(AWS)
    assert [] == list(now_(service.store.runs("gates")))
    assert 3 == len(service.audit())


def test_the_audit_log_names_the_first_broken_line() -> None:
    service = Service()
    run = service.take_out(AWS)
    service.until_status(run, "out")
    service.restore(AWS)
    entries = list(now_(service.store.audit()))
    assert None is ledger.verify(entries)
    for broken in ([replace(entries[0], author="eve"), *entries[1:]], entries[1:]):
        assert f"entry {broken[0].id}" in str(ledger.verify(broken))


def test_i3_after_an_evacuation_no_zone_is_scaled_that_is_out_and_carries_nobody() -> None:
    service = Service(users_rps=400.0)
    out = service.take_out(AWS_B)
    service.until_status(out, "out")
    before = len(service.world.zones[AWS_B].boxes)
    run = service.take_out(AWS, EVACUATE, overrides=("I1",))
    service.until_status(run, "out")
    told = [e.event.args["undo"] for e in now_(service.store.events(run)) if e.event.kind == "prepared"]
    assert (before, False) == (len(service.world.zones[AWS_B].boxes), AWS_B in str(told[-1]))
    assert "aws/us-east-1c" in str(told[-1])
