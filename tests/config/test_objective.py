"""What is good enough is a person's to say, in failout.yaml, and a slip of the pen is told with its line."""

from __future__ import annotations

import pytest

from orchestrator.config import read_settings
from orchestrator.core.errors import Rejected
from orchestrator.core.standing import Objective


def read(tmp_path, text: str) -> Objective:
    path = tmp_path / "failout.yaml"
    path.write_text(f"service: gates\n{text}")
    return read_settings(path).objective


def test_without_a_word_every_zone_is_to_be_proven_within_a_week_at_half_of_the_peak(tmp_path) -> None:
    assert Objective(7.0, 0.5, 0.001, None) == read(tmp_path, "")


def test_what_is_given_counts(tmp_path) -> None:
    given = "objective: {age_days_max: 30, load_share_min: 0.8, peak_rps: 1200}\n"
    assert Objective(30.0, 0.8, 0.001, 1200.0) == read(tmp_path, given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("objective:\n  age_days: 3\n", r":3: unknown key 'age_days' in .*; did you mean 'age_days_max'\?"),
        ("objective:\n  load_share_min: 50\n", ":3: 'load_share_min' in .* must be a number from 0 to 1"),
        ("objective: often\n", ":2: 'objective' in .* must be a mapping"),
        ("objective: {peak_rps: 0}\n", "'peak_rps' in .* must be a number from 0.001"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text: str, told: str) -> None:
    with pytest.raises(Rejected, match=told):
        read(tmp_path, text)
