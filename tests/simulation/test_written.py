"""Scenarios that people write are run, wrong ones are told where, and a broken history shrinks to one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulation.mutations import BY_HAND, MUTATIONS

from orchestrator.core.errors import NotFound, Rejected
from orchestrator.sim.faults import Fault
from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import Command, good_deploy, swarm
from orchestrator.sim.shrink import render, shrink
from orchestrator.sim.truth import Blow
from orchestrator.sim.written import Expectation, read_scenario

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
HEAD = "zones:\n  aws/us-east-1: 3\nload: 100\n"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_each_scenario_that_is_shipped_ends_as_it_expects(file: Path) -> None:
    written = read_scenario(file)
    assert [] == written.expect.unmet(simulate(written.seed, written.scenario))


def test_a_scenario_says_what_happens_in_sentences(tmp_path: Path) -> None:
    file = tmp_path / "what-if.yaml"
    file.write_text(
        HEAD
        + "events:\n"
        + "  - at 30s: fail 30 percent of zone aws/us-east-1a for 12s\n"
        + "  - at 2.5 s: drain zone aws/us-east-1b for 60s then restore overriding I1 and I3\n"
    )
    scenario = read_scenario(file).scenario
    assert [(30.0, "aws/us-east-1a", Blow.GRAY, 12.0, 0.3)] == [
        (s.at_s, s.zone, s.blow, s.seconds, s.hard) for s in scenario.strikes
    ]
    assert [(2.5, "drain", ("I1", "I3"))] == [(o.at_s, o.kind, o.overrides) for o in scenario.zone_orders]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "lod: 3\n", "4: unknown key 'lod' in what-if.yaml; did you mean 'load'?"),
        (
            HEAD + "events:\n  - at 3s: kil zone aws/us-east-1a for 4s\n",
            "5: .*did you mean `kill zone ZONE for SECONDS s`",
        ),
        (
            HEAD + "events:\n  - at 3s: kill zone aws/us-east-1x for 4s\n",
            "5: there is no 'aws/us-east-1x'; did you mean",
        ),
        (HEAD + "events:\n  - in 3s: pause\n", "5: 'in 3s' is no time: write `at 30s: ...`"),
        (HEAD + "events:\n  - pause\n", "4: an event is one `at SECONDSs: what happens`"),
        (HEAD + "events: pause\n", "4: 'events' must be a list"),
        (
            HEAD + "chances:\n  lost-replies: 0.1\n",
            "5: unknown key 'lost-replies' in chances; did you mean 'lost-reply'?",
        ),
        (HEAD + "chances:\n  lost-reply: 2\n", "5: 'lost-reply' in chances must be a number from 0 to 1"),
        (HEAD + "calls:\n  12: kill-afer\n", "5: there is no 'kill-afer'; did you mean 'kill-after'?"),
        (HEAD + "calls:\n  first: slow\n", "5: 'calls' counts the calls"),
        (HEAD + "calls:\n  0: lost-reply\n", "5: 'calls' counts the calls of the run from 1, 2, 3 on, not '0'"),
        (HEAD + "calls:\n  -3: lost-reply\n", "5: 'calls' counts the calls of the run from 1, 2, 3 on, not '-3'"),
        (
            HEAD + "events:\n  - at 3s: fail 300 percent of zone aws/us-east-1a for 5 s\n",
            "5: of the requests more than 0",
        ),
        (HEAD + "expect:\n  violates: [I99]\n", "5: there is no 'I99'"),
        ("load: 1\n", "1: 'zones' is missing in what-if.yaml"),
        (HEAD + "expect:\n  status: suceeded\n", "5: there is no 'suceeded'; did you mean 'succeeded'?"),
        (HEAD + "version:\n  lies: 3\n", "5: 'lies' in version must be true or false"),
        ("zones:\n  gcp/x: 3\nload: 1\n", "2: a region is written aws/NAME or azure/NAME"),
        ("zones:\n  aws/us-east-1: 3\n", "1: 'load' is missing in what-if.yaml"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_nearest_valid_word(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "what-if.yaml"
    file.write_text(text)
    with pytest.raises(Rejected, match=rf"what-if\.yaml:{told}"):
        read_scenario(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_scenario(tmp_path / "nobody.yaml")


def test_what_comes_otherwise_than_expected_is_told() -> None:
    result = simulate(1, good_deploy())
    assert [] == Expectation("succeeded", (), 0.0, 1000.0).unmet(result)
    assert 3 == len(Expectation("failed", ("I1",), None, 5.0).unmet(result))


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_scenario_can_be_written_down_and_ends_the_same_way(seed: int, tmp_path: Path) -> None:
    file, drawn = tmp_path / "drawn.yaml", swarm(seed)
    file.write_text(render(drawn, seed))
    written = read_scenario(file)
    before, after = simulate(seed, drawn), simulate(written.seed, written.scenario)
    assert (before.status, before.violations) == (after.status, after.violations)
    assert before.ended_s == pytest.approx(after.ended_s, abs=0.1)


def test_without_its_guard_a_broken_history_shrinks_to_the_one_thing_that_breaks_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MUTATIONS["I1"].apply(monkeypatch)
    orders = (Command(12.0, "pause"), Command(30.0, "resume"))
    noisy = replace(BY_HAND, rates={Fault.LOST_REPLY: 0.02, Fault.SLOW: 0.02}, commands=orders, loads=((90.0, 310.0),))
    result = simulate(1, noisy)
    assert "I1" in {violation.rule for violation in result.violations}
    least = shrink(result, noisy)
    assert ({}, {}, (), (), "azure/eastus-2") == (least.rates, least.plan, least.commands, least.loads, least.away)
    file = tmp_path / "shortest.yaml"
    file.write_text(render(least, 1, ["found"], ["violates: [I1]"]))
    written = read_scenario(file)
    assert "I1" in {violation.rule for violation in simulate(written.seed, written.scenario).violations}


def test_a_history_that_breaks_nothing_is_not_shrunk() -> None:
    assert good_deploy() == shrink(simulate(1, good_deploy()), good_deploy())
