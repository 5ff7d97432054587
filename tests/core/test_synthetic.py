"""Synthetic requests are sent in portions and judged as one."""

from __future__ import annotations

from orchestrator.core.health import Synthetic, together


def test_portions_are_judged_by_the_median_of_what_most_requests_took() -> None:
    portions = [
        Synthetic(100, 100, 0, 20.0, 30.0),
        Synthetic(300, 290, 10, 40.0, 50.0),
        Synthetic(5, 5, 0, 900.0, 990.0),
    ]
    assert Synthetic(405, 395, 10, 40.0, 990.0) == together(portions)


def test_a_portion_that_nobody_answered_says_nothing_of_how_long_answers_take() -> None:
    assert Synthetic(7, 3, 4, 20.0, 30.0) == together([Synthetic(4, 0, 4, None, None), Synthetic(3, 3, 0, 20.0, 30.0)])
    assert Synthetic(4, 0, 4, None, None) == together([Synthetic(4, 0, 4, None, None)])
