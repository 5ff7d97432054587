"""Drills on the workflows that ship, in the simulated world: what ends one, how soon the zone is back, and who pays (nobody)."""

from __future__ import annotations

import pytest
from workflows.drill_stage import DrillService
from workflows.outing_stage import AWS, AWS_B, AZURE, now_

from orchestrator.core.errors import NotFound, Refused
from orchestrator.core.outing import Mode
from orchestrator.core.outing_row import parse
from orchestrator.operations.deploys import behind_drills, order_behind, refuse_taken
from orchestrator.operations.regions import make_way, start_evacuation
from orchestrator.operations.switches import turn
from orchestrator.ports import Finding
from orchestrator.sim.scheduler import Process
from orchestrator.sim.truth import Blow


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_a_good_drill_is_out_for_its_time_and_harms_nobody(zone: str) -> None:
    service = DrillService()
    run = service.drill(zone)
    service.until_out(run)
    assert 0.0 == service.presence(zone)
    service.wait(55.0)
    assert "out" == service.run(f"{run}.out").status
    assert ("succeeded", f"{zone} is back") == service.ended(run)
    assert (1.0, 0.0) == (pytest.approx(service.presence(zone)), service.harmed())
    assert () == tuple(now_(service.store.leases("gates")))
    assert ["checked", "begun", "over", "returned"] == service.kinds(run)


def test_i15_no_drill_is_started_without_an_outcome_signal() -> None:
    service = DrillService()
    with pytest.raises(Refused, match="outcome signal"):
        service.drill(outcome_signals=())
    with pytest.raises(NotFound, match="'weather'"):
        service.drill(outcome_signals=("weather",))
    assert ["refused by I15: a drill needs an outcome signal: somebody outside who says how the service is",
            "not done: there is no signal 'weather'; failout.yaml has users, pages"] == [r for _, r in service.audit()]  # fmt: skip


@pytest.mark.parametrize("says", ["bad", "unknown"])
def test_i15_no_drill_touches_anything_unless_its_outcome_signal_is_good_right_before(says: str) -> None:
    service = DrillService()
    service.said.says["users"] = says
    assert ("refused", f"outcome signal users: {says}: a test says so") == service.ended(service.drill())
    assert 1 == len(now_(service.store.runs("gates")))


def test_a_blocking_signal_that_fires_or_cannot_be_read_refuses_the_start() -> None:
    for says in ("bad", "unknown"):
        service = DrillService()
        service.said.says["pages"] = says
        status, why = service.ended(service.drill(blocking_signals=("pages",)))
        assert ("refused", f"blocking signal pages: {says}: a test says so") == (status, why)


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_i15_an_outcome_signal_that_turns_bad_sends_the_zone_back_at_once(zone: str) -> None:
    """Traffic is back in full within 30 s of virtual time, and the drill has failed."""
    service = DrillService()
    run = service.drill(zone, duration_s=3600.0)
    service.until_out(run)
    service.said.says["users"] = "bad"
    service.until(lambda: service.presence(zone) == pytest.approx(1.0), within_s=30.0)
    assert ("failed", "outcome signal users is bad: a test says so") == service.ended(run)
    assert 0.0 == service.harmed()
    assert "page" in {n.level for n in service.notices if n.run == run}


def test_a_blocking_signal_that_fires_interrupts_it() -> None:
    service = DrillService()
    run = service.drill(blocking_signals=("pages",))
    service.until_out(run)
    service.said.says["pages"] = "bad"
    assert ("interrupted", "blocking signal pages fired: a test says so") == service.ended(run, within_s=60.0)


def test_i15_signals_that_nobody_can_read_end_it_after_the_stated_time_and_not_before() -> None:
    service = DrillService()
    run = service.drill(duration_s=3600.0)
    service.until_out(run)
    service.said.says["users"] = "unknown"
    service.wait(15.0)
    assert "watching" == service.state(run).phase
    service.said.says["users"] = "good"
    service.wait(4.0)
    service.said.says["users"] = "unknown"
    service.wait(18.0)
    assert "watching" == service.state(run).phase, "what is known again counts anew"
    status, why = service.ended(run, within_s=60.0)
    assert ("interrupted", "I15: nobody could say how the service is for 20 s: users: a test says so") == (status, why)


