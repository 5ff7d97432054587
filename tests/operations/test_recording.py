"""What is measured beside a run, and how any machine's rows become a history."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from core.proof_facts import T0, ZONES, at, topology

from orchestrator.core.health import LATENCY_BOUNDS_MS, Counters
from orchestrator.core.machine import Effect, Event
from orchestrator.engine.ports import Record, Run
from orchestrator.operations.recording import history_of, sample_of
from orchestrator.workflows.gauge import ZoneReading

NONE = (0,) * (len(LATENCY_BOUNDS_MS) + 1)


def counted(requests: int) -> Counters:
    return Counters(requests, 0, (requests, *NONE[1:]))


def reading(asked: float, heard: int = 2, **instances: int) -> ZoneReading:
    return ZoneReading(asked, asked + 0.2, {name: counted(n) for name, n in instances.items()}, heard)


def test_windows_follow_each_other_without_a_gap() -> None:
    moments = [reading(float(i), a=100 * i, b=0) for i in range(4)]
    samples = [sample_of({"z": x}, {"z": y}, T0) for x, y in pairwise(moments)]
    assert [(1.0, 100)] * 3 == [(round(s.zones["z"].window.seconds, 6), s.zones["z"].window.requests) for s in samples]


def test_an_instance_that_is_new_does_not_bring_along_what_it_served_before_it_was_known() -> None:
    sample = sample_of({"z": reading(0.0, a=100)}, {"z": reading(1.0, a=150, b=9_000)}, T0)
    assert (50, 2) == (sample.zones["z"].window.requests, sample.zones["z"].instances)


def test_a_zone_that_nobody_heard_is_missing_and_not_zero() -> None:
    assert {} == sample_of({"z": reading(0.0, a=1)}, {"z": reading(1.0, heard=0, a=1)}, T0).zones
    assert {} == sample_of({}, {"z": reading(1.0, a=1)}, T0).zones


def run(state: dict[str, Any], **given: Any) -> Run:
    values = {
        "id": "r1", "service": "gates", "kind": "deploy", "status": "active", "seq": 3, "epoch": 1, "state": state, "effect": None,
        "zone": None, "created_at": T0, "updated_at": at(90), "finished_at": None, "author": "ada", "reason": "v2",
    }  # fmt: skip
    return Run(**{**values, **given})


def record(seconds: float, effect: str, event: str, zone: str | None = None) -> Record:
    return Record("r1", 1, at(seconds), Effect(effect, zone), Event(event, zone), 1.0)


def test_a_deploys_zones_had_a_version_and_get_another() -> None:
    state = {"target": "v2", "zones": [{"zone": "aws/a", "previous": "v1", "goal": "v2"}]}
    found = history_of(run(state), [record(5, "drain", "drained", "aws/a")], topology(), T0)
    assert {"aws/a": ("v1", "v2")} == found.versions
    assert [("aws/a", "drain", "drained")] == [(s.zone, s.effect, s.event) for s in found.steps]
    assert found.ended is None


def test_a_person_takes_a_zone_out_at_the_version_that_it_has() -> None:
    found = history_of(run({"ask": {"zone": "aws/a"}, "goal": "v1"}, kind="outing"), [], topology(), T0)
    assert {"aws/a": ("v1", None)} == found.versions


def test_a_region_that_moves_is_an_outing_of_each_of_its_zones() -> None:
    records = [
        record(5, "leave-region", "moved"),
        record(9, "empty-region", "emptied"),
        record(30, "settle-region", "settled"),
    ]
    found = history_of(run({"regions": ["azure/west"]}, kind="region"), records, topology(), T0)
    assert list(ZONES["azure/west"]) * 3 == [s.zone for s in found.steps]
    assert ["moved", "emptied", "returned"] == [s.event for s in found.steps][::2]


def test_a_run_that_is_held_ends_what_is_known_for_now_and_a_carrier_that_gave_up_is_no_step() -> None:
    gave_up = Record("r1", None, at(7), None, Event("carrier-gave-up"), 0.0)
    found = history_of(run({}, status="held"), [gave_up], topology(), T0)
    assert (at(90), []) == (found.ended, list(found.steps))
