"""A gap is critical until a backup after it is there, then a warning until somebody knows of it, or none from before it
is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.core.findings import Severity
from pgbackup.core.gap_findings import gap_findings, gaps_need_backup, is_past
from pgbackup.core.health_facts import RepositoryView
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.timeline import parse_history
from tests.made_catalog import at, backup, catalog, minutes
from tests.made_health import NOW, green, judged, server

GAP = KnownGap(1, at(12), at(15), minutes(5), "the server had removed it; slot pgbackup was missing")
WITH_HOLE = {1: [*range(3, 12), *range(15, 30)]}


def severities(gaps, made, current=None) -> list[Severity]:
    return [finding.severity for finding in gap_findings(gaps, made, current)]


def test_without_a_backup_after_it_nothing_after_it_can_be_recovered() -> None:
    made = catalog([backup(3.2, 4.5)], WITH_HOLE)
    assert severities([GAP], made) == [Severity.CRITICAL]
    assert severities([replace(GAP, acknowledged=minutes(6))], made) == [Severity.CRITICAL]


def test_a_known_loss_is_green_once_it_is_acknowledged() -> None:
    made = catalog([backup(3.2, 4.5), backup(16.1, 17.2, minute=10)], WITH_HOLE)
    assert severities([GAP], made) == [Severity.WARNING]
    assert severities([replace(GAP, acknowledged=minutes(6))], made) == []


def test_a_backup_that_began_before_the_end_of_the_gap_does_not_count() -> None:
    made = catalog([backup(14.1, 17.2, minute=10)], WITH_HOLE)
    assert severities([GAP], made) == [Severity.CRITICAL]


def test_a_gap_on_a_branch_that_was_left_is_a_known_loss() -> None:
    fork = f"1\t{at(9)}\tx\n"
    made = catalog(
        [backup(3.2, 4.5), backup(9.2, 9.5, timeline=2, minute=9)], {**WITH_HOLE, 2: [9, 10]}, forks=[(2, fork)]
    )
    assert severities([GAP], made, parse_history(2, fork)) == [Severity.WARNING]


def test_the_reason_is_told_where_a_segment_is_missing() -> None:
    made = replace(catalog([backup(11.2, 13.5)], WITH_HOLE), known_gaps=(GAP,))
    problem = made.why_not_restorable(made.backups[0])
    assert "lost: the server had removed it; slot pgbackup was missing" in problem


@pytest.mark.parametrize("name", ["1/0/C00000"])
def test_names_are_those_of_lsns(name: str) -> None:
    assert GAP.name == name


def test_what_is_missing_on_a_later_timeline_is_not_excused_by_a_gap_at_the_same_positions() -> None:
    """Restored to a moment before the gap, the server came by its positions again, on another timeline."""
    fork = f"1\t{at(9)}\tx\n"
    made = catalog(
        [backup(3.2, 4.5), backup(9.2, 9.5, timeline=2, minute=9)],
        {**WITH_HOLE, 2: [9, 10, 11, 12, 14, 15]},
        forks=[(2, fork)],
    )
    made = replace(made, known_gaps=(replace(GAP, acknowledged=minutes(6)),))
    health = judged(green(repository=RepositoryView(made, NOW), server=server(timeline=2, position=at(16))))
    assert f"wal:hole:2/{at(13)}" in [finding.key for finding in health.findings]


def test_a_backup_of_another_branch_does_not_mend_a_gap() -> None:
    fork = f"1\t{at(9)}\tx\n"
    made = catalog(
        [backup(3.2, 4.5), backup(19.2, 19.5, timeline=2, minute=9)], {**WITH_HOLE, 2: range(9, 30)}, forks=[(2, fork)]
    )
    assert severities([GAP], made, parse_history(1, "")) == [Severity.CRITICAL]


def test_a_gap_wants_a_backup_until_one_begins_after_it_whatever_the_clocks_say() -> None:
    """Gaps are noticed by our clock and backups dated by the server's: neither order of them says anything."""
    before, after = backup(3.2, 4.5, minute=0), backup(16.1, 17.2, minute=10)
    for found in (minutes(-600), minutes(5), minutes(600)):
        gaps = (replace(GAP, found=found),)
        assert gaps_need_backup(replace(catalog([before], WITH_HOLE), known_gaps=gaps), before)
        assert not gaps_need_backup(replace(catalog([before, after], WITH_HOLE), known_gaps=gaps), after)


def test_a_gap_wants_no_backup_of_a_branch_that_does_not_come_by() -> None:
    fork = f"1\t{at(9)}\tx\n"
    other = backup(9.2, 9.5, timeline=2, minute=9)
    made = catalog([backup(3.2, 4.5), other], {**WITH_HOLE, 2: [9, 10]}, forks=[(2, fork)])
    assert not gaps_need_backup(replace(made, known_gaps=(GAP,)), other)


