"""A gap is critical until a backup after it is there, then a warning until somebody knows of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.findings import Severity
from pgbackup.core.gap_findings import gap_findings, gaps_need_backup
from pgbackup.core.health_facts import RepositoryView
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import SegmentName
from pgbackup.core.timeline import Ancestor, TimelineHistory, parse_history
from tests.made_catalog import SIZE, at, backup, catalog, minutes
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


def test_what_is_missing_on_an_earlier_timeline_is_not_excused_by_a_gap_at_the_same_positions() -> None:
    """The gap is of the branch that was left; a standby of the old timeline was promoted, or is the primary again."""
    fork = f"1\t{at(9.5)}\tx\n"
    made = catalog(
        [backup(3.2, 4.5, minute=60)],
        {1: [*range(3, 13), *range(14, 21)], 2: [*range(9, 12), *range(15, 20)]},
        {(1, 21): 0.5},
        forks=[(2, fork)],
    )
    made = replace(made, known_gaps=(replace(GAP, timeline=2, acknowledged=minutes(6)),))
    health = judged(green(repository=RepositoryView(made, NOW)))
    assert f"wal:hole:1/{at(13)}" in [finding.key for finding in health.findings]
    assert not made.why_missing(SegmentName(1, 13, SIZE))
    assert made.why_missing(SegmentName(2, 13, SIZE))


def test_what_is_missing_on_a_sibling_is_not_excused_by_a_gap_at_the_same_positions() -> None:
    forks = [(2, f"1\t{at(9.5)}\tx\n"), (3, f"1\t{at(8.5)}\tx\n")]
    segments = {1: range(3, 21), 2: [*range(9, 13), *range(14, 20)], 3: [*range(8, 12), *range(15, 20)]}
    made = catalog([backup(3.2, 4.5, minute=60)], segments, {(2, 20): 0.5}, forks=forks)
    made = replace(made, known_gaps=(replace(GAP, timeline=3, acknowledged=minutes(6)),))
    looked = server(timeline=2, position=at(20.5), position_after=at(20.5))
    health = judged(green(repository=RepositoryView(made, NOW), server=looked))
    assert f"wal:hole:2/{at(13)}" in [finding.key for finding in health.findings]


def test_without_its_history_a_gap_excuses_its_own_timeline_only() -> None:
    segments = {1: [*range(3, 12)], 2: [*range(15, 20)]}
    gap = replace(GAP, timeline=2)
    known = replace(catalog([], segments, forks=[(2, f"1\t{at(14.5)}\tx\n")]), known_gaps=(gap,))
    assert [bool(known.known_gap(SegmentName(t, 13, SIZE))) for t in (1, 2)] == [True, False]
    unknown = replace(known, histories={})
    assert [bool(unknown.known_gap(SegmentName(t, 13, SIZE))) for t in (1, 2)] == [False, True]


def test_an_acknowledged_gap_that_goes_on_along_another_branch_keeps_no_hole_of_ours_quiet() -> None:
    """It begins on the ancestor of both. That nothing after it can be recovered is told of the other branch only."""
    forks = [(2, f"1\t{at(15.5)}\tx\n"), (3, f"1\t{at(14.5)}\tx\n")]
    made = catalog(
        [backup(3.2, 4.5, minute=60), backup(20.1, 21.2, timeline=2, minute=50)],
        {1: [*range(3, 12), 14, 15], 2: range(18, 30), 3: range(14, 20)},
        {(3, 20): 0.5},
        forks=forks,
    )
    made = replace(made, known_gaps=(replace(GAP, timeline=2, end=at(18), acknowledged=minutes(6)),))
    looked = server(timeline=3, position=at(20.5), position_after=at(20.5))
    health = judged(green(repository=RepositoryView(made, NOW), server=looked))
    assert f"wal:hole:1/{at(12)}" in [finding.key for finding in health.findings]


@st.composite
def _paths(draw: st.DrawFn) -> TimelineHistory:
    timelines = sorted(draw(st.sets(st.integers(1, 5), min_size=1)))
    forks = draw(st.lists(st.integers(0, 30 * SIZE), min_size=len(timelines) - 1, max_size=len(timelines) - 1))
    ancestors = zip(timelines[:-1], forks, strict=True)
    return TimelineHistory(timelines[-1], tuple(Ancestor(t, at(fork / SIZE)) for t, fork in ancestors))


@given(_paths(), st.integers(0, 30), st.integers(1, 30), st.integers(1, 5), st.integers(0, 60))
def test_a_gap_excuses_the_segments_of_its_own_path_and_no_other(
    path: TimelineHistory, start: int, length: int, timeline: int, number: int
) -> None:
    gap = replace(GAP, timeline=path.timeline, start=at(start), end=at(start + length))
    segment = SegmentName(timeline, number, SIZE)
    last = segment.end - 1
    owners = [owner for owner, begin, end in path.path() if begin <= last and (end is None or last < end)]
    assert gap.covers(segment, path) == (start <= number < start + length and owners == [timeline])
