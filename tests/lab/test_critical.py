"""The critical path is what the lab timed: drains, replacements, health passes, configured waits, TTLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.lab.critical import read_timeline, ttl_waits_s, zone_path

ZONE = "aws/us-east-1a"


def member(t: float, state: str, instance: str = "i", pool: str = "steady") -> dict[str, Any]:
    return {"t": t, "kind": "member", "pool": pool, "instance": instance, "zone": ZONE, "state": state}


def refresh(t: float, state: str) -> dict[str, Any]:
    return {"t": t, "kind": "refresh", "zone": ZONE, "state": state}


def test_a_zones_path_is_drain_and_replacement_and_health_and_what_is_configured() -> None:
    events = [
        member(10.0, "draining"),
        member(10.3, "drained"),
        member(12.0, "gone"),
        refresh(12.5, "started"),
        refresh(14.5, "finished"),
        member(15.0, "registered", "j", "ramp"),
        member(15.4, "healthy", "j", "ramp"),
        member(20.0, "registered", "j"),
        member(20.3, "healthy", "j"),
    ]
    path = zone_path(events, ZONE, 9.0, 30.0, configured_s=8.0)
    assert path is not None
    assert (2.0, 2.0, 0.7, 8.0) == (path.drain_s, path.replace_s, round(path.health_s, 3), path.configured_s)
    assert round(path.total_s, 3) == 12.7


def test_instances_that_wait_together_wait_once() -> None:
    events = [
        refresh(1.0, "started"),
        refresh(2.0, "finished"),
        member(3.0, "registered", "j"),
        member(3.0, "registered", "k"),
        member(3.2, "healthy", "j"),
        member(3.5, "healthy", "k"),
    ]
    path = zone_path(events, ZONE, 0.0, 9.0, configured_s=0.0)
    assert path is not None
    assert round(path.health_s, 3) == 0.5


def test_an_instance_that_is_healthy_already_is_not_waited_for() -> None:
    """Azure: the probe passes before the backend is opened."""
    events = [
        refresh(1.0, "started"),
        refresh(2.0, "finished"),
        member(2.1, "healthy", "j"),
        member(3.0, "none", "j"),
        member(7.0, "none", "k"),
        member(7.2, "healthy", "k"),
    ]
    path = zone_path(events, ZONE, 0.0, 9.0, configured_s=0.0)
    assert path is not None
    assert round(path.health_s, 3) == 0.2


def test_a_zone_that_was_not_upgraded_has_no_path() -> None:
    assert zone_path([member(1.0, "draining")], ZONE, 0.0, 9.0, configured_s=5.0) is None
    assert (
        zone_path([refresh(1.0, "started"), refresh(2.0, "finished")], "aws/other", 0.0, 9.0, configured_s=5.0) is None
    )


def test_each_change_of_dns_weights_costs_one_ttl() -> None:
    changes = [{"t": float(t), "kind": "dns", "name": "gates.lab."} for t in (1, 5, 9)]
    assert ttl_waits_s(changes, 2.0, 10.0, ttl_s=5.0) == 10.0


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"t":1,"kind":"idle","zone":"z"}\n{"t":2,"ki', "utf-8")
    assert [{"t": 1, "kind": "idle", "zone": "z"}] == read_timeline(tmp_path / "t.jsonl")
