"""What is unfinished is found however many runs have ended since: the refused drills of a schedule are runs, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from workflows.drill_stage import DrillService
from workflows.outing_stage import AWS, Service, now_

from orchestrator.core.drill import DrillPolicy, Wish, begin
from orchestrator.core.drill_row import dump
from orchestrator.core.machine import Event
from orchestrator.core.outing import Mode
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Advance
from orchestrator.operations.deploys import unfinished_deploy
from orchestrator.operations.outings import outing_of

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def refuse_many(store: MemoryStore) -> None:
    for number in range(510):
        now = LATER + timedelta(minutes=number)
        wish = Wish(AWS, "zone", Mode.DRAIN, DrillPolicy(("users",)), "failout", "nightly")
        state = dump(begin(f"nightly-{number}", "gates", wish, now))
        made = store.create_run(f"nightly-{number}", "gates", "drill", state, "active", author="a", reason="", now=now)
        end = Advance(state, "refused", None, True, Event("refused"), None, 0.0)
        now_(store.commit(now_(made), end, now))


def test_i8_a_zone_that_is_out_is_found_and_can_be_restored() -> None:
    service = Service()
    run = service.take_out(AWS)
    service.until_status(run, "out")
    refuse_many(service.store)
    found = now_(outing_of(service.store, "gates", AWS))
    assert found is not None
    assert run == found.id
    service.restore(AWS)
    assert service.until_status(run, "restored").finished


def test_i1_a_deploy_is_found_and_no_drill_begins_beside_it() -> None:
    service = DrillService()
    deploy = service.deploy()
    service.until(lambda: bool(service.kinds(deploy)))
    refuse_many(service.store)
    assert deploy == now_(unfinished_deploy(service.store, "gates")).id
    status, why = service.ended(service.drill())
    assert ("refused", True) == (status, f"deploy {deploy} of eve is active" in why), why
