"""Between a drill's checks and its watch: a store that is away, kill -9, a freeze, and an hour in which nobody carried it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

import pytest
from workflows.drill_stage import POLICY, DrillService
from workflows.outing_stage import AWS, AZURE, now_

from orchestrator.core.drill import Phase, Wish, begin
from orchestrator.core.drill_row import dump
from orchestrator.core.errors import StoreAway, Transient
from orchestrator.core.outing import Mode
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Lease
from orchestrator.operations.switches import turn
from orchestrator.ports import Peer
from orchestrator.sim.scheduler import Process

PLACES = [pytest.param(AWS, "zone", id="zone"), pytest.param(AZURE.rpartition("-")[0], "region", id="region")]


class Away(MemoryStore):
    """Its audit log cannot be written when the drill's own run has just been created."""

    async def append_audit(self, author: str, act: str, reason: str, result: str, now: datetime) -> None:
        if ".out started" in result:
            raise Transient("state is busy: database is locked")
        await MemoryStore.append_audit(self, author, act, reason, result, now)


class Gone(MemoryStore):
    """For a while a drill can neither look at its rows nor begin its run; whoever carries it writes again before that."""

    def __init__(self, gone: tuple[str, ...]) -> None:
        super().__init__()
        self.gone, self.asked = gone, 0

    def _away(self, what: str) -> None:
        if what in self.gone:
            self.asked += 1
            raise StoreAway("state database: the connection was lost")

    async def leases(self, service: str) -> Sequence[Lease]:
        self._away("leases")
        return await MemoryStore.leases(self, service)

    async def save_peers(self, service: str, zone: str, peers: Sequence[Peer]) -> None:
        self._away("peers")
        await MemoryStore.save_peers(self, service, zone, peers)


def beginning(service: DrillService, place: str, tier: Literal["zone", "region"], ago_s: float = 0.0) -> str:
    """A drill whose checks ended so long ago, and which nobody has carried since."""
    wish = Wish(place, tier, Mode.EVACUATE, replace(POLICY, duration_s=600.0), "ada", "a test")
    state = replace(begin("drill-1", "gates", wish, service.now() - timedelta(seconds=ago_s)), phase=Phase.BEGINNING)
    made = service.store.create_run(
        "drill-1", "gates", "drill", dump(state), "active", author="ada", reason="", now=service.now()
    )
    return now_(made).id


def begins(service: DrillService, run: str) -> None:
    """Its carrier begins the run that takes the place out, and dies before it has said so."""
    _, performer = service.carried("drill", service.ports(Process("dead")))
    now_(performer._operations.begin(service.state(run)))


@pytest.mark.parametrize(("place", "tier"), PLACES)
def test_i11_i15_what_has_begun_is_watched_though_the_store_was_away_just_then(
    place: str, tier: Literal["zone", "region"]
) -> None:
    """It ended as refused, with nothing touched, while its zone left and nobody watched."""
    service = DrillService(users_rps=120.0)
    service.store = Away()
    run = beginning(service, place, tier)
    service.carry(run)
    service.until(lambda: "begun" in service.kinds(run), within_s=30.0)
    assert Phase.WATCHING == service.state(run).phase
    service.said.says["users"] = "bad"
    assert "failed" == service.ended(run)[0]
    assert service.run(f"{run}.out").finished


@pytest.mark.parametrize(("gone", "phase"), [("leases", "checking"), ("peers", "checking"), ("leases", "beginning")])
def test_a_drill_waits_for_a_state_that_is_away_and_is_not_refused_for_it(gone: str, phase: str) -> None:
    """It ended as refused for good, by no rule, when the state came back in time to write just that down."""
    service = DrillService(users_rps=120.0, admit_timeout_s=5.0)
    service.store = store = Gone(())
    run = service.drill() if phase == "checking" else beginning(service, AWS, "zone")
    store.gone = (gone,)
    if phase == "beginning":
        service.carry(run)
    service.wait(8.0)
    assert (True, False) == (store.asked > 0, service.run(run).finished), service.state(run).reason
    store.gone = ()
    service.until(lambda: service.state(run).phase is Phase.WATCHING, within_s=60.0)


@pytest.mark.parametrize(("place", "tier"), PLACES)
def test_i14_a_freeze_after_a_crash_sends_back_what_has_begun(place: str, tier: Literal["zone", "region"]) -> None:
    service = DrillService(users_rps=120.0)
    run = beginning(service, place, tier)
    begins(service, run)
    now_(turn(service.store, "gates", "freeze", on=True, author="eve", reason="sale", now=service.now()))
    service.carry(run)
    status, why = service.ended(run)
    assert ("interrupted", "refused by I14: a freeze is on, and nothing new may start") == (status, why)
    assert service.run(f"{run}.out").finished
    assert pytest.approx(service.presence(AZURE)) == 1.0 == pytest.approx(service.presence(AWS))


def test_i14_a_freeze_before_anything_has_begun_lets_nothing_begin() -> None:
    service = DrillService()
    run = beginning(service, AWS, "zone")
    now_(turn(service.store, "gates", "freeze", on=True, author="eve", reason="sale", now=service.now()))
    service.carry(run)
    assert "interrupted" == service.ended(run)[0]
    assert [run] == [r.id for r in now_(service.store.runs("gates"))]


@pytest.mark.parametrize(("ago_s", "kinds"), [(8.0, ["begun"]), (3600.0, ["stale", "checked", "begun"])])
def test_i15_what_was_checked_long_ago_is_checked_anew(ago_s: float, kinds: list[str]) -> None:
    service = DrillService()
    run = beginning(service, AWS, "zone", ago_s)
    service.carry(run)
    service.until_out(run)
    assert kinds == service.kinds(run)


def test_i15_a_drill_that_stood_still_does_not_begin_on_signals_of_an_hour_ago() -> None:
    """The kill switch, or a machine that was down, between two of its steps (ADR 13)."""
    service = DrillService()
    run = beginning(service, AWS, "zone", 3600.0)
    service.said.says["users"] = "bad"
    service.carry(run)
    assert ("refused", "outcome signal users: bad: a test says so") == service.ended(run)
    assert [run] == [r.id for r in now_(service.store.runs("gates"))]


def test_i11_however_late_what_has_begun_is_watched_and_not_checked_anew() -> None:
    service = DrillService()
    run = beginning(service, AWS, "zone", 3600.0)
    begins(service, run)
    service.carry(run)
    service.until_out(run)
    assert ["begun"] == service.kinds(run)
