"""When drills are due: time zones and their changes of clock, hours, dates, jitter, downtime. No clock is read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.drill import DrillPolicy
from orchestrator.core.errors import Rejected
from orchestrator.core.outing import Mode
from orchestrator.core.schedule import DrillSchedule, due, dump, is_open, jitter_s, next_at, parse, require_schedule

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NIGHTLY = DrillSchedule(
    "nightly", "30 2 * * *", "Europe/Berlin", Mode.DRAIN, DrillPolicy(("users",), duration_s=1800.0), "ada", "a test"
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_firing_is_due_from_its_local_time_on_until_it_is_done() -> None:
    nominal = utc("2026-06-10T00:30")  # 02:30 in Berlin's summer
    assert utc("2026-06-09T00:30") == due(NIGHTLY, nominal - timedelta(microseconds=1), LONG_AGO)
    assert nominal == due(NIGHTLY, nominal, LONG_AGO)
    assert nominal == due(NIGHTLY, nominal + timedelta(seconds=1), utc("2026-06-09T00:30"))
    assert due(NIGHTLY, nominal + timedelta(hours=5), nominal) is None


@pytest.mark.parametrize(
    ("day", "fires"), [("2026-03-29", "2026-03-29T01:00"), ("2026-10-25", "2026-10-25T00:30"), ("2026-12-01", "2026-12-01T01:30")]
)  # fmt: skip
def test_a_time_that_the_clock_skips_fires_right_after_and_one_that_comes_twice_fires_once(
    day: str, fires: str
) -> None:
    """As Debian's cron: 02:30 does not exist on 29 March in Berlin, and exists twice on 25 October."""
    found, since = [], utc(f"{day}T00:00") - timedelta(hours=2)
    for minute in range(26 * 60):
        now = since + timedelta(minutes=minute)
        nominal = due(NIGHTLY, now, found[-1] if found else since)
        found += [nominal] if nominal else []
    assert [utc(fires)] == found


def test_of_many_firings_that_were_missed_the_latest_is_made_up_for_once() -> None:
    now = utc("2026-06-20T09:00")
    missed = due(NIGHTLY, now, utc("2026-06-01T00:30"))
    assert utc("2026-06-20T00:30") == missed
    assert due(NIGHTLY, now + timedelta(hours=1), missed) is None


def test_the_jitter_is_the_same_for_everybody_differs_by_date_and_stays_in_its_bounds() -> None:
    shaken = replace(NIGHTLY, jitter_s=600.0)
    days = [utc(f"2026-06-{d:02}T00:30") for d in range(1, 29)]
    late = [jitter_s(shaken, day) for day in days]
    assert [jitter_s(replace(shaken, reason="another process's"), day) for day in days] == late
    assert all(0.0 <= s <= 600.0 for s in late)
    assert len(set(late)) > 20
    assert [0.0] * 28 == [jitter_s(NIGHTLY, day) for day in days]
    when = days[0] + timedelta(seconds=late[0])
    assert due(shaken, when - timedelta(seconds=1), days[0] - timedelta(hours=1)) is None
    assert days[0] == due(shaken, when, days[0] - timedelta(hours=1))


@pytest.mark.parametrize(
    ("hours", "at", "open_"),
    [
        ("mon-fri 09:00-17:00", "2026-06-10T10:00", True),  # Wednesday
        ("mon-fri 09:00-17:00", "2026-06-13T10:00", False),  # Saturday
        ("mon-fri 09:00-17:00", "2026-06-10T06:59", False),  # 08:59 in Berlin
        ("mon-fri 09:00-17:00", "2026-06-10T14:29", True),  # half an hour fits
        ("mon-fri 09:00-17:00", "2026-06-10T14:31", False),  # and now it does not
        ("sat,sun", "2026-06-13T10:00", True),
        ("fri-mon", "2026-06-14T10:00", True),
        ("fri 22:00-04:00", "2026-06-12T23:00", True),  # Saturday 01:00 in Berlin, of Friday's night
        ("fri 22:00-04:00", "2026-06-13T23:00", False),
    ],
)
def test_a_drill_begins_in_its_hours_and_ends_in_them(hours: str, at: str, *, open_: bool) -> None:
    assert open_ is is_open(replace(NIGHTLY, allowed=(hours,)), utc(at))


