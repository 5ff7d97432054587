"""I8: a zone that stays out warns at 80 %, pages when its time is over and again later, and then policy acts once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.machine import Event
from orchestrator.core.policy import DeployPolicy, OnExpiry
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Advance
from orchestrator.operations.expiry import Expiries
from orchestrator.ports import Notice

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ALLOWED_S = 100.0


@dataclass
class Ears:
    heard: list[Notice] = field(default_factory=list)

    async def notify(self, notice: Notice) -> None:
        self.heard.append(notice)


def do(act: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(act)


@dataclass
class Bench:
    policy: DeployPolicy = field(default_factory=DeployPolicy)
    status: str = "active"
    kind: str = "deploy"
    store: MemoryStore = field(default_factory=lambda: MemoryStore(out_expires_s=ALLOWED_S))
    ears: Ears = field(default_factory=Ears)

    def __post_init__(self) -> None:
        do(self.store.create_run("d1", "gates", self.kind, {}, "active", author="ada", reason="", now=NOW))
        do(self.store.claim("d1", "me", NOW))
        self.commit("aws/a", self.status)
        self.watcher = self.watch()

    def commit(self, zone: str | None, status: str, event: Event | None = None) -> None:
        step = Advance({}, status, zone, False, event or Event("x"), None, 0.0)
        do(self.store.commit(do(self.store.load("d1")), step, NOW))

    def watch(self, carrier: str = "me") -> Expiries:
        return Expiries(self.store, self.ears, "gates", self.policy, carrier)

    def levels(self, *seconds: float) -> list[str]:
        """Look at these moments; what was heard in all."""
        for at in seconds:
            do(self.watcher.look(NOW + timedelta(seconds=at)))
        return [notice.level for notice in self.ears.heard]

    def orders(self) -> list[str]:
        return [order.kind for order in do(self.store.pending("d1")).orders]


def test_it_warns_at_80_percent_pages_at_the_end_and_again_every_quarter() -> None:
    bench = Bench()
    assert [] == bench.levels(0, 50, 79)
    assert ["warning"] == bench.levels(80, 90, 99)
    assert ["warning", "page"] == bench.levels(100, 110, 124)
    assert ["warning", "page", "page"] == bench.levels(125, 130)
    notice = bench.ears.heard[1]
    assert ("d1", "aws/a", "I8", "failout report show d1") == (
        notice.run,
        notice.zone,
        notice.rule,
        notice.next_command,
    )
    assert "100% of the 100 s allowed" in notice.evidence


@pytest.mark.parametrize(("choice", "order"), [(OnExpiry.HOLD, "pause"), (OnExpiry.RESTORE, "abort")])
def test_policy_acts_once_whatever_process_watches(choice: OnExpiry, order: str) -> None:
    bench = Bench(DeployPolicy(on_expiry=choice))
    bench.levels(100, 130, 160)
    assert [order] == bench.orders()
    bench.watcher = bench.watch()
    bench.levels(200)
    assert [order] == bench.orders(), "a process that starts anew sees that it was ordered"
    given = do(bench.store.pending("d1")).orders[0]
    bench.commit("aws/a", "paused", Event(order, args=given.args, order=given.id))
    bench.watcher = bench.watch()
    bench.levels(230)
    assert [] == bench.orders(), "and that it was obeyed"


def test_a_run_that_waits_for_a_person_already_is_only_told_again() -> None:
    bench = Bench(status="held")
    assert ["page", "page"] == bench.levels(100, 126)[-2:]
    assert [] == bench.orders()


def test_a_region_that_is_on_its_way_back_is_told_of_and_not_paused_for_having_been_out_for_long() -> None:
    bench = Bench(kind="region")
    assert ["page", "page"] == bench.levels(100, 126)
    assert ([], True) == (bench.orders(), bench.ears.heard[-1].evidence.endswith("; the run is active"))


def test_a_lease_that_is_given_back_is_silent_and_a_new_one_counts_from_its_own_beginning() -> None:
    bench = Bench()
    bench.levels(85)
    bench.commit(None, "active")
    assert ["warning"] == bench.levels(150, 300)
    bench.commit("aws/b", "active")
    assert ["warning", "warning"] == bench.levels(90)


def test_only_the_process_that_carries_the_run_speaks() -> None:
    bench = Bench()
    bench.watcher = bench.watch("another")
    assert [] == bench.levels(100, 500)


def test_i14_while_the_kill_switch_is_on_no_abort_is_ordered_until_a_later_look() -> None:
    """The run took it, for orders are a person's: its whole course was an abort from then on."""
    bench = Bench(DeployPolicy(on_expiry=OnExpiry.RESTORE))
    do(bench.store.set_switch("gates", "kill", on=True, author="ada", reason="stop", now=NOW))
    bench.levels(100)
    assert [] == bench.orders()
    assert "abort is not ordered, for the kill switch is on (I14)" in bench.ears.heard[-1].evidence
    do(bench.store.set_switch("gates", "kill", on=False, author="ada", reason="go on", now=NOW))
    bench.levels(125)
    assert ["abort"] == bench.orders()
