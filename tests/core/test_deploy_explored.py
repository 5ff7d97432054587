"""The deploy machine, exhaustively: I1, I12 and I13 over every state that can be reached, and full transition coverage."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from core.explore import explore, shape
from core.exploring import Explored

from orchestrator.core import deploy
from orchestrator.core.deploy import DeployState
from orchestrator.core.deploy_row import DeployMachine, dump, parse
from orchestrator.core.deploy_table import FINISHED, RUN_TRANSITIONS, ZONE_TRANSITIONS, R
from orchestrator.core.policy import OnFailure
from orchestrator.core.topology import ZoneState

IDLE = {ZoneState.WAITING, ZoneState.DONE}


@dataclass
class Everything:
    """What was explored for each policy, and every transition that was taken on the way."""

    of: dict[OnFailure, Explored[DeployState]] = field(default_factory=dict)
    zones: set[tuple[str, str]] = field(default_factory=set)
    runs: set[tuple[str, str]] = field(default_factory=set)


@pytest.fixture(scope="module")
def everything() -> Everything:
    found = Everything()
    move, move_run = deploy._move, deploy._move_run

    def moving(zone: deploy.ZoneProgress, kind: deploy.E, now: object) -> deploy.ZoneProgress:
        found.zones.add((zone.state, kind))
        return move(zone, kind, now)  # type: ignore[arg-type]

    def moving_run(state: DeployState, kind: R) -> DeployState:
        found.runs.add((state.status, kind))
        return move_run(state, kind)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(deploy, "_move", moving)
        monkeypatch.setattr(deploy, "_move_run", moving_run)
        found.of = {policy: explore(policy) for policy in OnFailure}
    return found


@pytest.fixture(scope="module", params=list(OnFailure))
def explored(request: pytest.FixtureRequest, everything: Everything) -> Explored[DeployState]:
    return everything.of[request.param]


def test_i1_at_most_one_zone_is_anything_but_waiting_or_done(explored: Explored[DeployState]) -> None:
    assert all(sum(z.state not in IDLE for z in state.zones) <= 1 for state in explored.states)


def test_i1_a_finished_run_needs_no_lease_and_leaves_no_zone_out(explored: Explored[DeployState]) -> None:
    ends = [s for s in explored.states if s.status in FINISHED]
    assert ends
    assert all(DeployMachine().leased_zone(s) is None for s in ends)


def test_i13_a_zone_is_upgraded_only_out_of_a_drain(explored: Explored[DeployState]) -> None:
    entered = {
        b.state
        for before, _, after in explored.steps()
        for b in before.zones
        if after.zone(b.zone).state is ZoneState.UPGRADING and b.state is not ZoneState.UPGRADING
    }
    assert entered == {ZoneState.DRAINING}


def test_i13_from_every_state_the_run_can_still_end(explored: Explored[DeployState]) -> None:
    assert explored.stuck() == []


def test_i13_abort_and_rollback_are_accepted_in_every_unfinished_state(explored: Explored[DeployState]) -> None:
    for state, edges in zip(explored.states, explored.edges, strict=True):
        kinds = {event.kind for event, _ in edges}
        assert state.status in FINISHED or {R.ABORT, R.ROLLBACK} <= kinds


def test_a_run_that_succeeded_has_every_zone_at_the_target(explored: Explored[DeployState]) -> None:
    for state in explored.states:
        if state.status is deploy.RunStatus.SUCCEEDED:
            assert [(z.state, z.goal) for z in state.zones] == [(ZoneState.DONE, state.target)] * 2


def test_i12_a_run_that_rolled_back_has_no_zone_at_the_target(explored: Explored[DeployState]) -> None:
    for state in explored.states:
        if state.status is deploy.RunStatus.ROLLED_BACK:
            assert all(z.state is ZoneState.WAITING or z.goal == z.previous for z in state.zones)


def test_a_held_run_does_nothing_until_a_person_speaks(explored: Explored[DeployState]) -> None:
    for before, kind, _ in explored.steps():
        assert before.status is not deploy.RunStatus.HELD or kind in deploy.ORDERS or kind == deploy.ORDER_REFUSED


def test_every_state_survives_its_row(explored: Explored[DeployState]) -> None:
    for state in explored.states[:500]:
        assert shape(state) == shape(parse(dump(state)))


def test_every_transition_of_both_tables_is_taken(everything: Everything, capsys: pytest.CaptureFixture[str]) -> None:
    """Transition coverage of the deploy machine is complete: what cannot be reached may not stand in the table."""
    zones, runs = everything.zones, everything.runs
    all_zones = {(s, k) for s, events in ZONE_TRANSITIONS.items() for k in events}
    all_runs = {(s, k) for s, events in RUN_TRANSITIONS.items() for k in events}
    with capsys.disabled():
        print(
            f"\ndeploy machine: {len(zones)}/{len(all_zones)} zone and {len(runs)}/{len(all_runs)} run transitions taken"
        )
    assert (set(), set()) == (all_zones - zones, all_runs - runs)
