"""A base backup that takes long is not overdue while it gets on; one that hangs, or is gone, is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgbackup.core.findings import Severity
from pgbackup.core.health_facts import BackupUnderWay, HealthFacts, JobView, RepositoryView
from tests.made_catalog import catalog, minutes
from tests.made_health import green, green_catalog, judged, server

DUE, GRACE = 120, 10
LATE, MISSED_TWO = DUE + GRACE + 1, DUE + 60 + GRACE + 1


def work(*, silent: float = 0.5, still: float = 1) -> BackupUnderWay:
    return BackupUnderWay("base_x", timedelta(minutes=silent), timedelta(minutes=still))


def told(
    minute: float, *under_way: BackupUnderWay, job: JobView | None = None, made=None
) -> list[tuple[str, Severity]]:
    now = minutes(minute)
    view = RepositoryView(green_catalog() if made is None else made, now, clock=now, under_way=under_way)
    facts: HealthFacts = green(server=server(looked=now, clock=now), repository=view, backups=job)
    return [(finding.key, finding.severity) for finding in judged(facts, now=now).findings]


OVERDUE = "backup:overdue"
HANGS = ("backup:stands-still:base_x", Severity.CRITICAL)


@pytest.mark.parametrize(
    ("minute", "under_way", "expected"),
    [
        (LATE, [], [(OVERDUE, Severity.WARNING)]),
        (LATE, [work()], []),
        (LATE, [work(silent=9, still=59)], []),
        (LATE, [work(silent=10, still=10)], [(OVERDUE, Severity.WARNING)]),
        (LATE, [work(still=60)], [HANGS, (OVERDUE, Severity.WARNING)]),
        (LATE, [work(silent=700, still=700), work()], []),
        (MISSED_TWO, [], [(OVERDUE, Severity.CRITICAL)]),
        (MISSED_TWO, [work()], [(OVERDUE, Severity.WARNING)]),
        (MISSED_TWO, [work(silent=30, still=30)], [(OVERDUE, Severity.CRITICAL)]),
        (MISSED_TWO, [work(still=90)], [(OVERDUE, Severity.CRITICAL), HANGS]),
    ],
)
def test_late_and_under_way(
    minute: float, under_way: list[BackupUnderWay], expected: list[tuple[str, Severity]]
) -> None:
    assert told(minute, *under_way) == expected


def test_another_tool_s_run_is_watched_by_its_job() -> None:
    """It leaves no note of ours in the bucket."""
    assert told(LATE, job=JobView(running=True)) == []
    assert told(MISSED_TWO, job=JobView(running=True)) == [(OVERDUE, Severity.WARNING)]
    assert told(LATE, work(still=90), job=JobView(running=True)) == [HANGS, (OVERDUE, Severity.WARNING)]


def test_the_first_one_is_waited_for_wherever_it_runs() -> None:
    empty = catalog([], {1: range(3, 21)}, {(1, 21): 0.5})
    assert told(LATE, made=empty) == [("backup:none", Severity.CRITICAL)]
    assert told(LATE, work(), made=empty) == [("backup:none", Severity.WARNING)]
    assert told(LATE, work(still=90), made=empty) == [("backup:none", Severity.CRITICAL), HANGS]
