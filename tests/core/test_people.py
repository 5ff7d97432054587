"""I13: what a person may say in each state of both machines, and what it does there."""

from __future__ import annotations

import pytest
from core import explore, explore_outing
from msgspec.structs import replace

from orchestrator.core import deploy, outing
from orchestrator.core.deploy import apply, decide
from orchestrator.core.deploy_table import Course, E, RunStatus
from orchestrator.core.machine import Effect, Event, Facts, Order
from orchestrator.core.outing_table import OutingEvent, Stage
from orchestrator.core.policy import OnFailure
from orchestrator.core.topology import ZoneState as Z

S, G = RunStatus, Stage
ACCEPTED = {
    S.ACTIVE: {"pause", "abort", "rollback", "retarget", "suspend"},
    S.PAUSED: {"resume", "abort", "rollback", "retarget", "suspend"},
    S.HELD: {"pause", "resume", "abort", "rollback", "retarget", "suspend"},
    S.SUCCEEDED: set(),
    S.FAILED: set(),
    S.ABORTED: set(),
    S.ROLLED_BACK: set(),
}
# Of a deploy that goes forward, the zone at hand: where an order sends it.
SENT = {
    "abort": {
        Z.PREPARING: Z.SETTLING,
        Z.DRAINING: Z.JOINING,
        Z.UPGRADING: Z.DRAINING,
        Z.VERIFYING: Z.DRAINING,
        Z.RAMPING: Z.PREPARING,
        Z.JOINING: Z.PREPARING,
        Z.BAKING: Z.PREPARING,
        Z.SETTLING: Z.PREPARING,
        Z.HELD_PREPARING: Z.PREPARING,
        Z.HELD_OUT: Z.DRAINING,
        Z.HELD_SERVING: Z.PREPARING,
    },
    "suspend": {Z.PREPARING: Z.SETTLING, Z.DRAINING: Z.JOINING, Z.BAKING: Z.SETTLING},  # everything else goes on
    "pause": {},
}
SAID = {  # of an outing that is not paused: the orders that each stage takes, beyond pause and extend; a drill's: taken over
    G.WAITING: {"abort", "restore", "evacuate"},
    G.PREPARING: {"abort", "restore", "evacuate"},
    G.DRAINING: {"abort", "restore", "evacuate"},
    G.EVACUATING: {"abort", "restore"},
    G.RELIEVING: {"abort", "restore"},
    G.OUT: {"abort", "restore", "resume"},
    G.RETURNING: {"abort", "restore", "evacuate"},
    G.VERIFYING: {"abort", "restore", "evacuate"},
    G.RAMPING: {"abort", "restore", "evacuate"},
    G.JOINING: {"abort", "restore", "evacuate"},
    G.SETTLING: {"abort", "restore", "evacuate"},
    G.HELD_LEAVING: {"abort", "restore", "evacuate", "resume"},
    G.HELD_OUT: {"abort", "restore", "resume", "release"},
    G.LENT: {"abort", "restore", "resume"},
    G.HELD_SERVING: {"abort", "restore", "evacuate", "resume"},
    G.HELD_SETTLING: {"abort", "restore", "evacuate", "resume"},
}


@pytest.fixture(scope="module")
def deploys() -> list[deploy.DeployState]:
    return explore.explore(OnFailure.ROLLBACK_ZONE).states


@pytest.fixture(scope="module")
def outings() -> set[outing.OutingState]:
    asks = (explore_outing.ask(mode, asker) for mode in outing.Mode for asker in outing.Asker)
    return {state for ask in asks for state in explore_outing.explore(ask).states}


def test_a_deploy_takes_these_orders_and_refuses_the_others_by_name(deploys: list[deploy.DeployState]) -> None:
    for state in deploys:
        taken = set()
        for kind in deploy.ORDERS:
            event = deploy.decide(state, Facts(explore.NOW, (explore.order(kind),)))
            if state.status in deploy.FINISHED:
                assert event is None
                continue
            assert isinstance(event, Event)
            taken |= {kind} if event.kind == kind else set()
            assert event.kind == kind or f"{kind} makes no sense while the run is {state.status}" == event.evidence
        assert ACCEPTED[state.status] == taken


