"""Time marks of a server whose clock was wrong for a while."""

from __future__ import annotations

import pytest

from pgbackup.core.catalog import TimeMark
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from pgbackup.core.time_marks import by_position, ended_early_at, fitting
from tests.made_catalog import at, backup, catalog, minutes, nothing_found, refused, simple, stop_at

TOMORROW, YESTERDAY = 1440, -1440


def row(*pairs: tuple[float, float]) -> list[TimeMark]:
    """Marks of timeline 1 from (minute, position)."""
    return [TimeMark(minutes(minute), 1, at(where)) for minute, where in pairs]


RIGHT = ((10, 4), (20, 6), (30, 8), (40, 10), (50, 12))


@pytest.mark.parametrize("wrong", [(), ((TOMORROW, 7),), ((YESTERDAY, 7),), ((TOMORROW, 6.5), (YESTERDAY, 9))])
def test_the_marks_of_a_wrong_clock_do_not_fit(wrong):
    assert fitting(by_position(row(*RIGHT, *wrong))) == row(*RIGHT)


def test_marks_of_one_position_or_one_moment_fit_together():
    marks = row((10, 4), (20, 4), (20, 5))
    assert fitting(by_position(marks)) == marks
    assert fitting([]) == []


def taken(*wrong: tuple[float, float]):
    """A repository with a backup before everything and WAL to 13."""
    marks = [(minute, 1, where) for minute, where in (*RIGHT, *wrong)]
    return catalog([backup(3.2, 3.5, minute=0)], {1: range(3, 13)}, marks=marks)


def test_a_clock_that_was_ahead_makes_no_later_moment_known():
    """A loss of everything from minute 50 on would be taken for a quiet server."""
    error = refused(taken((TOMORROW, 7)), Target("time", time=minutes(60)), evidence=nothing_found(12.9))
    assert "beyond the archive" in error.message
    assert "12:50:00+00" in error.detail


def test_a_clock_that_was_behind_at_the_end_makes_no_moment_unknown():
    plan = plan_restore(taken((YESTERDAY, 12.5)), Target("time", time=minutes(45)), evidence=nothing_found(12.9))
    assert plan.target.lsn == at(12.9)


def test_a_clock_that_was_behind_proves_no_backup():
    """Its mark would say that the second backup had ended a day before it began."""
    marks = [(minute, 1, where) for minute, where in (*RIGHT, (YESTERDAY, 9))]
    found = catalog([backup(3.2, 3.5, minute=0), backup(7.2, 7.5, minute=25)], {1: range(3, 13)}, marks=marks)
    plan = plan_restore(found, Target("time", time=minutes(15)), evidence=stop_at(7.9, minute=27))
    assert plan.backup.start_lsn == at(3.2)


def test_a_recovery_that_would_end_at_a_commit_of_a_clock_that_was_ahead_is_refused():
    ahead = taken((TOMORROW, 7))
    error = refused(ahead, Target("time", time=minutes(45)), evidence=stop_at(10.5, minute=46))
    assert "would end too early" in error.message
    assert f"--to-lsn {at(10)}" in error.hint
    plan = plan_restore(ahead, Target("time", time=minutes(15)), evidence=stop_at(5, minute=16))
    assert plan.end < at(6)


def test_a_backup_from_after_it_recovers_to_the_same_moment():
    marks = [(minute, 1, where) for minute, where in (*RIGHT, (TOMORROW, 5))]
    found = catalog([backup(3.2, 3.5, minute=0), backup(7.2, 7.5, minute=25)], {1: range(3, 13)}, marks=marks)
    plan = plan_restore(found, Target("time", time=minutes(45)), evidence=stop_at(10.5, minute=46))
    assert plan.backup.start_lsn == at(7.2)


def test_a_clock_that_was_behind_does_not_end_a_recovery():
    marks = by_position(row(*RIGHT, (YESTERDAY, 9)))
    assert ended_early_at(marks, at(3.5), minutes(15)) is None


def test_a_mark_of_a_clock_that_was_ahead_proves_nothing_of_what_came_after():
    """It went an hour ahead, and was set back: the archive ends at minute 80, whatever the earlier mark says."""
    marks = [(70, 1, 12), (140, 1, 15), (80, 1, 21.5)]
    error = refused(simple(marks=marks), Target("time", time=minutes(85)), evidence=nothing_found(21.3, minute=80))
    assert "beyond the archive" in error.message
    assert "13:20:00+00" in error.detail
