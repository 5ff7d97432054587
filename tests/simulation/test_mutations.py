"""Each invariant's guard is taken away, and its checker bites: in a history written for it, and in the swarm."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from simulation.mutations import MUTATIONS
from simulation.singly import SINGLY, Single

from orchestrator.sim.run import sim_main, simulate
from orchestrator.sim.scenario import Scenario


def broken(rule: str, seed: int, scenario: Scenario | None = None) -> bool:
    return rule in {violation.rule for violation in simulate(seed, scenario).violations}


@pytest.mark.parametrize("rule", MUTATIONS)
def test_without_its_guard_the_history_written_for_it_breaks_the_invariant(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = MUTATIONS[rule].history
    assert not broken(rule, 1, history)
    MUTATIONS[rule].apply(monkeypatch)
    assert broken(rule, 1, history)


@pytest.mark.parametrize(
    "rule", [pytest.param(r, marks=[pytest.mark.soak] if m.seeds > 20 else []) for r, m in MUTATIONS.items()]
)
def test_without_its_guard_the_swarm_breaks_the_invariant_within_so_many_seeds(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTATIONS[rule].apply(monkeypatch)
    assert any(broken(rule, seed) for seed in range(MUTATIONS[rule].seeds))


@pytest.mark.parametrize("single", SINGLY, ids=lambda single: single.guards[0])
def test_each_guard_alone_is_needed_in_the_history_written_for_it(
    single: Single, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert () == simulate(1, single.history).violations
    single.apply(monkeypatch)
    assert broken(single.rule, 1, single.history)


def test_every_invariant_that_is_checked_has_a_mutation() -> None:
    assert set(MUTATIONS) == set(sim_main(seeds=1)["invariants"])


@pytest.mark.parametrize(
    "guard", sorted({guard for mutation in (*MUTATIONS.values(), *SINGLY) for guard in mutation.guards})
)
def test_each_guard_that_is_named_is_there(guard: str) -> None:
    file, _, name = guard.partition(":")
    found: Any = importlib.import_module("orchestrator." + file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
