"""I3: a survivor is made smaller only when its region carries its users with what surely stays."""

from __future__ import annotations

from core.test_guards_weights import topology

from orchestrator.core.guards import Refusal, ZoneLoad, refuse_scaling_back


def back(ready: int) -> Refusal | None:
    """Of `aws/two-b`, from four instances of which `ready` answer to two; 190 requests a second in its region."""
    loads = {"aws/two-a": ZoneLoad("aws/two-a", 95.0, 2, 2), "aws/two-b": ZoneLoad("aws/two-b", 95.0, 4, ready)}
    return refuse_scaling_back("aws/two-b", 2, loads, topology(70.0), max_utilisation=0.75)


def test_a_survivor_is_made_smaller_when_what_stays_is_ready() -> None:
    assert back(ready=4) is None


def test_i3_its_cloud_may_end_what_is_ready_and_keep_what_is_dead() -> None:
    """One of four had died, and of the two that stayed it was one. Seed 1796039620796."""
    refusal = back(ready=3)
    assert refusal is not None
    assert "190/s over 210/s is 0.90" in refusal.reason
