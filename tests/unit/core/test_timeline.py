"""History files, and which timeline owns which byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.timeline import (
    Ancestor,
    TimelineHistory,
    history_name,
    parse_history,
    parse_history_name,
)

REAL_FILE = """1\t0/5000148\tno recovery target specified


2\t0/7FFFF28\tbefore 2026-03-01 12:00:00.5+00

3\t0/9000000\tat restore point "before the upgrade"
"""

SEGMENT = 16 * MIB


@st.composite
def histories(draw: st.DrawFn) -> TimelineHistory:
    timelines = sorted(draw(st.sets(st.integers(1, 1000), min_size=1, max_size=6)))
    forks = draw(st.lists(st.integers(0, 1 << 36), min_size=len(timelines) - 1, max_size=len(timelines) - 1))
    if draw(st.booleans()):
        forks.sort()
    ancestors = tuple(Ancestor(t, Lsn(f)) for t, f in zip(timelines[:-1], forks, strict=True))
    return TimelineHistory(timelines[-1], ancestors)


def _format(history: TimelineHistory) -> str:
    return "".join(f"{a.timeline}\t{a.fork}\t{a.reason or 'no reason'}\n\n" for a in history.ancestors)


def test_reads_what_postgres_writes() -> None:
    history = parse_history(4, REAL_FILE)
    assert [(a.timeline, str(a.fork)) for a in history.ancestors] == [
        (1, "0/5000148"),
        (2, "0/7FFFF28"),
        (3, "0/9000000"),
    ]
    assert history.ancestors[1].reason == "before 2026-03-01 12:00:00.5+00"
    assert history.ancestors[2].reason == 'at restore point "before the upgrade"'
    assert history.parent == history.ancestors[-1]
    assert history.begin == Lsn.parse("0/9000000")


@given(histories())
def test_round_trip(history: TimelineHistory) -> None:
    found = parse_history(history.timeline, _format(history))
    assert [(a.timeline, a.fork) for a in found.ancestors] == [(a.timeline, a.fork) for a in history.ancestors]


@pytest.mark.parametrize(
    ("timeline", "text", "problem"),
    [
        (2, "1\n", "not a line"),
        (2, "one\t0/5000148\n", "not a line"),
        (2, "-1\t0/5000148\n", "not a line"),
        (2, "1\t5000148\n", "not an LSN"),
        (3, "2\t0/6000000\n1\t0/7000000\n", "not in order"),
        (3, "1\t0/6000000\n1\t0/7000000\n", "not in order"),
        (2, "2\t0/6000000\n", "as its ancestor"),
        (2, "3\t0/6000000\n", "as its ancestor"),
    ],
)
def test_impossible_histories_are_refused(timeline: int, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_history(timeline, text)


def test_comments_and_empty_lines_say_nothing() -> None:
    assert parse_history(2, "# a comment\n\n   \n") == TimelineHistory(2)


def test_two_promotions_at_one_place_are_possible() -> None:
    history = parse_history(3, "1\t0/6000000\n2\t0/6000000\n")
    assert history.owner(0x6000000 - 1) == 1
    assert history.owner(0x6000000) == 3


def test_a_recovery_to_before_the_newest_timeline_began_leaves_forks_out_of_order() -> None:
    """Timeline 2 began at 7, and a recovery along it ended at 6, on timeline 1."""
    history = parse_history(3, "1\t0/7000000\n2\t0/6000000\n")
    assert [history.owner(lsn) for lsn in (0x6000000 - 1, 0x6000000, 0x7000000)] == [1, 3, 3]
    assert history.path() == [(1, 0, 0x6000000), (2, 0x6000000, 0x6000000), (3, 0x6000000, None)]
    assert (history.begin, history.forked_from) == (0x6000000, 1)
    assert history.holds(1, 0x6000000)
    assert not history.holds(1, 0x6000001)
    assert not history.holds(2, 0x7000001)


def as_postgres(history: TimelineHistory, lsn: int) -> int:
    """timeline.c: ``readTimeLineHistory`` gives each timeline its begin and end as the lines stand, and
    ``tliOfPointInHistory`` takes the newest that holds the position."""
    begins = [0, *(a.fork for a in history.ancestors)]
    ends = [*(a.fork for a in history.ancestors), 0]
    timelines = [*(a.timeline for a in history.ancestors), history.timeline]
    for timeline, begin, end in reversed(list(zip(timelines, begins, ends, strict=True))):
        if (begin == 0 or begin <= lsn) and (end == 0 or lsn < end):
            return timeline
    raise AssertionError("timeline history is not contiguous")


@given(histories(), st.data())
def test_postgres_finds_the_same_owner(history: TimelineHistory, data: st.DataObject) -> None:
    forks = [a.fork for a in history.ancestors]
    near = st.sampled_from(forks).flatmap(lambda fork: st.integers(max(fork - 1, 0), fork + 1)) if forks else st.just(0)
    lsn = data.draw(near | st.integers(0, 1 << 37))
    assume(all(forks))
    assert history.owner(lsn) == as_postgres(history, lsn)


def test_the_name_of_a_restore_point_may_hold_any_sign() -> None:
    history = parse_history(2, '1\t0/6000000\tat restore point "a\x0cb\u2028c\x85d"\n')
    assert [a.timeline for a in history.ancestors] == [1]


@given(histories(), st.integers(0, 1 << 37))
def test_every_byte_has_the_owner_whose_range_holds_it(history: TimelineHistory, lsn: int) -> None:
    owners = [t for t, begin, end in history.path() if begin <= lsn and (end is None or lsn < end)]
    assert owners == [history.owner(lsn)]
    assert history.includes(history.owner(lsn))
    assert history.holds(history.owner(lsn), lsn)


@given(histories())
def test_path_is_without_holes(history: TimelineHistory) -> None:
    path = history.path()
    assert path[0][1] == 0
    assert path[-1] == (history.timeline, history.begin, None)
    for (timeline, _, end), (_, begin, _) in pairwise(path):
        assert end == begin == history.end_of(timeline)
    assert history.end_of(history.timeline) is None


@given(histories(), st.integers(0, 1 << 12), st.sampled_from([MIB, SEGMENT, 1024 * MIB]))
def test_one_file_serves_a_segment(history: TimelineHistory, number: int, size: int) -> None:
    """It is of the newest timeline that begins in or before the segment: what recovery reads."""
    segment = history.segment_for(number, size)
    begun = [timeline for timeline, begin, _ in history.path() if begin < (number + 1) * size]
    assert segment == SegmentName(begun[-1], number, size)


def test_segment_of_the_fork_comes_from_the_child() -> None:
    history = TimelineHistory(2, (Ancestor(1, Lsn(5 * SEGMENT + 100)),))
    assert [history.segment_for(n, SEGMENT).timeline for n in (4, 5, 6)] == [1, 2, 2]
    at_boundary = TimelineHistory(2, (Ancestor(1, Lsn(5 * SEGMENT)),))
    assert [at_boundary.segment_for(n, SEGMENT).timeline for n in (4, 5)] == [1, 2]


def test_holds_a_position_at_the_fork_but_none_after_it() -> None:
    history = TimelineHistory(2, (Ancestor(1, Lsn(1000)),))
    assert history.holds(1, 999)
    assert history.holds(1, 1000)
    assert not history.holds(1, 1001)
    assert history.holds(2, 10**9)
    assert not history.holds(3, 1)
    with pytest.raises(KeyError):
        history.end_of(3)


@given(st.integers(1, (1 << 32) - 1))
def test_history_name_round_trip(timeline: int) -> None:
    assert parse_history_name(history_name(timeline)) == timeline


@pytest.mark.parametrize(
    "name",
    [
        "",
        "2.history",
        "0000000a.history",
        "00000002.history.zst",
        "00000002",
        "00000002.history\n",
        "x00000002.history",
    ],
)
def test_other_names_are_not_histories(name: str) -> None:
    assert parse_history_name(name) is None
