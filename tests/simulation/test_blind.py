"""I2: what could not be looked at is neither healthy nor sick. Nothing is rolled back for it; a person must choose."""

from __future__ import annotations

import pytest

from orchestrator.sim.history import History
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import Cut, good_deploy
from orchestrator.sim.truth import Happening

REGION, ZONE = "aws/us-east-1", "aws/us-east-1a"


def cut_off_at(step: str, seconds: float) -> Result:
    """A good deploy whose orchestrator loses the way to the first zone's region as `step` begins there."""
    history = History(1, good_deploy())

    def began(h: Happening) -> bool:
        return (h.kind, h.what, h.args.get("zone"), h.args.get("step")) == ("log", "effect-began", ZONE, step)

    def look() -> None:
        if any(began(h) for h in history.world.trace):
            history._cut(Cut(history.scheduler.now_s, REGION, seconds))
        else:
            history.scheduler.after(0.01, look)

    history.scheduler.after(0.01, look)
    return history.go()


@pytest.mark.parametrize(("step", "seconds"), [("verify", 60.0), ("upgrade", 200.0)])
def test_a_zone_that_nobody_can_look_at_is_held_and_goes_on_when_told(step: str, seconds: float) -> None:
    result = cut_off_at(step, seconds)
    told = [h.what for h in result.trace if h.kind == "log" and h.args.get("zone") == ZONE]
    assert ("succeeded", ()) == (result.status, result.violations)
    assert ("stuck" in told, "unhealthy" in told) == (True, False)
