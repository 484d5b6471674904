"""What is taken from the settings: how late the cron monitors let a run be, and what health misses."""

from __future__ import annotations

import pytest

from pgbackup.config.settings import load_settings
from pgbackup.supervisor import from_settings


@pytest.mark.parametrize(
    ("jitter", "minutes"),
    [
        ("0", {"base backup": 60, "verification": 60, "expiry": 720}),
        ("690min", {"base backup": 750, "verification": 750, "expiry": 750}),
    ],
)
def test_a_run_is_missed_when_it_is_later_than_jitter_and_others_explain(jitter: str, minutes: dict[str, int]) -> None:
    """Expiry waits for a base backup, which may take hours."""
    environ = {"PGBACKUP_REPOSITORY": "file:///r", "PGBACKUP_SCHEDULE_JITTER": jitter}
    monitors = from_settings.desk(load_settings(environ=environ)).monitors
    assert {job: monitor.document()["checkin_margin"] for job, monitor in monitors.items()} == minutes


def test_health_misses_what_expiry_keeps() -> None:
    environ = {"PGBACKUP_REPOSITORY": "file:///r", "PGBACKUP_RETENTION_BACKUPS": "3", "PGBACKUP_RETENTION_WEEKLY": "5"}
    settings = load_settings(environ=environ)
    assert from_settings.limits(settings).retention == from_settings.retention(settings)
    assert from_settings.limits(settings).retention.weekly == 5
