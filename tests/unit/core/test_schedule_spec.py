"""Schedules: what they mean, and every daylight saving day of two years in zones that change differently."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.schedule_spec import ScheduleSpec, next_due

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo", "Asia/Kolkata")
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
YEARS = 2


def due(text, after=NOON, tz=UTC):
    return next_due(ScheduleSpec.parse(text), after, tz)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("daily at 02:00", "2026-03-05T02:00"),
        ("Daily  at 13:30", "2026-03-04T13:30"),
        ("daily at 12:00", "2026-03-05T12:00"),
        ("weekly on sunday at 03:00", "2026-03-08T03:00"),
        ("weekly on wed at 11:59", "2026-03-11T11:59"),
        ("every 6 hours", "2026-03-04T18:00"),
        ("every hour", "2026-03-04T13:00"),
        ("every 90 minutes", "2026-03-04T13:30"),
        ("every 2 days", "2026-03-06T12:00"),
        ("30 2 * * *", "2026-03-05T02:30"),
        ("*/15 * * * *", "2026-03-04T12:15"),
        ("0 0 1 * *", "2026-04-01T00:00"),
        ("0 0 31 * *", "2026-03-31T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 3 * * 7", "2026-03-08T03:00"),
        ("0 3 * * 0", "2026-03-08T03:00"),
        ("0 3 * * mon-fri", "2026-03-05T03:00"),
        ("0 3 * jan,jun SUN", "2026-06-07T03:00"),
        ("5-10/5 8-18/4 * * *", "2026-03-04T12:05"),
        ("0 0 13 * fri", "2026-03-06T00:00"),
        ("0 0 */2 * fri", "2026-03-13T00:00"),
        ("10/20 0 * * *", "2026-03-05T00:10"),
        ("0 0 30 2 mon", "2027-02-01T00:00"),
    ],
)
def test_next_due(text, expected):
    assert due(text) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "", "hourly", "daily", "daily at 24:00", "daily at 2", "daily at 02:60", "weekly on day at 03:00",
        "every 0 hours",
        "every 400 days", "every 99999999999 days", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *",
        "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "1,,2 * * * *", "-1 * * * *",
        "1- * * * *",
        "0 0 30 2 *", "0 0 31 4,6 *", "* * * * sunburn", "@daily", "\u0661 * * * *", "*/\u00b2 * * * *",
        "every " + "9" * 5000 + " hours",
        "0 0 " + "9" * 5000 + " * *", "*/" + "9" * 5000 + " * * * *",
    ],
)  # fmt: skip
def test_what_is_no_schedule(text):
    with pytest.raises(ValueError, match=r"\w"):
        ScheduleSpec.parse(text)


def test_a_moment_without_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        due("daily at 02:00", datetime(2026, 3, 4))  # noqa: DTZ001


def test_times_of_day_are_those_of_the_zone():
    assert due("daily at 02:00", tz=BERLIN) == datetime(2026, 3, 5, 1, tzinfo=UTC)
    assert due("daily at 02:00", tz=timezone(timedelta(hours=14))) == datetime(2026, 3, 5, 12, tzinfo=UTC)


def occurrences(text, tz, start, days):
    """Every time that a schedule comes round, when each run is the last of the next."""
    spec, moment, found = ScheduleSpec.parse(text), start, []
    while moment < start + timedelta(days=days):
        moment = next_due(spec, moment, tz)
        found.append(moment)
    return found[:-1]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", ["daily at 02:30", "daily at 00:00", "30 1 * * *"])
def test_every_day_of_two_years_has_one_run(zone, text):
    tz = ZoneInfo(zone)
    start = datetime(2026, 1, 1, 12, tzinfo=tz)
    runs = [moment.astimezone(tz) for moment in occurrences(text, tz, start, 365 * YEARS)]
    days = [moment.date() for moment in runs]
    assert len(days) == len(set(days)), "a day was doubled"
    assert days == [days[0] + timedelta(days=i) for i in range(len(days))], "a day was skipped"
    assert len(days) == 365 * YEARS
    moved = [
        moment
        for moment in runs
        if moment.strftime("%H:%M") not in text and f"{moment.minute} {moment.hour}" not in text
    ]
    assert all(_jumped(moment) for moment in moved), "only a time that does not exist may move"


def _jumped(moment):
    """Whether the clock jumped ahead in the hours before."""
    return (moment - timedelta(hours=3)).astimezone(UTC).astimezone(moment.tzinfo).utcoffset() < moment.utcoffset()


def test_the_hour_that_does_not_exist_and_the_one_that_comes_twice():
    spring = occurrences("daily at 02:30", BERLIN, datetime(2026, 3, 28, tzinfo=BERLIN), 3)
    assert [m.astimezone(BERLIN).isoformat() for m in spring] == [
        "2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00",
    ]  # fmt: skip
    autumn = occurrences("daily at 02:30", BERLIN, datetime(2026, 10, 24, tzinfo=BERLIN), 3)
    assert [m.astimezone(BERLIN).isoformat() for m in autumn] == [
        "2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00",
    ]  # fmt: skip


def changes(tz):
    """The noons before every change of the clock in two years."""
    noons = [datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=i) for i in range(365 * YEARS)]
    return [a for a, b in pairwise(noons) if a.astimezone(tz).utcoffset() != b.astimezone(tz).utcoffset()]


@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone != "Asia/Kolkata"])
@pytest.mark.parametrize(("text", "minutes"), [("*/30 * * * *", 30), ("every 6 hours", 360)])
def test_what_runs_in_every_hour_follows_elapsed_time(zone, text, minutes):
    tz = ZoneInfo(zone)
    assert len(changes(tz)) >= 2 * YEARS
    for start in changes(tz):
        gaps = {later - earlier for earlier, later in pairwise(occurrences(text, tz, start, 1))}
        assert gaps == {timedelta(minutes=minutes)}


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)), st.sampled_from(ZONES))  # noqa: DTZ001
def test_the_next_run_is_later_and_there_is_none_between(after, zone):
    tz = ZoneInfo(zone)
    for text in ("daily at 02:30", "15,45 */5 * * *", "weekly on sunday at 00:00"):
        first = due(text, after, tz)
        assert first > after
        assert due(text, first - timedelta(seconds=1), tz) == first
        assert due(text, after + (first - after) / 2, tz) == first
