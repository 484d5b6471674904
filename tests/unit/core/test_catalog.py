"""What a repository's content recovers: coverage along a path, holes, tails, and the ranges that people are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import MOST_MISSING, Catalog, TimeMark
from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.recovery_choice import ended_before, known_until
from pgbackup.core.timeline import Ancestor, TimelineHistory
from tests.made_catalog import minutes, simple

SIZE = 16 * MIB
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def lsn(segment: float) -> Lsn:
    """The position that many segments into the WAL: 5.5 is the middle of segment 5."""
    return Lsn(int(segment * SIZE))


def make_backup(start: float, stop: float, *, timeline: int = 1, minutes: int = 0, **more: object) -> Backup:
    moment = NOON + timedelta(minutes=minutes)
    backup = Backup(
        name=f"base_{SegmentName.containing(timeline, lsn(start), SIZE)}",
        timeline=timeline,
        start_lsn=lsn(start),
        stop_lsn=lsn(stop),
        started=moment - timedelta(minutes=1),
        finished=moment,
        modified=moment,
        system_identifier=7,
        pg_version=160004,
        raw_bytes=1,
        stored_bytes=1,
        engine="native",
    )
    return replace(backup, **more)  # type: ignore[arg-type]


def make_catalog(
    segments: Mapping[int, Iterable[int]],
    *backups: Backup,
    tails: Mapping[tuple[int, int], int] | None = None,
    forks: Mapping[int, list[tuple[int, float]]] | None = None,
    marks: Iterable[tuple[int, int, float]] = (),
) -> Catalog:
    """``forks``: timeline -> its ancestors; ``marks``: (minutes after noon, timeline, segments into the WAL)."""
    histories = {
        timeline: TimelineHistory(timeline, tuple(Ancestor(parent, lsn(at)) for parent, at in ancestors))
        for timeline, ancestors in (forks or {}).items()
    }
    return Catalog(
        segment_bytes=SIZE,
        backups=backups,
        segments={timeline: sorted(numbers) for timeline, numbers in segments.items()},
        tails={SegmentName(t, number, SIZE): end for (t, number), end in (tails or {}).items()},
        histories=histories,
        marks=tuple(TimeMark(NOON + timedelta(minutes=m), timeline, lsn(at)) for m, timeline, at in marks),
    )


# -- how far WAL goes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "tail", "end"),
    [
        ([], {}, 5),
        ([5], {}, 6),
        ([5, 6, 7], {}, 8),
        ([5, 7], {}, 6),
        ([5], {(1, 6): 1000}, 6 + 1000 / SIZE),
        ([5], {(1, 7): 1000}, 6),
        ([], {(1, 5): 4096}, 5 + 4096 / SIZE),
        ([5, 7], {(1, 6): SIZE // 2}, 6.5),
    ],
)
def test_reach_ends_at_the_first_hole(present: list[int], tail: dict[tuple[int, int], int], end: float) -> None:
    backup = make_backup(5.25, 5.5)
    reach = make_catalog({1: present}, backup, tails=tail).reach(backup, 1)
    assert reach is not None
    assert reach.end == lsn(end)
    assert reach.blocked_by == SegmentName(1, int(end), SIZE)


def test_reach_follows_the_path_over_a_fork() -> None:
    backup = make_backup(5, 5.5)
    catalog = make_catalog({1: [5, 6, 7, 8], 2: [7, 8, 9]}, backup, forks={2: [(1, 7.5)]})
    on_child, on_parent = catalog.reach(backup, 2), catalog.reach(backup, 1)
    assert on_child is not None
    assert on_child.end == lsn(10)
    assert on_parent is not None
    assert on_parent.end == lsn(9), "the parent's own branch is still there"


def test_a_tail_of_an_older_timeline_is_never_used_past_the_fork() -> None:
    """The child's segment is absent: recovery must stop before it, whatever the parent left behind."""
    backup = make_backup(5, 5.5)
    catalog = make_catalog({1: [5, 6]}, backup, tails={(1, 7): SIZE - 8192}, forks={2: [(1, 7.5)]})
    on_child, on_parent = catalog.reach(backup, 2), catalog.reach(backup, 1)
    assert on_child is not None
    assert on_child.end == lsn(7)
    assert on_child.blocked_by == SegmentName(2, 7, SIZE)
    assert on_parent is not None
    assert on_parent.end == Lsn(8 * SIZE - 8192)