def test_a_gap_on_a_new_timeline_wants_one_when_the_newest_is_of_the_old() -> None:
    made = catalog([backup(3.2, 4.5)], {1: range(3, 10), 2: range(20, 30)}, forks=[(2, f"1\t{at(9)}\tx\n")])
    assert gaps_need_backup(replace(made, known_gaps=(replace(GAP, timeline=2),)), made.backups[0])


# -- when it is over by itself ------------------------------------------------------------------------------------

LATER = backup(16.1, 17.2, minute=10)


def test_a_gap_is_over_when_every_backup_from_before_it_has_expired() -> None:
    before = backup(3.2, 4.5)
    assert severities([GAP], catalog([before, LATER], WITH_HOLE)) == [Severity.WARNING]
    assert severities([GAP], catalog([LATER], WITH_HOLE)) == []
    assert severities([GAP], catalog([LATER], {1: range(16, 30)})) == [], "the WAL before it has expired as well"


def test_a_gap_without_a_backup_after_it_is_never_over() -> None:
    assert severities([GAP], catalog([], WITH_HOLE)) == [Severity.CRITICAL]
    broken = replace(LATER, problem="its metadata is damaged")
    assert severities([GAP], catalog([broken], WITH_HOLE)) == [Severity.CRITICAL]


@pytest.mark.parametrize(
    "other",
    [
        replace(backup(3.2, 4.5), problem="a part is missing"),
        backup(13.2, 14.5),
        replace(backup(3.2, 4.5), start_lsn=at(0), stop_lsn=at(0), problem="its sentinel is damaged"),
    ],
    ids=["broken", "begun-inside", "unreadable"],
)
def test_a_backup_from_before_the_end_of_a_gap_keeps_it_also_when_it_cannot_be_restored(other) -> None:
    assert severities([GAP], catalog([other, LATER], WITH_HOLE)) == [Severity.WARNING]


def test_a_permanent_backup_keeps_no_gap_that_lies_behind_the_wal_that_expiry_leaves_it() -> None:
    permanent = backup(3.2, 4.5, permanent=True)
    expired = {1: [3, 4, *range(15, 30)]}
    assert severities([GAP], catalog([permanent, LATER], expired)) == []
    assert severities([GAP], catalog([permanent, LATER], WITH_HOLE)) == [Severity.WARNING], "its WAL leads to the gap"
    lost = {1: [3, 4, 5, 6, *range(15, 30)]}
    assert severities([GAP], catalog([permanent, LATER], lost)) == [Severity.WARNING], "expiry ends elsewhere"
    at_its_end = replace(GAP, start=at(5))
    assert severities([at_its_end], catalog([permanent, LATER], expired)) == [Severity.WARNING]


def test_a_gap_on_a_branch_that_was_left_is_over_when_nothing_of_the_branch_is_left() -> None:
    fork = f"1\t{at(9)}\tx\n"
    ours = backup(9.2, 9.5, timeline=2, minute=9)
    wal = {**WITH_HOLE, 2: [9, 10]}
    history = parse_history(2, fork)
    of_the_branch = backup(3.2, 4.5)
    assert severities([GAP], catalog([of_the_branch, ours], wal, forks=[(2, fork)]), history) == [Severity.WARNING]
    assert severities([GAP], catalog([ours], wal, forks=[(2, fork)]), history) == []


def test_a_gap_of_a_new_timeline_is_kept_by_a_backup_of_its_ancestor() -> None:
    fork = f"1\t{at(9)}\tx\n"
    wal = {1: range(3, 10), 2: range(15, 30)}
    gap = replace(GAP, timeline=2)
    after = backup(16.1, 17.2, timeline=2, minute=10)
    made = catalog([backup(3.2, 4.5), after], wal, forks=[(2, fork)])
    assert severities([gap], made) == [Severity.WARNING]
    without_history = catalog([backup(3.2, 4.5), after], wal)
    assert not is_past(gap, without_history)
    assert severities([gap], catalog([after], wal, forks=[(2, fork)])) == []


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(3, 25), st.sampled_from([1, 2]), st.booleans()), min_size=1, max_size=4),
    st.sets(st.integers(3, 29), max_size=8),
    st.integers(4, 26),
    st.integers(1, 4),
    st.sampled_from([1, 2]),
)
def test_a_gap_that_is_past_excuses_no_segment_that_stops_a_recovery(begun, lost, start, length, timeline) -> None:
    """Health is silent of a missing segment that a gap of the ledger is told for: so that gap must be told."""
    fork = f"1\t{at(9)}\tx\n"
    backups = [backup(n + 0.2, n + 0.8, timeline=t, permanent=p) for n, t, p in begun]
    there = [n for n in range(3, 30) if n not in lost]
    made = catalog(backups, {1: there, 2: [n for n in there if n >= 9]}, forks=[(2, fork)])
    gap = KnownGap(timeline, at(start), at(start + length), minutes(5), "lost")
    if not is_past(gap, made):
        return
    for each in backups:
        for path in (1, 2):
            reach = made.reach(each, path)
            assert reach is None or reach.blocked_by is None or not gap.covers(reach.blocked_by)