def test_i15_carriers_that_die_one_after_the_other_do_not_begin_to_wait_anew() -> None:
    """Each forgot for how long nobody had read the signals, and none lived long enough. Seed 1796037556."""
    service = DrillService()
    run = service.drill(duration_s=3600.0)
    service.until_out(run)
    service.said.says["users"] = "unknown"

    def carrier() -> Process:
        return [process for carried, process in service.carriers if carried == run][-1]

    for _ in range(4):
        service.wait(9.0)
        service.scheduler.kill(carrier())
        service.until(lambda: service.run(run).finished or carrier().running)
    assert ("interrupted", True) == (service.run(run).status, "nobody could say" in service.state(run).reason)


def test_i3_a_survivor_that_is_lost_ends_it_and_the_zone_is_back() -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=3600.0)
    service.until_out(run)
    service.world.strike(service.world.zones[AWS_B], Blow.DEAD)
    service.until(lambda: service.presence(AWS) == pytest.approx(1.0), within_s=60.0)
    status, why = service.ended(run)
    assert ("interrupted", True) == (status, AWS_B in why)


def test_i1_another_zone_out_or_a_deploy_under_way_refuses_it() -> None:
    service = DrillService()
    out = service.take_out(AZURE)
    service.until_status(out, "out")
    status, why = service.ended(service.drill(AWS))
    assert ("refused", True) == (status, f"run {out} has {AZURE} out" in why)


def test_i14_a_freeze_or_the_kill_switch_lets_none_begin() -> None:
    for name in ("freeze", "kill"):
        service = DrillService()
        now_(turn(service.store, "gates", name, on=True, author="eve", reason="sale", now=service.now()))
        run = service.drill()
        service.wait(30.0)
        assert "refused" == service.run(run).status or name == "kill"
        assert [run] == [r.id for r in now_(service.store.runs("gates"))]


def test_what_doctor_finds_wrong_refuses_it_and_what_it_cannot_check_is_told() -> None:
    service = DrillService()
    service.findings = [Finding("permission", "failed", "autoscaling:SetDesiredCapacity is denied")]
    assert ("refused", "doctor: permission: autoscaling:SetDesiredCapacity is denied") == service.ended(service.drill())
    service.findings = [Finding("quota", "unchecked", "nobody may ask")]
    run = service.drill()
    assert "succeeded" == service.ended(run)[0]
    assert "doctor: ok, 1 findings, 1 could not be made" in service.state(run).checks


def test_i1_a_person_who_takes_a_zone_out_goes_first_and_the_drill_makes_way() -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=3600.0)
    service.until_out(run)
    out = service.take_out(AZURE, Mode.EVACUATE)
    service.until_status(out, "out")
    status, why = service.ended(run)
    assert ("interrupted", True) == (status, "a test" in why and out in why), why
    assert pytest.approx(service.presence(AWS)) == 1.0


@pytest.mark.parametrize("mode", list(Mode))
def test_i1_a_person_who_wants_the_very_zone_takes_it_over_and_it_stays_out(mode: Mode) -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=600.0)
    service.until_out(run)
    assert f"{run}.out" == service.take_out(AWS, mode)
    status, why = service.ended(run, within_s=60.0)
    assert ("interrupted", True) == (status, f"{AWS} was taken over: take-over ordered by ada" in why), why
    service.wait(900.0)
    assert ("out", 0.0) == (service.run(f"{run}.out").status, service.presence(AWS))


@pytest.mark.parametrize(
    ("during", "at", "outcome"), [("watching", "draining", "interrupted"), ("returning", "verifying", "failed")]
)
def test_i1_a_person_who_evacuates_the_zone_of_a_drill_on_its_way_has_it(during: str, at: str, outcome: str) -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=30.0)
    service.until(lambda: service.state(run).phase == during and parse(service.run(f"{run}.out").state).stage == at)
    service.take_out(AWS, Mode.EVACUATE)
    assert outcome == service.ended(run, within_s=60.0)[0]
    service.until_status(f"{run}.out", "out")
    service.wait(900.0)
    assert ("out", 0.0) == (service.run(f"{run}.out").status, service.presence(AWS))


