"""A region on the move is told as schemas/region.json says, in every phase that it goes through."""

from __future__ import annotations

from cli.shell import errors
from workflows.drill_stage import DrillService
from workflows.outing_stage import AZURE, now_

from orchestrator.operations.status import describe_run


def test_every_phase_of_a_region_that_leaves_and_returns_is_as_its_schema_says() -> None:
    service = DrillService(users_rps=120.0, drain_timeout_s=900.0)
    run = service.drill(service.topology.region_of(AZURE).id, tier="region", duration_s=30.0)
    wrong: dict[str, list[str]] = {}

    def ended() -> bool:
        for moved in now_(service.store.runs("gates", 10)):
            if moved.kind == "region":
                told = {"schema": 1, "service": "gates", **describe_run(moved, {}, service.now())}
                wrong[told["course"]] = errors("region", told)
        return service.run(run).finished

    service.until(ended, 1800.0)
    assert {"leaving", "out", "verifying", "returning", "returned"} <= wrong.keys()
    assert {} == {phase: found for phase, found in wrong.items() if found}
