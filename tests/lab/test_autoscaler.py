"""The lab's autoscaler: when it grows a fleet, when it shrinks one, and when it may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.lab.autoscaler import Aim, Change, Load, Loads, decide
from orchestrator.lab.model import ScaledFleet

AIM = Aim(target=0.5, rps_per_instance=40.0, scale_in_after_s=60.0)  # 20/s an instance
FLEET = ScaledFleet("aws/a", desired=3, there=3, minimum=2, maximum=9, frozen=False)


def loads(*rps: float, every_s: float = 30.0) -> list[Load]:
    return [Load(i * every_s, r) for i, r in enumerate(rps)]


def to(fleet: ScaledFleet, *rps: float) -> int | None:
    change = decide(AIM, loads(*rps), fleet)
    return change and change.to


def test_a_fleet_grows_at_once_to_what_the_load_needs_and_says_why():
    assert Change(6, "120/s over 3 instances is 1.00, target 0.50") == decide(AIM, loads(120.0), FLEET)


@pytest.mark.parametrize(
    ("expected", "rps", "case"),
    [
        (None, 60.0, "on target"),
        (None, 65.0, "above it by less than a tenth"),
        (4, 67.0, "above it by more"),
        (9, 1000.0, "never beyond its maximum"),
        (None, 0.0, "nothing is known of the minute before"),
    ],
)
def test_growing_is_bounded_and_ignores_noise(expected, rps, case):
    assert expected == to(FLEET, rps), case


@pytest.mark.parametrize(
    ("expected", "rps", "case"),
    [
        (None, (20.0, 20.0), "watched for half of the window only"),
        (2, (20.0, 20.0, 20.0), "quiet for the whole window"),
        (None, (60.0, 20.0, 20.0), "needed them all in the window"),
        (2, (120.0, 20.0, 20.0, 20.0), "busy before the window"),
        (2, (0.0, 0.0, 0.0), "never below its minimum"),
        (None, (57.0, 57.0, 57.0), "needs three"),
    ],
)
def test_a_fleet_shrinks_only_after_a_quiet_window(expected, rps, case):
    assert expected == to(FLEET, *rps), case


def test_it_shrinks_to_the_most_that_the_window_needed():
    assert 4 == to(replace(FLEET, desired=8), 70.0, 61.0, 20.0)


def test_a_frozen_fleet_is_left_alone_whatever_the_load():
    frozen = replace(FLEET, frozen=True)
    assert None is to(frozen, 500.0)
    assert None is to(frozen, 0.0, 0.0, 0.0)


def test_a_fleet_without_room_asks_no_more_than_the_load_needs():
    refused = replace(FLEET, desired=6, there=3, refused="no capacity")
    assert None is to(refused, 120.0)
    assert 8 == to(refused, 160.0)


def test_the_load_of_a_zone_is_what_its_instances_served_meanwhile():
    of_zone, read = {"i-1": "aws/a", "i-2": "aws/a", "i-3": "aws/b"}, Loads(keep_s=60)
    read.read(100.0, of_zone, {"i-1": 1000, "i-2": 500, "i-3": 7})
    assert {} == read.of, "one look is no rate"
    read.read(101.0, of_zone, {"i-1": 1030, "i-2": 510, "i-3": 7})
    assert [Load(101.0, 40.0)] == read.of["aws/a"]
    assert [Load(101.0, 0.0)] == read.of["aws/b"]


def test_an_instance_that_begins_anew_or_does_not_answer_loses_nothing():
    of_zone, read = {"i-1": "aws/a"}, Loads(keep_s=60)
    read.read(0.0, of_zone, {"i-1": 1000})
    read.read(1.0, of_zone, {"i-1": 20})  # another process under the same id
    assert 20.0 == read.of["aws/a"][-1].rps
    read.read(2.0, of_zone, {})
    read.read(3.0, {**of_zone, "i-2": "aws/a"}, {"i-1": 50, "i-2": 10})
    assert 20.0 == read.of["aws/a"][-1].rps, "40 more in the last two seconds"
