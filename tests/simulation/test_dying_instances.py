"""An instance of the new version dies while its zone comes back: nobody's error shows it for long, and it is seen all the same."""

from __future__ import annotations

import pytest

from orchestrator.core.deploy_table import E
from orchestrator.sim.history import History
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import Scenario, make_topology
from orchestrator.sim.truth import Happening

REGION, ZONE = "aws/us-east-1", "aws/us-east-1a"
ONE_REGION = Scenario(make_topology({REGION: 3}), users_rps=160.0)


def dies_at(step: str, first: int = 1) -> Result:
    """A good deploy in which the process of one instance of the first zone ends as its `step` begins for the `first` time."""
    history = History(1, ONE_REGION)

    def began(h: Happening) -> bool:
        return (h.kind, h.what, h.args.get("zone"), h.args.get("step")) == ("log", "effect-began", ZONE, step)

    def look() -> None:
        if len([h for h in history.world.trace if began(h)]) < first:
            history.scheduler.after(0.01, look)
            return
        box = history.world.zones[ZONE].boxes[0]
        box.listening = box.ready = False
        history.world.note("died", box.id)

    history.scheduler.after(0.01, look)
    return history.go()


@pytest.mark.parametrize(("step", "first"), [("ramp", 1), ("ramp", 2), ("bake", 1)])
def test_a_zone_whose_new_instance_dies_on_its_way_back_goes_back_to_the_version_it_had(step: str, first: int) -> None:
    result = dies_at(step, first)
    died = next(h.at_s for h in result.trace if h.kind == "died")
    kinds = [h.what for h in result.trace if h.kind == "log" and h.args.get("zone") == ZONE and h.at_s > died]
    assert "failed" == result.status
    found = (
        E.INCOMPLETE if step == "bake" else E.UNHEALTHY
    )  # Baking, it serves with those that are left, and leaves with care.
    assert found in kinds
    assert E.VERIFIED in kinds[kinds.index(found) :], "the version it had is verified before it returns"
