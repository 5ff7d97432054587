"""Second by second, and what may be made of it."""

from __future__ import annotations

import json
from dataclasses import replace

from core.proof_facts import at, counted, second, steady

from orchestrator.core.samples import (
    Sample,
    ZoneSample,
    between,
    disjoint,
    dump,
    parse,
    peak_rps,
    together,
    utilisation,
)


def test_a_sample_is_written_and_read_back_whole() -> None:
    sample = second(3, {"aws/a": 7, "aws/b": 0}, errors={"aws/a": 1})
    assert sample == parse(sample.at, json.loads(json.dumps(dump(sample))))


def test_it_belongs_to_the_moment_of_its_middle() -> None:
    assert [at(3), at(4)] == [s.at for s in between(steady(range(6)), at(2.4), at(4.4))][:2]


def test_zones_and_seconds_add_up() -> None:
    window = together(steady(range(4)), {"aws/a", "aws/b"})
    assert (4.0, 800, 200.0, 40.0) == (window.seconds, window.requests, window.rps, window.p99_ms)


def test_two_processes_that_measured_the_same_seconds_count_once() -> None:
    twice = sorted(
        [*steady(range(5)), *(replace(s, at=at(i + 1.3)) for i, s in enumerate(steady(range(5))))], key=lambda s: s.at
    )
    assert 5 == len(disjoint(twice))


def test_a_peak_lasts_ten_seconds_and_one_busy_second_is_none() -> None:
    calm = steady(range(20))
    spike = [*calm[:10], second(10, {"aws/a": 5_000}), *calm[11:]]
    assert 500.0 == peak_rps(calm)
    assert (9 * 500 + 5_000) / 10 == peak_rps(spike)
    assert peak_rps(calm[:5]) is None


def test_how_busy_a_zone_was_counts_the_instances_that_answered() -> None:
    half = [Sample(at(i + 1), {"aws/a": ZoneSample(2, counted(100))}) for i in range(20)]
    assert 0.5 == utilisation(half, "aws/a", 100.0)


def test_a_zone_that_was_not_heard_for_half_of_the_time_is_unmeasured() -> None:
    deaf = [second(i, {"aws/b": 100} if i % 3 else {"aws/a": 100, "aws/b": 100}) for i in range(20)]
    assert utilisation(deaf, "aws/a", 100.0) is None
    assert utilisation([], "aws/a", 100.0) is None
