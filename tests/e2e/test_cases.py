"""How a failed case is told in docs/cases.md."""

from __future__ import annotations

import pytest
from e2e.cases import in_words

LOG = """ 3.9Z"}
  {"run": "r", "event": "unhealthy", "evidence": "the upgrade to v2 took more than 12 s"}
  {"run": "r", "event": "effect-began"}
"""


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("assert 0 == 11\n +  where 11 = Ended(...).code", "expected 0, it was 11"),
        (
            f"{LOG}assert (0, 'succeeded') == (11, 'held')\n  At index 0 diff",
            "expected (0, 'succeeded'), it was (11, 'held'); unhealthy: the upgrade to v2 took more than 12 s",
        ),
        ("assert 'a' in 'bcd'", "'a' in 'bcd'"),
        ("not within 90 s: aws/a draining", "not within 90 s: aws/a draining"),
        (f"failout did not end within 150 s:\n{LOG}", "failout did not end within 150 s:; unhealthy: the upgrade to v2 took more than 12 s"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_failed_case_says_what_was_expected_and_the_last_of_the_log(failure: str, words: str) -> None:
    assert words == in_words(failure)
