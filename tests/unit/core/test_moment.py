"""Times as operators write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.moment import is_ago, parse_moment

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20T11:00:00Z", "2026-11-20T11:00:00"),
        ("2026-11-20 11:00:00+02:00", "2026-11-20T09:00:00"),
        ("2026-11-20 11:00:00 +02", "2026-11-20T09:00:00"),
        ("2026-11-20 11:00:00.123456 UTC", "2026-11-20T11:00:00.123456"),
        ("2026-11-20 11:00+0530", "2026-11-20T05:30:00"),
        ("  2026-11-20   11:00 Z ", "2026-11-20T11:00:00"),
    ],
)
def test_times_with_a_zone(text, expected):
    assert parse_moment(text, NOW) == datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert parse_moment(text, NOW, BERLIN) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "delta"),
    [
        ("10 minutes ago", timedelta(minutes=10)),
        ("1 minute ago", timedelta(minutes=1)),
        ("90s ago", timedelta(seconds=90)),
        ("2 hours 30 min ago", timedelta(hours=2, minutes=30)),
        ("1 day, 2 hours and 5 minutes ago", timedelta(days=1, hours=2, minutes=5)),
        ("1.5h ago", timedelta(hours=1.5)),
        ("2 Weeks Ago", timedelta(weeks=2)),
    ],
)
def test_times_ago(text, delta):
    assert parse_moment(text, NOW) == NOW - delta


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "10 minutes",
        "10 parsecs ago",
        "minutes ago",
        "2026-13-01T00:00Z",
        "2026-11-20T11:00:00+99:00",
        "ago",
    ],
)
def test_what_is_not_a_time(text):
    with pytest.raises(ValueError, match=r"time|unit"):
        parse_moment(text, NOW)


def test_a_time_without_a_zone_needs_one():
    with pytest.raises(ValueError, match="no time zone"):
        parse_moment("2026-11-20 11:00", NOW)
    assert parse_moment("2026-11-20 11:00", NOW, BERLIN) == datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
    assert parse_moment("2026-07-20 11:00", NOW, BERLIN) == datetime(2026, 7, 20, 9, 0, tzinfo=UTC)


def test_a_time_that_the_clocks_showed_twice_or_never():
    with pytest.raises(ValueError, match=r"twice; write its offset, \+02:00 or \+01:00"):
        parse_moment("2026-10-25 02:30", NOW, BERLIN)
    with pytest.raises(ValueError, match="never showed"):
        parse_moment("2026-03-29 02:30", NOW, BERLIN)


def test_this_machines_clock_does_not_judge_what_is_written_out():
    """It may be wrong: what the repository holds decides whether that moment can be recovered."""
    assert parse_moment("2026-11-20T12:00:01Z", NOW) == NOW + timedelta(seconds=1)


def test_what_is_counted_from_now():
    assert is_ago(" 10  Minutes ago")
    assert not is_ago("2026-11-20T12:00:01Z")


@pytest.mark.parametrize("text", ["0001-01-01T00:00+14:00", "0001-01-01", "800000 days ago", f"{'9' * 400} days ago"])
def test_a_moment_outside_of_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="outside of the calendar"):
        parse_moment(text, NOW, BERLIN)


_WORDS = st.sampled_from(
    ["10", "1.5", "9" * 30, "min", "weeks", "ago", "and", ",", "2026-11-20", "T11:00", "Z", "+14:00"]
)


@given(
    st.lists(st.one_of(_WORDS, st.text(max_size=3)), max_size=8),
    st.sampled_from(["", " "]),
    st.sampled_from([None, BERLIN]),
)
def test_any_text_is_a_moment_or_refused(words, between, zone):
    try:
        moment = parse_moment(between.join(words), NOW, zone)
    except ValueError:
        return
    assert moment <= NOW
    assert moment.utcoffset() == timedelta(0)
