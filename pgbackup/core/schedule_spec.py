"""When something is due: "daily at 02:00", "every 6 hours", "weekly on sunday at 03:00", or five cron fields.

Whether work is overdue follows from when it was last done, which callers read from the repository; nothing here
remembers anything, so a restart or hours of downtime cannot skip a run.

Wall-clock schedules and daylight saving time: a moment that the clock jumps over comes once, as many hours after the
one of the day before as ever (02:30 is shown as 03:30 then); a moment that the clock shows twice counts the first time
only. Cron lines that run in every hour follow elapsed time instead: every shown minute counts.

The cron matcher is written out here because the libraries for it decide those days otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from pgbackup.core.schedule_parse import CalendarFields, parse_schedule

_HORIZON_DAYS = 366 * 9
"""Longer than from one 29 February to the next but one, across a year like 2100."""

_EVERY_HOUR = frozenset(range(24))


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A schedule as ``parse`` made it: either ``every`` (elapsed time) or ``calendar`` (wall clock)."""

    text: str
    every: timedelta | None = None
    calendar: CalendarFields | None = None

    @classmethod
    def parse(cls, text: str) -> ScheduleSpec:
        """Raises ValueError that says what is wrong."""
        parsed = parse_schedule(text)
        if isinstance(parsed, timedelta):
            return cls(text.strip(), every=parsed)
        return cls(text.strip(), calendar=parsed)

    def __str__(self) -> str:
        return self.text


def next_due(spec: ScheduleSpec, after: datetime, tz: tzinfo) -> datetime:
    """The first moment after ``after`` (aware) at which the schedule comes round, aware, in UTC."""
    after = _utc(after)
    if spec.every is not None:
        return after + spec.every
    assert spec.calendar is not None
    found: datetime | None = None
    first = after.astimezone(tz).date() - timedelta(days=1)
    for number in range(_HORIZON_DAYS):
        for moment in _moments(spec.calendar, first + timedelta(days=number), tz):
            if moment > after and (found is None or moment < found):
                found = moment
        # A jump of the clock can push a moment past one of the next day's: look one day further.
        if found is not None and first + timedelta(days=number) > found.astimezone(tz).date():
            return found
    if found is None:
        raise ValueError(f"the schedule {spec} never comes round")
    return found


def _moments(fields: CalendarFields, day: date, tz: tzinfo) -> Iterator[datetime]:
    if not fields.matches_day(day):
        return
    hourly = fields.hours == _EVERY_HOUR
    for hour in sorted(fields.hours):
        for minute in sorted(fields.minutes):
            wall = datetime.combine(day, time(hour, minute))
            # fold=0 is the first of two, and counts on with the old offset where the clock jumps ahead.
            moment = wall.replace(tzinfo=tz).astimezone(UTC)
            if not hourly:
                yield moment
                continue
            for fold in (0, 1):
                moment = wall.replace(tzinfo=tz, fold=fold).astimezone(UTC)
                if moment.astimezone(tz).replace(tzinfo=None, fold=0) == wall:
                    yield moment


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment.astimezone(UTC)
