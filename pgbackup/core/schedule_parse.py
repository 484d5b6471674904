"""Reads a schedule's text into plain fields; schedule_spec.py says when they come round."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

EXPECTED = (
    'expected "daily at 02:00", "every 6 hours", "weekly on sunday at 03:00" or five cron fields'
    " (minute hour day-of-month month day-of-week)"
)
SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=366)

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = {word: number for number, name in enumerate(_DAYS) for word in (name[:3], name)}
_MONTH_NAMES = {name: number for number, name in enumerate(_MONTHS, start=1)}
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_DAILY = re.compile(r"^daily at (\d{1,2}):(\d{2})$")
_WEEKLY = re.compile(r"^weekly on ([a-z]+) at (\d{1,2}):(\d{2})$")
_SHORT_NUMBER = re.compile(r"[0-9]{1,6}")
_EVERY = re.compile(r"^every (?:([0-9]{1,9}) )?(minute|hour|day)s?$")
_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class CalendarFields:
    """The five fields of a cron line as sets; Sunday is 0. ``either_day``: both day fields were restricted, so a day
    that fits one of them is enough (cron's rule)."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool = False

    def matches_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_date or by_weekday) if self.either_day else (by_date and by_weekday)


def parse_schedule(text: str) -> timedelta | CalendarFields:
    """An interval, or calendar fields. Raises ValueError that says what is wrong."""
    words = " ".join(text.lower().split())
    if match := _EVERY.match(words):
        return _interval(int(match[1] or 1), match[2])
    if match := _DAILY.match(words):
        return _at(match[1], match[2], frozenset(range(7)))
    if match := _WEEKLY.match(words):
        number = _DAY_NAMES.get(match[1])
        if number is None:
            raise ValueError(f"not a day of the week: {match[1]}")
        return _at(match[2], match[3], frozenset({number}))
    fields = words.split()
    if len(fields) != 5 or not words.isascii():
        raise ValueError(EXPECTED)
    return _cron(fields)


def _interval(count: int, unit: str) -> timedelta:
    if count > 1_000_000 or not SHORTEST <= count * _UNITS[unit] <= LONGEST:
        raise ValueError("an interval lies between 1 minute and 366 days")
    return count * _UNITS[unit]


def _at(hour: str, minute: str, weekdays: frozenset[int]) -> CalendarFields:
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError(f"not a time of day: {hour}:{minute}")
    whole = frozenset(range(1, 32)), frozenset(range(1, 13))
    return CalendarFields(frozenset({int(minute)}), frozenset({int(hour)}), *whole, weekdays)


def _cron(fields: list[str]) -> CalendarFields:
    minutes = _field("minute", fields[0], 0, 59)
    hours = _field("hour", fields[1], 0, 23)
    days = _field("day of month", fields[2], 1, 31)
    months = _field("month", fields[3], 1, 12, _MONTH_NAMES)
    weekdays = frozenset(number % 7 for number in _field("day of week", fields[4], 0, 7, _DAY_NAMES))
    # Cron looks at the star, not at the set: `*/2` in a day field does not count as restricted.
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    if not either and not any(day <= _MONTH_DAYS[month - 1] for month in months for day in days):
        raise ValueError("this day does not exist in any of these months")
    return CalendarFields(minutes, hours, days, months, weekdays, either)


def _field(what: str, text: str, low: int, high: int, names: Mapping[str, int] | None = None) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        body, slash, step_text = part.partition("/")
        step = int(step_text) if _SHORT_NUMBER.fullmatch(step_text) else 0
        if slash and step < 1:
            raise ValueError(f"not a step in the {what} field: {part}")
        if body == "*":
            first, last = low, high
        else:
            start, dash, end = body.partition("-")
            first = _number(what, start, low, high, names or {})
            last = _number(what, end, low, high, names or {}) if dash else (high if slash else first)
        if last < first:
            raise ValueError(f"the range {body} in the {what} field runs backwards")
        found.update(range(first, last + 1, step or 1))
    return frozenset(found)


def _number(what: str, text: str, low: int, high: int, names: Mapping[str, int]) -> int:
    number = names.get(text) if text.isalpha() else int(text) if _SHORT_NUMBER.fullmatch(text) else None
    if number is None or not low <= number <= high:
        raise ValueError(f"not a value of the {what} field ({low} to {high}): {text or 'nothing'}")
    return number