def test_i1_a_deploy_goes_first_too() -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=3600.0)
    service.until_out(run)
    leases, runs = now_(service.store.leases("gates")), {r.id: r for r in now_(service.store.runs("gates"))}
    refuse_taken(leases, runs)
    assert AWS == order_behind(service.topology, behind_drills(leases, runs))[-1]
    now_(make_way(service.store, "gates", "deploy-1", author="eve", reason="v2", now=service.now(), evacuating=False))
    deploy = service.deploy(order_behind(service.topology, behind_drills(leases, runs)))
    status, why = service.ended(run)
    assert ("interrupted", True) == (status, "restore ordered by eve: v2 (run deploy-1)" in why), why
    assert "succeeded" == service.until_status(deploy, "succeeded", "held", within_s=3600.0).status


def test_i11_what_a_drill_begins_is_begun_once() -> None:
    service = DrillService()
    run = service.drill(AWS)
    service.until_out(run)
    _, performer = service.carried("drill", service.ports(Process("another")))
    assert f"{run}.out" == now_(performer._operations.begin(service.state(run))).id
    assert [f"{run}.out", run] == sorted((r.id for r in now_(service.store.runs("gates"))), reverse=True)


def test_an_order_to_abort_brings_the_zone_back() -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=3600.0)
    service.until_out(run)
    now_(service.store.post_order(run, "abort", author="eve", reason="lunch", now=service.now()))
    assert ("interrupted", "abort ordered by eve: lunch") == service.ended(run, within_s=60.0)


@pytest.mark.parametrize("phase", ["checking", "watching", "returning"])
def test_i11_killed_at_any_moment_it_goes_on_and_takes_the_zone_out_once(phase: str) -> None:
    service = DrillService()
    run = service.drill(AWS, duration_s=30.0)
    service.until(lambda: service.state(run).phase == phase)
    for _, process in service.carriers:
        service.scheduler.kill(process)
    assert "succeeded" == service.ended(run)[0]
    assert 1 == service.kinds(f"{run}.out").count("drained")
    assert (pytest.approx(service.presence(AWS)), 0.0) == (1.0, service.harmed())


def test_a_region_drill_empties_the_region_through_the_global_tier_and_brings_it_back() -> None:
    service = DrillService(users_rps=120.0, drain_timeout_s=900.0)  # Some resolvers keep an answer for long.
    region = service.topology.region_of(AZURE).id
    run = service.drill(region, tier="region", duration_s=30.0)
    service.until_out(run)
    status, why = service.ended(run, within_s=1800.0)
    assert ("succeeded", 0.0) == (status, service.harmed()), why
    assert "drill" == dict(service.run(f"{run}.out").state)["asker"]  # type: ignore[arg-type]


def test_i1_a_person_who_wants_the_very_region_takes_it_over_and_it_stays_out() -> None:
    service = DrillService(users_rps=120.0, drain_timeout_s=900.0)
    region = service.topology.region_of(AZURE).id
    run = service.drill(region, tier="region", duration_s=300.0)
    service.until_out(run)
    wants = {"run": "region-1", "author": "eve", "reason": "smoke", "now": service.now()}
    taken = now_(start_evacuation(service.store, service.topology, service.policy, [region], **wants))
    assert f"{run}.out" == taken.id
    status, why = service.ended(run, within_s=60.0)
    assert ("interrupted", True) == (status, "take-over ordered by eve: smoke" in why), why
    service.wait(900.0)
    assert "out" == service.run(f"{run}.out").status


def test_i14_a_person_brings_back_what_a_drill_has_out_also_under_the_kill_switch() -> None:
    """It was ordered, and stood: the drill's outing went on being automatic, and nothing automatic acts."""
    service = DrillService(users_rps=120.0)
    run = service.drill(duration_s=600.0)
    service.until_out(run)
    now_(turn(service.store, "gates", "kill", on=True, author="eve", reason="odd", now=service.now()))
    service.wait(5.0)
    service.restore(AWS)
    service.until_status(f"{run}.out", "restored", within_s=120.0)
    assert pytest.approx(service.presence(AWS)) == 1.0
    now_(turn(service.store, "gates", "kill", on=False, author="eve", reason="odd", now=service.now()))
    assert ("interrupted", True) == (service.ended(run)[0], "was taken over" in service.ended(run)[1])
