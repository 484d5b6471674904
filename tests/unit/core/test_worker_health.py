"""Which workers are a finding."""

from __future__ import annotations

import pytest

from pgbackup.core.findings import Severity
from pgbackup.core.worker_health import CRASH_NEWS_SECONDS, WorkerState, worker_findings


def state(**changes: object) -> WorkerState:
    return WorkerState(**{"name": "wal", "alive": True, "silent_after_seconds": 60.0, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"idle_seconds": 59}, {}),
        ({"idle_seconds": 61}, {"worker:wal:silent": Severity.CRITICAL}),
        ({"idle_seconds": 1e6, "silent_after_seconds": None}, {}),
        ({"alive": False}, {"worker:wal:silent": Severity.CRITICAL}),
        ({"crashes": 1, "crashes_in_a_row": 1, "seconds_since_crash": 2}, {"worker:wal:crashing": Severity.WARNING}),
        ({"crashes": 9, "crashes_in_a_row": 3, "seconds_since_crash": 2}, {"worker:wal:crashing": Severity.CRITICAL}),
        ({"crashes": 9, "seconds_since_crash": CRASH_NEWS_SECONDS - 1}, {"worker:wal:crashing": Severity.WARNING}),
        ({"crashes": 9, "seconds_since_crash": CRASH_NEWS_SECONDS + 1}, {}),
    ],
)
def test_findings(changes: dict[str, object], expected: dict[str, Severity]) -> None:
    assert {f.key: f.severity for f in worker_findings([state(**changes)])} == expected


def test_the_last_error_is_in_the_summary() -> None:
    found = worker_findings([state(crashes=1, seconds_since_crash=1.0, last_error="KeyError: 'x'"), state(name="jobs")])
    assert ["KeyError: 'x'" in f.summary for f in found] == [True]