@pytest.mark.parametrize(("stop", "reachable"), [(7.4, True), (7.5, True), (7.6, False)])
def test_a_backup_past_the_fork_is_on_the_other_branch(stop: float, reachable: bool) -> None:
    backup = make_backup(7.2, stop)
    catalog = make_catalog({1: [7], 2: [7]}, backup, forks={2: [(1, 7.5)]})
    assert (catalog.reach(backup, 2) is not None) == reachable


@given(
    st.sets(st.integers(0, 30)),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([MIB, SIZE, 64 * MIB, 1024 * MIB]),
)
def test_missing_and_reach_agree(present: set[int], start: int, length: int, size: int) -> None:
    catalog = Catalog(segment_bytes=size, segments={1: sorted(present)})
    begin, end = Lsn(start * size + 1), Lsn(start * size + length * size // 2 + 2)
    missing = catalog.missing(begin, end, catalog.history(1))
    reach = catalog.reach_from(begin, catalog.history(1))
    assert (not missing) == (reach.end >= end)
    if missing:
        assert missing[0] == reach.blocked_by
        assert all(not catalog.has(segment) for segment in missing)


@pytest.mark.parametrize(
    ("stop", "missing"), [(6.0, []), (6.0 + 1 / SIZE, [6]), (7.5, [6, 7]), (5.5, [])], ids=["boundary", "", "", ""]
)
def test_a_stop_on_a_boundary_needs_no_further_segment(stop: float, missing: list[int]) -> None:
    catalog = make_catalog({1: [5]})
    found = catalog.missing(lsn(5.1), lsn(stop), catalog.history(1))
    assert [segment.number for segment in found] == missing


@pytest.mark.parametrize(("tail", "missing"), [(SIZE // 2, []), (SIZE // 2 - 1, [6])])
def test_a_tail_covers_to_its_end_only(tail: int, missing: list[int]) -> None:
    catalog = make_catalog({1: [5]}, tails={(1, 6): tail})
    found = catalog.missing(lsn(5.1), lsn(6.5), catalog.history(1))
    assert [segment.number for segment in found] == missing


# -- backups and holes ------------------------------------------------------------------------------------------------


def test_a_stop_that_no_server_has_reached_is_seen_at_once() -> None:
    """A damaged sentinel says it; the segments up to there would be a million million."""
    backup = replace(make_backup(1, 2), stop_lsn=Lsn((1 << 64) - 1))
    catalog = make_catalog({1: [1, 2, 5]}, backup)
    missing = catalog.missing(backup.start_lsn, backup.stop_lsn, catalog.history(1))
    assert [segment.number for segment in missing[:3]] == [3, 4, 6]
    assert len(missing) == MOST_MISSING
    assert "000000010000000000000003 is missing" in catalog.why_not_restorable(backup)


def test_why_a_backup_is_not_restorable() -> None:
    whole = make_catalog({1: [5, 6]})
    assert whole.why_not_restorable(make_backup(5, 6.5)) == ""
    assert whole.why_not_restorable(make_backup(5, 7.5)) == "WAL segment 000000010000000000000007 is missing"
    assert whole.why_not_restorable(make_backup(5, 6.5, problem="no pg_control")) == "no pg_control"
    damaged = make_backup(5, 6.5, corrupt_files=("base/1/2", "base/1/3"))
    assert whole.why_not_restorable(damaged) == "pages are damaged in base/1/2, base/1/3"


def test_timelines_are_those_of_anything_there() -> None:
    catalog = make_catalog({1: [1]}, make_backup(9, 9.5, timeline=4), tails={(3, 5): 10}, forks={2: [(1, 1)]})
    assert catalog.timelines == (1, 2, 3, 4)
    assert catalog.leaf_timelines() == [4, 3, 2, 1]


def test_backup_by_name() -> None:
    backup = make_backup(5, 6)
    assert make_catalog({}, backup).backup(backup.name) is backup
    assert make_catalog({}, backup).backup("base_other") is None
    assert backup.pg_major == 16


# -- the ranges that people are told ----------------------------------------------------------------------------------


def test_one_range_for_backups_that_follow_each_other() -> None:
    one, two = make_backup(5, 5.5), make_backup(8, 8.5, minutes=60)
    (found,) = make_catalog({1: range(5, 12)}, one, two, marks=[(90, 1, 11.5)]).recoverable()
    assert (found.backup, found.start, found.end) == (one.name, lsn(5.5), lsn(12))
    assert (found.start_time, found.end_time) == (NOON, NOON + timedelta(minutes=90))


def test_a_hole_splits_the_range() -> None:
    one, two = make_backup(5, 5.5), make_backup(9, 9.5, minutes=60)
    first, second = make_catalog({1: [5, 6, 9, 10]}, one, two).recoverable()
    assert (first.backup, first.start, first.end) == (one.name, lsn(5.5), lsn(7))
    assert (second.backup, second.start, second.end) == (two.name, lsn(9.5), lsn(11))


def test_end_time_is_a_mark_inside_the_range() -> None:
    one, two = make_backup(5, 5.5), make_backup(9, 9.5, minutes=60)
    first, second = make_catalog({1: [5, 6, 9, 10]}, one, two, marks=[(5, 1, 6.5), (50, 1, 8.5)]).recoverable()
    assert first.end_time == NOON + timedelta(minutes=5)
    assert second.end_time is None, "the marks before the backup say nothing about the range after it"


def test_a_mark_between_a_backups_last_wal_and_its_finish_begins_the_range() -> None:
    """A first backup, seconds ago: the range ended before it began, and its begin was a moment that restores refuse."""
    catalog = make_catalog({1: [5]}, make_backup(5, 5.5), marks=[(-0.01, 1, 5.6)])
    (found,) = catalog.recoverable()
    mark = NOON - timedelta(minutes=0.01)
    assert (found.start_time, found.end_time) == (mark, mark)
    assert [b.stop_lsn for b in ended_before(list(catalog.backups), mark, list(catalog.marks))] == [lsn(5.5)]
    known = known_until(catalog, catalog.history(1), found.end)
    assert known == mark, "a restore to the backup's own finish is refused: nothing proves that its WAL is all there"


def test_a_mark_of_the_parent_counts_on_the_way_to_the_child() -> None:
    backup = make_backup(5, 5.5)
    catalog = make_catalog({1: [5, 6, 7], 2: [7]}, backup, forks={2: [(1, 7.5)]}, marks=[(5, 1, 7.25), (9, 1, 7.75)])
    on_child = next(r for r in catalog.recoverable() if r.timeline == 2)
    assert on_child.end_time == NOON + timedelta(minutes=5), "the later mark is past the fork, on the other branch"


def test_what_cannot_be_restored_promises_nothing() -> None:
    assert make_catalog({1: range(5, 9)}, make_backup(5, 5.5, problem="gone")).recoverable() == []
    assert make_catalog({1: [6, 7]}, make_backup(5, 5.5)).recoverable() == []
    assert make_catalog({}, make_backup(5, 5.5)).recoverable() == []


def test_every_branch_has_its_range() -> None:
    backup = make_backup(5, 5.5)
    catalog = make_catalog({1: [5, 6, 7, 8], 2: [7, 8, 9]}, backup, forks={2: [(1, 7.5)]})
    assert [(r.timeline, r.end) for r in catalog.recoverable()] == [(1, lsn(9)), (2, lsn(10))]


def test_a_branch_without_wal_of_its_own_has_no_range() -> None:
    backup = make_backup(5, 5.5)
    catalog = make_catalog({1: [5, 6]}, backup, forks={2: [(1, 7.5)]})
    assert [r.timeline for r in catalog.recoverable()] == [1]


@given(st.sets(st.integers(0, 40)), st.dictionaries(st.integers(0, 38), st.integers(1, 30), max_size=5))
def test_every_promised_moment_is_recoverable(present: set[int], spans: dict[int, int]) -> None:
    backups = [make_backup(start, start + length / 20, minutes=start) for start, length in spans.items()]
    catalog = make_catalog({1: present}, *backups)
    for found in catalog.recoverable():
        backup = catalog.backup(found.backup)
        assert backup is not None
        assert catalog.missing(backup.start_lsn, found.end, catalog.history(1)) == []
        assert backup.stop_lsn <= found.start <= found.end
    for backup in backups:
        if not catalog.why_not_restorable(backup):
            assert any(r.start <= backup.stop_lsn <= r.end for r in catalog.recoverable())


def test_a_clock_that_was_set_neither_begins_the_range_earlier_nor_ends_it_later() -> None:
    """An hour back in the middle: that there was a backup before it was taken must not be shown; nor a day to come."""
    made = simple(marks=[(5, 1, 6), (1500, 1, 8), (-55, 1, 12), (70, 1, 20)])
    (found,) = made.recoverable()
    assert (found.start_time, found.end_time) == (minutes(0), minutes(70))
    early = simple(marks=[(-0.1, 1, 4.5), (70, 1, 20)])
    assert early.recoverable()[0].start_time == minutes(-0.1)
