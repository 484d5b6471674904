"""Moments as people write them: ISO 8601 with a zone, or "10 minutes ago".

A time without a zone means nothing on a worst day, so it needs a zone that was given beside it; a local time that the
clocks showed twice or never (daylight saving) is refused with the offsets to choose from.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_UNITS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_SHORT = {
    "s": "second",
    "sec": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
    "w": "week",
}
_AGO = re.compile(r"^(?P<amounts>(?:\d+(?:\.\d+)?\s*[a-z]+[\s,]*(?:and\s+)?)+)\s*ago$")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_ZONE_AFTER_SPACE = re.compile(r"\s+(?=[+-]\d|Z$|z$|utc$|gmt$)", re.IGNORECASE)
_EXAMPLE = "write it like 2026-01-31T14:05:00+01:00, 2026-01-31 13:05:00Z, or 10 minutes ago"


def parse_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The moment (aware, UTC) that ``text`` names. ``zone`` counts for times without one of their own, ``now`` only
    for those "ago": whether a moment has come is not for a clock to say that may be wrong.

    Raises ValueError for anything that is not one moment.
    """
    text = " ".join(text.split())
    match = _AGO.match(text.lower())
    try:
        moment = now - _duration(match["amounts"]) if match else _absolute(text, zone)
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} lies outside of the calendar") from None


def is_ago(text: str) -> bool:
    """Whether a moment is counted back from now, so that it is as right as the clock that says when now is."""
    return _AGO.match(" ".join(text.split()).lower()) is not None


def _duration(text: str) -> timedelta:
    total = timedelta()
    for amount, unit in _AMOUNT.findall(text):
        name = _SHORT.get(unit, unit.removesuffix("s"))
        if name not in _UNITS:
            raise ValueError(f"{unit!r} is no unit of time; units are {', '.join(_UNITS)}")
        total += float(amount) * _UNITS[name]
    return total


def _absolute(text: str, zone: tzinfo | None) -> datetime:
    plain = _ZONE_AFTER_SPACE.sub("", text)
    if plain.lower().endswith(("utc", "gmt")):
        plain = plain[:-3] + "Z"
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; {_EXAMPLE}") from None
    if moment.tzinfo is not None:
        return moment
    if zone is None:
        raise ValueError(f"{text!r} has no time zone; {_EXAMPLE}, or say which one with --timezone")
    return _local(moment, zone, text)


def _local(moment: datetime, zone: tzinfo, text: str) -> datetime:
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first
    there_and_back = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if there_and_back != moment:
        raise ValueError(f"the clocks in {zone} never showed {text!r}")
    offsets = " or ".join(each.isoformat()[-6:] for each in (first, second))
    raise ValueError(f"the clocks in {zone} showed {text!r} twice; write its offset, {offsets}, behind it")
