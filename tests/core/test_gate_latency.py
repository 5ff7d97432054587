"""The gate calls a zone slower only where so few requests can tell."""

from __future__ import annotations

from orchestrator.core.health import LATENCY_BOUNDS_MS, GatePolicy, Verdict, Window, judge, quantile_ms

POLICY = GatePolicy(samples_min=15)


def served(**ms: int) -> Window:
    """`served(_20=19, _400=5)`: 19 requests of up to 20 ms and 5 of up to 400 ms."""
    counts = [ms.get(f"_{bound}", 0) for bound in LATENCY_BOUNDS_MS] + [0]
    return Window(1.0, sum(counts), 0, quantile_ms(counts, 0.5), quantile_ms(counts, 0.99), tuple(counts))


def test_five_long_requests_of_two_dozen_beside_none_of_twenty_are_chance() -> None:
    assert Verdict.HEALTHY is judge(served(_20=19, _400=5), served(_20=20), POLICY).verdict
    assert Verdict.HEALTHY is judge(served(_20=17, _400=5), served(_20=23), POLICY).verdict


def test_half_of_the_requests_slow_beside_none_is_seen_in_two_dozen() -> None:
    assert Verdict.UNHEALTHY is judge(served(_20=12, _400=12), served(_20=24), POLICY).verdict


def test_a_fifth_of_the_requests_slow_beside_a_hundredth_is_seen_in_a_few_hundred() -> None:
    assert Verdict.UNHEALTHY is judge(served(_20=160, _400=40), served(_20=198, _400=2), POLICY).verdict


def test_a_median_that_moved_is_seen_at_once() -> None:
    assert Verdict.UNHEALTHY is judge(served(_150=20), served(_20=20), POLICY).verdict
