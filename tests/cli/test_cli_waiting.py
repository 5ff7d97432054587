"""The line of whoever waits says on what evidence, by which rule, and what to run next; not only for how long."""

from __future__ import annotations

from typing import Any

import pytest
from workflows.outing_stage import AWS, AWS_B, Service, now_

from orchestrator.cli.carrying import RULES, progress
from orchestrator.core.deploy_table import EFFECT_OF as OF_DEPLOY
from orchestrator.core.outing import Mode
from orchestrator.core.outing_table import EFFECT_OF as OF_OUTING
from orchestrator.core.region import _EFFECT_OF as OF_REGION
from orchestrator.sim.scheduler import Process
from orchestrator.sim.truth import Blow
from orchestrator.workflows.world import World

NEXT = f"failout zone restore {AWS} --reason ..."


class Watched(Service):
    """Keeps the world of whoever carries."""

    worlds: list[World]

    def ports(self, process: Process) -> World:
        world = super().ports(process)
        self.worlds = [*getattr(self, "worlds", []), world]
        return world

    def line(self, run: str) -> dict[str, Any]:
        lines: list[dict[str, Any]] = []

        def log(event: str, /, **fields: Any) -> None:
            lines.append({"event": event, **fields})

        now_(progress(self.store, self.run(run), log, self.worlds[-1].waits))
        return lines[0]


def test_a_drain_that_waits_says_on_what_evidence_by_which_rule_and_what_to_run_next() -> None:
    """The line named the zone and nothing else: what the look had seen was told once its time was over."""
    service = Watched(admit_timeout_s=120.0)
    service.world.strike(service.world.zones[AWS_B], Blow.DEAD, 1.0)
    run = service.take_out(AWS)
    service.wait(20.0)
    line = service.line(run)
    assert ("admit…", AWS, NEXT) == (line["event"], line["zone"], line["next"])
    assert "; admission: refused by I2: " in line["evidence"]
    assert AWS_B in line["evidence"]


def test_where_the_evidence_names_no_rule_the_line_does() -> None:
    service = Watched(users_rps=460.0)
    run = service.take_out(AWS)
    service.until(lambda: " of " in service.line(run)["evidence"], within_s=60.0)
    line = service.line(run)
    assert ("prepare…", True) == (
        line["event"],
        line["evidence"].endswith(" ready (rule I3: the others are ready first)"),
    )


def test_what_was_waited_for_is_waited_for_no_more() -> None:
    service = Watched(users_rps=120.0)
    for mode in (Mode.DRAIN, Mode.EVACUATE):
        run = service.take_out(AWS, mode)
        service.until_status(run, "out")
        assert {} == service.worlds[-1].waits
        service.restore(AWS)
        service.until_status(run, "restored")
        assert {} == service.worlds[-1].waits


@pytest.mark.parametrize("effects", [OF_DEPLOY, OF_OUTING, OF_REGION])
def test_every_effect_has_a_rule_by_which_it_waits(effects: dict[str, str]) -> None:
    assert set() == set(effects.values()) - RULES.keys()
