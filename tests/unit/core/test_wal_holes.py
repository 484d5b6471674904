"""Holes are found on every path, before and at a fork too, and by brute force the same ones."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.catalog import Catalog, Gap
from pgbackup.core.health_facts import RepositoryView
from pgbackup.core.lsn import SegmentName
from pgbackup.core.timeline import Ancestor, TimelineHistory
from pgbackup.core.wal_holes import holes, next_stored
from tests.made_catalog import SIZE, at, backup, catalog
from tests.made_health import NOW, green, judged, keys, server

FORK = [(2, f"1\t{at(9.5)}\tx\n")]
MOST = 16


def test_holes_between_whole_segments_of_a_timeline() -> None:
    assert holes(catalog([], {1: [3, 4, 7, 8, 12]})) == [Gap(1, at(5), at(7)), Gap(1, at(9), at(12))]


def test_what_is_missing_around_a_fork_is_a_hole_of_each_timeline() -> None:
    """Neither the parent, which ends there, nor the child, which begins there, shows it for itself."""
    start = [backup(3.2, 4.5)]
    before = catalog(start, {1: range(3, 8), 2: range(9, 12)}, {(1, 9): 0.5}, forks=FORK)
    assert holes(before) == [Gap(1, at(8), at(9))]
    there = catalog(start, {1: range(3, 9), 2: range(10, 12)}, {(1, 9): 0.5}, forks=FORK)
    assert holes(there) == [Gap(2, at(9), at(10))]
    both = catalog(start, {1: range(3, 8), 2: range(10, 12)}, forks=FORK)
    assert holes(both) == [Gap(1, at(8), at(9)), Gap(2, at(9), at(10))]
    again = catalog(start, {1: [*range(3, 8), 11], 2: range(10, 12)}, forks=FORK)
    assert holes(again) == [Gap(1, at(8), at(11)), Gap(2, at(9), at(10))]


def test_pieces_behind_a_hole_are_wal_behind_it() -> None:
    assert holes(catalog([backup(3.2, 3.5)], {1: [3, 4]}, {(1, 6): 0.5})) == [Gap(1, at(5), at(6))]
    assert holes(catalog([backup(3.2, 3.5)], {1: [3, 4]}, {(1, 5): 0.5})) == []


def test_what_expiry_leaves_between_two_timelines_is_no_hole() -> None:
    """Of a permanent backup's timeline, and of one that nothing is recovered from any more."""
    segments = {1: range(3, 5), 2: range(12, 15)}
    for kept in ([], [backup(3.2, 4.5, permanent=True)], [backup(3.2, 4.5, problem="damaged")]):
        assert holes(catalog([*kept, backup(12.1, 12.5, timeline=2)], segments, forks=FORK)) == []
    assert holes(catalog([backup(3.2, 4.5)], segments, forks=FORK)) == [Gap(1, at(5), at(9)), Gap(2, at(9), at(12))]


def test_what_is_missing_right_before_the_fork_is_critical_at_once() -> None:
    """All that the new timeline writes lies behind it, and no backup of that is there yet."""
    made = catalog([backup(3.2, 4.5, minute=60)], {1: range(3, 8), 2: range(9, 21)}, {(2, 21): 0.5}, forks=FORK)
    facts = green(repository=RepositoryView(made, NOW), server=server(timeline=2))
    assert f"wal:hole:1/{at(8)}" in keys(judged(facts))
    whole = replace(made, segments={**made.segments, 1: range(3, 9)})
    assert keys(judged(replace(facts, repository=RepositoryView(whole, NOW)))) == []


@st.composite
def _catalogs(draw: st.DrawFn) -> Catalog:
    count = draw(st.integers(1, 4))
    histories = {}
    ancestors: dict[int, tuple[Ancestor, ...]] = {1: ()}
    for timeline in range(2, count + 1):
        parent = draw(st.integers(1, timeline - 1))
        fork = at(draw(st.integers(0, 2 * MOST)) / 2)
        ancestors[timeline] = (*ancestors[parent], Ancestor(parent, fork))
        if draw(st.integers(0, 9)):
            histories[timeline] = TimelineHistory(timeline, ancestors[timeline])
    numbers = st.integers(0, MOST - 1)
    segments = {timeline: sorted(draw(st.sets(numbers))) for timeline in range(1, count + 1)}
    tails = {
        SegmentName(t, n, SIZE): SIZE // 2 for t, n in draw(st.dictionaries(st.integers(1, count), numbers)).items()
    }
    return Catalog(SIZE, segments=segments, tails=tails, histories=histories)


def _stored(made: Catalog, history: TimelineHistory, *, open_too: bool = True) -> list[int]:
    """The numbers of which a path's own file is there."""
    found = []
    for number in range(MOST):
        segment = history.segment_for(number, SIZE)
        is_open = open_too and segment.timeline == history.timeline and segment in made.tails
        if made.has(segment) or is_open:
            found.append(number)
    return found


@given(_catalogs(), st.integers(1, 4), st.integers(0, MOST - 1))
def test_holes_are_all_that_is_missing_before_what_is_stored(made: Catalog, timeline: int, start: int) -> None:
    made = replace(made, backups=(backup(start + 0.1, start + 0.9, timeline=timeline),))
    missing = set()
    for each in made.timelines:
        stored = made.segments.get(each, ())
        missing |= {(each, n) for n in range(min(stored, default=0), max(stored, default=0)) if n not in stored}
        history = made.history(each)
        if made.why_not_restorable(made.backups[0]) or not history.holds(timeline, made.backups[0].stop_lsn):
            continue
        whole = _stored(made, history, open_too=False)
        first = next(n for n in range(start, MOST + 1) if n not in whole)
        behind = next((n for n in _stored(made, history) if n > first), first)
        missing |= {(history.segment_for(n, SIZE).timeline, n) for n in range(first, behind)}
    found = [(gap.timeline, n) for gap in holes(made) for n in range(gap.start // SIZE, gap.end // SIZE)]
    assert sorted(found) == sorted(missing)


@given(_catalogs(), st.integers(0, MOST), st.booleans())
def test_the_next_that_is_stored(made: Catalog, number: int, open_too: bool) -> None:
    for timeline in made.timelines:
        history = made.history(timeline)
        behind = [n for n in _stored(made, history, open_too=open_too) if n > number]
        wanted = history.segment_for(behind[0], SIZE) if behind else None
        assert next_stored(made, history, number, open_too=open_too) == wanted
