"""Drawn histories, the same ones every time: no invariant is broken, and every one is put to the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation.mutations import MUTATIONS

from orchestrator.sim.run import explain, sim_main, simulate, soak
from orchestrator.sim.written import read_scenario

SEEDS = 150  # about ten seconds; `make soak` draws others for as long as it is told


def test_a_fixed_swarm_breaks_nothing_and_tests_every_invariant() -> None:
    summary = sim_main(SEEDS)
    assert [] == summary["violating"]
    assert [] == summary["never_exercised"]


def test_a_soak_ends_in_time_and_counts_its_histories() -> None:
    summary = soak(0.5, start=7, jobs=1)
    assert (7, []) == (summary["seed"], summary["violating"])
    assert summary["histories"] in range(25, 2000, 25), "whole batches, and no more than there was time for"


def test_a_seed_that_breaks_a_rule_is_told_with_a_scenario_that_breaks_it_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MUTATIONS["I9"].apply(monkeypatch)
    told, shortest = explain(0)
    assert "seed 0" == told.splitlines()[0]
    file = tmp_path / "shortest.yaml"
    file.write_text(shortest)
    written = read_scenario(file)
    assert [] == written.expect.unmet(simulate(written.seed, written.scenario))
    assert "I9" in written.expect.violates


def test_a_seed_that_breaks_nothing_is_only_told() -> None:
    told, shortest = explain(0)
    assert ("seed 0", "") == (told.splitlines()[0], shortest)
