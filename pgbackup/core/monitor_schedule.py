"""A schedule of ours as Sentry's cron monitors take it: a crontab line or an interval, and a slug for the monitor.

https://docs.sentry.io/product/crons/getting-started/http/#creating-or-updating-a-monitor-through-a-check-in-optional:
intervals are whole minutes or longer, slugs at most 50 of ``a-z0-9_-``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from datetime import timedelta

from pgbackup.core.schedule_parse import CalendarFields
from pgbackup.core.schedule_spec import ScheduleSpec

_MOST_SLUG = 50
_UNITS = (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))


def monitor_schedule(spec: ScheduleSpec) -> dict[str, str | int]:
    """``{"type": "crontab", "value": "30 2 * * *"}`` or ``{"type": "interval", "value": 6, "unit": "hour"}``."""
    if spec.every is not None:
        return interval(spec.every)
    assert spec.calendar is not None
    return {"type": "crontab", "value": crontab(spec.calendar)}


def interval(every: timedelta) -> dict[str, str | int]:
    """The interval in the largest unit that divides it, rounded up to minutes."""
    for unit, length in _UNITS:
        if every >= length and not every % length:
            return {"type": "interval", "value": every // length, "unit": unit}
    return {"type": "interval", "value": max(1, -(-every // timedelta(minutes=1))), "unit": "minute"}


def crontab(fields: CalendarFields) -> str:
    """The five fields as numbers."""
    return " ".join(
        (
            _field(fields.minutes, range(60)),
            _field(fields.hours, range(24)),
            _field(fields.days, range(1, 32)),
            _field(fields.months, range(1, 13)),
            _field(fields.weekdays, range(7)),
        )
    )


def monitor_slug(cluster: str, what: str) -> str:
    """``pgbackup-<cluster>-<what>``; a long or strange name of a cluster keeps its beginning and gets a checksum."""
    plain = re.sub(r"[^a-z0-9]+", "-", cluster.lower()).strip("-")
    slug = f"pgbackup-{plain}-{what}"
    if len(slug) <= _MOST_SLUG and plain == cluster:
        return slug
    check = f"{zlib.crc32(cluster.encode()):08x}"
    room = _MOST_SLUG - len(f"pgbackup--{check}-{what}")
    return f"pgbackup-{plain[: max(0, room)]}-{check}-{what}"


def _field(values: frozenset[int], everything: Iterable[int]) -> str:
    return "*" if values >= frozenset(everything) else ",".join(str(value) for value in sorted(values))