def test_blocked_hours_and_dates_outweigh_those_that_are_allowed() -> None:
    at = utc("2026-06-10T10:00")
    assert is_open(replace(NIGHTLY, allowed=("00:00-24:00",)), at)
    assert not is_open(replace(NIGHTLY, allowed=("00:00-24:00",), blocked=("wed 12:00-13:00",)), at)
    for dates in ("2026-06-10", "2026-06-01..2026-06-10", "2026-06-10..2026-07-01"):
        assert not is_open(replace(NIGHTLY, blocked_dates=(dates,)), at)
    assert is_open(replace(NIGHTLY, blocked_dates=("2026-06-11..2026-07-01",)), at)


def test_a_firing_outside_its_hours_never_comes_and_one_that_was_missed_waits_for_them() -> None:
    workdays = replace(NIGHTLY, allowed=("mon-fri 01:00-05:00",))
    friday, sunday = utc("2026-06-12T00:30"), utc("2026-06-14T01:00")
    assert due(workdays, sunday, friday) is None
    missed_on = utc("2026-06-10T09:00")  # down until 11:00 in Berlin: the hours are over
    assert due(workdays, missed_on, utc("2026-06-09T00:30")) is None
    assert utc("2026-06-10T00:30") == due(workdays, utc("2026-06-10T23:01"), utc("2026-06-09T00:30"))


def test_the_next_time_is_told_with_its_jitter_and_within_its_hours() -> None:
    assert utc("2026-06-11T00:30") == next_at(NIGHTLY, utc("2026-06-10T09:00"), utc("2026-06-10T00:30"))
    assert utc("2026-06-10T09:00") == next_at(NIGHTLY, utc("2026-06-10T09:00"), utc("2026-06-09T00:30"))
    mondays = replace(NIGHTLY, allowed=("mon",), jitter_s=300.0)
    coming = next_at(mondays, utc("2026-06-10T09:00"), utc("2026-06-10T00:30"))
    assert utc("2026-06-15T00:30") + timedelta(seconds=jitter_s(mondays, utc("2026-06-15T00:30"))) == coming
    assert next_at(replace(NIGHTLY, allowed=("12:00-13:00",)), utc("2026-06-10T09:00"), utc("2026-06-10T08:00")) is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"id": "Nightly!"}, "no name of a schedule"),
        ({"time_zone": "Europe/Berln"}, "there is no time zone 'Europe/Berln'"),
        ({"time_zone": "../etc/passwd"}, "no time zone"),
        ({"cron": "61 2 * * *"}, "Bad minute"),
        ({"cron": "0 2 * *"}, "five fields"),
        ({"cron": "0 0 2 * * *"}, "five fields"),
        ({"cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"jitter_s": 86400.0}, "at most 12h"),
        ({"allowed": ("9-17",)}, "are no hours"),
        ({"allowed": ("09:00-09:00",)}, "are no hours"),
        ({"blocked": ("mon-fri 09:00-17:00 utc",)}, "are no hours"),
        ({"blocked_dates": ("24.12.2026",)}, "is no date"),
        ({"blocked_dates": ("2026-12-24..2026-12-01",)}, "ends before it begins"),
    ],
)
def test_a_schedule_that_is_wrong_says_what_would_be_right(wrong: dict[str, Any], why: str) -> None:
    require_schedule(NIGHTLY)
    with pytest.raises(Rejected, match=why):
        require_schedule(replace(NIGHTLY, **wrong))


def test_a_row_read_back_is_the_schedule_that_was_written() -> None:
    full = replace(NIGHTLY, allowed=("mon",), blocked=("sat,sun",), blocked_dates=("2026-12-24",), fresh_s=3600.0)
    assert (NIGHTLY, full) == (parse(dump(NIGHTLY)), parse(dump(full)))
    with pytest.raises(Rejected, match="newer"):
        parse({**dump(full), "schema": 2})  # type: ignore[dict-item]
