"""When a drill is due: cron in a time zone, hours and dates that are allowed or blocked, jitter, one firing for many missed.

Pure: `now` is an argument, and the jitter comes from the schedule's id and the date, so that every orchestrator computes
the same moment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Final, Literal, cast
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from orchestrator.core.drill import Choice, DrillPolicy, Wish
from orchestrator.core.drill_row import dump_policy, parse_policy
from orchestrator.core.errors import Rejected
from orchestrator.core.machine import Json
from orchestrator.core.outing import Mode

SCHEMA: Final = 1
LOOKS_MAX: Final = 2000  # Firings that are looked at to find one in an allowed hour.
JITTER_MAX_S: Final = 12 * 3600.0
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HOURS: Final = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class DrillSchedule:
    """`place` None: the zone or region with the oldest or weakest proof, by `choice`. `fresh_s`: how young its proof may
    be for the drill not to be needed; None: always drill. `allowed`, `blocked`: hours, such as `mon-fri 09:00-17:00`;
    `blocked_dates`: `2026-12-24` or `2026-12-20..2027-01-02`. All of them in `time_zone`.
    """

    id: str
    cron: str
    time_zone: str
    mode: Mode
    policy: DrillPolicy
    author: str
    reason: str
    tier: Literal["zone", "region"] = "zone"
    place: str | None = None
    choice: Choice = Choice.WEAKEST
    fresh_s: float | None = None
    jitter_s: float = 0.0
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    blocked_dates: tuple[str, ...] = ()

    def wish(self, place: str) -> Wish:
        reason = f"schedule {self.id}: {self.reason}"
        return Wish(place, self.tier, self.mode, self.policy, self.author, reason, self.id)


def require_schedule(schedule: DrillSchedule) -> None:
    """Raises Rejected with what is wrong and what would be right."""
    if not _NAME.fullmatch(schedule.id):
        raise Rejected(f"{schedule.id!r} is no name of a schedule: lower case letters, digits and -, at most 40")
    try:
        zone = ZoneInfo(schedule.time_zone)
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise Rejected(f"{schedule.time_zone!r} is no time zone; write one such as Europe/Berlin or UTC") from None
    except KeyError:
        raise Rejected(
            f"there is no time zone {schedule.time_zone!r}; write one such as Europe/Berlin or UTC"
        ) from None
    if len(schedule.cron.split()) != 5:  # noqa: PLR2004 - cronsim would take seconds too
        raise Rejected(f"cron {schedule.cron!r}: five fields are expected: minute hour day month weekday")
    try:
        next(CronSim(schedule.cron, datetime(2026, 1, 1, tzinfo=zone)))
    except (CronSimError, StopIteration) as error:
        raise Rejected(f"cron {schedule.cron!r}: {error or 'it never comes'}") from None
    if not 0 <= schedule.jitter_s <= JITTER_MAX_S:
        raise Rejected("jitter is at most 12h")
    for window in (*schedule.allowed, *schedule.blocked):
        _window(window)
    for span in schedule.blocked_dates:
        _dates(span)


# ---- when


def due(schedule: DrillSchedule, now: datetime, since: datetime) -> datetime | None:
    """The firing to do now, by its time without jitter; None: nothing is due.

    `since`: the last firing that was done, or when the schedule began. Of many that were missed the latest counts, once;
    while the hours are closed it waits.
    """
    if not is_open(schedule, now):
        return None
    for nominal in islice(_firings(schedule, now, reverse=True), LOOKS_MAX):
        if nominal <= since:
            return None
        at = nominal + timedelta(seconds=jitter_s(schedule, nominal))
        if at <= now and is_open(schedule, at):
            return nominal
    return None


def next_at(schedule: DrillSchedule, now: datetime, since: datetime) -> datetime | None:
    """When it fires next, jitter included: now, if one is due."""
    if due(schedule, now, since) is not None:
        return now
    early = now - timedelta(seconds=schedule.jitter_s)
    for nominal in islice(_firings(schedule, max(early, since), reverse=False), LOOKS_MAX):
        at = nominal + timedelta(seconds=jitter_s(schedule, nominal))
        if at > now and is_open(schedule, at):
            return at
    return None


def _firings(schedule: DrillSchedule, start: datetime, *, reverse: bool) -> Iterator[datetime]:
    """In UTC; backwards `start` itself is one of them."""
    local = start.astimezone(ZoneInfo(schedule.time_zone))
    if reverse:
        local = local.replace(microsecond=0) + timedelta(microseconds=1)
    for found in CronSim(schedule.cron, local, reverse=reverse):
        yield found.astimezone(UTC)


def jitter_s(schedule: DrillSchedule, nominal: datetime) -> float:
    """Whole seconds in [0, jitter_s], the same for one schedule and one local date."""
    day = nominal.astimezone(ZoneInfo(schedule.time_zone)).date()
    digest = hashlib.sha256(f"{schedule.id} {day.isoformat()}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") % (int(schedule.jitter_s) + 1))


def is_open(schedule: DrillSchedule, at: datetime) -> bool:
    """True when a drill may begin then, and its time is over before the hours close."""
    ends = at + timedelta(seconds=schedule.policy.duration_s)
    return _open(schedule, at) and _open(schedule, ends)


def _open(schedule: DrillSchedule, at: datetime) -> bool:
    local = at.astimezone(ZoneInfo(schedule.time_zone))
    if any(first <= local.date() <= last for first, last in map(_dates, schedule.blocked_dates)):
        return False
    return not _within(schedule.blocked, local) and (not schedule.allowed or _within(schedule.allowed, local))


def _within(windows: Iterable[str], local: datetime) -> bool:
    minute, today, yesterday = local.hour * 60 + local.minute, local.weekday(), (local.weekday() - 1) % 7
    for text in windows:
        days, begin, end = _window(text)
        if begin < end and today in days and begin <= minute < end:
            return True
        # Over midnight the day is the one on which it begins.
        if begin > end and ((today in days and minute >= begin) or (yesterday in days and minute < end)):
            return True
    return False


def _window(text: str) -> tuple[frozenset[int], int, int]:
    """`mon-fri 09:00-17:00`, `sat,sun` or `22:00-04:00`: days, first minute, minute after the last. Raises Rejected."""
    words = text.lower().split()
    days, hours = frozenset(range(7)), (0, _DAY_MINUTES)
    try:
        if not 1 <= len(words) <= 2:  # noqa: PLR2004
            raise ValueError(text)  # noqa: TRY301
        if _HOURS.fullmatch(words[-1]):
            hours = _minutes(words.pop())
        if words:
            days = frozenset(day for part in words.pop().split(",") for day in _weekdays(part))
        if words:
            raise ValueError(text)  # noqa: TRY301
    except ValueError:
        raise Rejected(f"{text!r} are no hours; write mon-fri 09:00-17:00, sat,sun or 22:00-04:00") from None
    return days, *hours


def _minutes(text: str) -> tuple[int, int]:
    found = cast("re.Match[str]", _HOURS.fullmatch(text))
    hours = [int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])]
    if max(hours) > _DAY_MINUTES or int(found[2]) > 59 or int(found[4]) > 59 or hours[0] == hours[1]:  # noqa: PLR2004
        raise ValueError(text)
    return hours[0], hours[1]


def _weekdays(text: str) -> Iterator[int]:
    first, _, last = text.partition("-")
    begin, end = _DAYS.index(first), _DAYS.index(last or first)
    return ((begin + i) % 7 for i in range((end - begin) % 7 + 1))


def _dates(text: str) -> tuple[date, date]:
    """`2026-12-24` or `2026-12-20..2027-01-02`, both ends included. Raises Rejected."""
    first, dots, last = text.partition("..")
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last if dots else first)
    except ValueError:
        raise Rejected(f"{text!r} is no date; write 2026-12-24 or 2026-12-20..2027-01-02") from None
    if end < begin:
        raise Rejected(f"{text!r} ends before it begins")
    return begin, end


# ---- its row


def dump(schedule: DrillSchedule) -> Json:
    plain = cast("dict[str, Json]", {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(schedule).items()})
    told: dict[str, Json] = {"schema": SCHEMA, "policy": dump_policy(schedule.policy)}
    return {**plain, **told, "mode": str(schedule.mode), "choice": str(schedule.choice)}


def parse(data: Json) -> DrillSchedule:
    """Read a row back. Raises Rejected when a newer Failout wrote it."""
    row = dict(cast("dict[str, Any]", data))
    if row.pop("schema") != SCHEMA:
        raise Rejected(f"this schedule was written by a newer Failout; this one reads schema {SCHEMA}")
    spans = {name: tuple(row[name]) for name in ("allowed", "blocked", "blocked_dates")}
    enums = {"mode": Mode(row["mode"]), "choice": Choice(row["choice"]), "policy": parse_policy(row["policy"])}
    return DrillSchedule(**{**row, **spans, **enums})