@pytest.mark.parametrize("kind", sorted(SENT))
def test_an_order_sends_the_zone_at_hand_where_the_table_says(deploys: list[deploy.DeployState], kind: str) -> None:
    seen = set()
    for state in deploys:
        zone = state.active_zone()
        forward = state.course is Course.FORWARD and zone is not None and not (zone.reverting or zone.withdrawing)
        if not forward or kind not in ACCEPTED[state.status]:
            continue
        assert zone is not None
        event = deploy.decide(state, Facts(explore.NOW, (explore.order(kind),)))
        assert isinstance(event, Event)
        after = deploy.apply(state, event, explore.NOW).zone(zone.zone).state
        sent = SENT[kind].get(zone.state, zone.state)
        if zone.touched and zone.state in {Z.PREPARING, Z.DRAINING}:
            sent = zone.state  # It has been changed: the careful way, whichever way.
        assert (sent, zone.state) == (after, zone.state)
        seen.add(zone.state)
    assert seen >= set(SENT[kind])


def test_a_suspended_deploy_brings_its_zone_back_starts_no_other_and_waits_for_a_person(
    deploys: list[deploy.DeployState],
) -> None:
    for state in deploys:
        if state.suspended and state.status is S.ACTIVE and state.active_zone() is None:
            event = deploy.decide(state, Facts(explore.NOW))
            assert isinstance(event, Event)
            if state.next_zone() is not None:
                assert ("complete-suspend", S.HELD) == (event.kind, deploy.apply(state, event, explore.NOW).status)


def test_an_outing_takes_these_orders_and_refuses_the_others_by_name(outings: set[outing.OutingState]) -> None:
    assert set(SAID) == {state.stage for state in outings} - outing.FINISHED
    for state in outings:
        if state.stage in outing.FINISHED or state.paused:
            continue
        said = {kind: outing.decide(state, Facts(explore.NOW, (explore_outing.order(kind),))) for kind in _ALL}
        taken = {kind for kind, event in said.items() if isinstance(event, Event) and event.kind in set(OutingEvent)}
        drills = {"take-over"} if state.ask.asker is outing.Asker.DRILL else set()
        assert SAID[state.stage] | {"pause", "extend"} | drills == taken
        refused = said["rollback"]
        assert isinstance(refused, Event)
        assert "nothing was replaced" in refused.evidence


_ALL = {*outing.ORDERS, "rollback", "retarget"}


@pytest.mark.parametrize("kind", ["resume", "rollback"])
def test_i4_a_person_may_name_a_rule_that_the_run_skips_from_here_on(kind: str) -> None:
    """A rollback may be refused for a zone that the sick version has killed, and that it would mend (I2)."""
    held = apply(explore.start(), explore.outcome(Effect("admit", "a"), E.REFUSED), explore.NOW)
    assert (S.HELD, ()) == (held.status, held.overrides)
    named = Order(1, kind, "ada", "because", explore.NOW, {"overrides": ["I2"]})
    event = decide(held, Facts(explore.NOW, (named,)))
    assert isinstance(event, Event)
    assert ("I2",) == apply(held, event, explore.NOW).overrides


def test_i4_a_deploy_that_may_go_under_a_freeze_lets_its_zone_leave_too() -> None:
    """It was admitted, and then prepared for as long as the freeze lasted, with the lease in hand."""
    args = {"undo": {}, "version": "v1", "sound": True, "steps": explore.STEPS}
    admitted = Event(E.ADMITTED, "a", "", args)
    state = apply(replace(explore.start(), overrides=("I14",)), admitted, explore.NOW)
    asked = decide(state, Facts(explore.NOW, frozen=True))
    assert isinstance(asked, Effect)
    assert "prepare" == asked.kind
    assert decide(replace(state, overrides=()), Facts(explore.NOW, frozen=True)) is None


def test_i14_a_freeze_keeps_a_zone_that_has_come_back_and_was_to_leave_again() -> None:
    """A rollback had taken it up, and a retarget under the freeze let it go. Seed 1796031756883."""
    began = explore.start()
    first, *others = began.zones
    preparing = replace(first, state=Z.PREPARING, touched=True)
    gone = replace(began, zones=(preparing, *others))
    come_back = replace(began, zones=(replace(preparing, changed=True), *others))
    assert Effect("prepare", "a", {"step": 0}) == decide(gone, Facts(explore.NOW, frozen=True))
    assert None is decide(come_back, Facts(explore.NOW, frozen=True))
