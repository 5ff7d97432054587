"""What is written into a row is read back the same, also by what an earlier Failout wrote."""

from __future__ import annotations

from orchestrator.core.traffic import OUT, STEADY, DesiredTraffic, ramp, without_surplus
from orchestrator.engine.codec import traffic_of, traffic_text


def test_a_wish_for_traffic_is_read_as_it_was_written() -> None:
    zones = {"a": OUT, "b": STEADY, "c": ramp(0.5), "d": without_surplus(3, 5)}
    wish = DesiredTraffic(7, 3, zones, {"aws/us-east-1": 100})
    assert wish == traffic_of(traffic_text(wish), 7, 3)


def test_a_wish_of_before_a_surplus_had_a_number_is_still_read() -> None:
    text = '{"zones": {"a": {"placement": "ramp", "share": 0.5}}, "region_weights": {}}'
    assert DesiredTraffic(1, 1, {"a": ramp(0.5)}) == traffic_of(text, 1, 1)
