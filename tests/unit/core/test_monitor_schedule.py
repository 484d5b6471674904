"""Our schedules as Sentry's monitors take them."""

from __future__ import annotations

import re

import pytest

from pgbackup.core.monitor_schedule import monitor_schedule, monitor_slug
from pgbackup.core.schedule_spec import ScheduleSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("daily at 02:30", {"type": "crontab", "value": "30 2 * * *"}),
        ("weekly on sunday at 03:00", {"type": "crontab", "value": "0 3 * * 0"}),
        ("*/20 1-3 1 * mon", {"type": "crontab", "value": "0,20,40 1,2,3 1 * 1"}),
        ("every 6 hours", {"type": "interval", "value": 6, "unit": "hour"}),
        ("every 48 hours", {"type": "interval", "value": 2, "unit": "day"}),
        ("every 90 minutes", {"type": "interval", "value": 90, "unit": "minute"}),
    ],
)
def test_schedules(text: str, expected: dict[str, object]) -> None:
    assert monitor_schedule(ScheduleSpec.parse(text)) == expected


@pytest.mark.parametrize("cluster", ["main", "bucket/prefix", "Bücket/" + "x" * 200, "---", "7400000000000000001"])
def test_slugs_are_short_plain_and_their_own(cluster: str) -> None:
    slug = monitor_slug(cluster, "base-backup")
    assert re.fullmatch(r"[a-z0-9_-]{1,50}", slug)
    assert slug != monitor_slug(cluster + "2", "base-backup")
