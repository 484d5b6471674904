"""Where streaming starts, for every state a repository can be in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, Gap
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.stream_start import StreamStart, plan_stream_start, with_comparison
from pgbackup.core.timeline import Ancestor, TimelineHistory
from tests.made_catalog import backup

MIB16 = 16 << 20
ONE = TimelineHistory(1)


def lsn(segment: int, offset: int = 0) -> Lsn:
    return Lsn(segment * MIB16 + offset)


def catalog(segments: dict[int, list[int]], tails: dict[tuple[int, int], int] | None = None) -> Catalog:
    named = {SegmentName(t, n, MIB16): end for (t, n), end in (tails or {}).items()}
    return Catalog(MIB16, segments=segments, tails=named)


def backup_at(segment: int, **more: bool) -> Backup:
    begin = lsn(segment, 40)
    return replace(backup(0, 0, **more), name=f"base_{segment}", start_lsn=begin, stop_lsn=Lsn(begin + 300))


def known_gap(begin: int, end: int) -> KnownGap:
    return KnownGap(1, lsn(begin), lsn(end), datetime(2026, 3, 1, tzinfo=UTC), "the server had removed it")


def test_empty_repository_starts_where_the_slot_keeps_wal() -> None:
    assert plan_stream_start(catalog({}), ONE, lsn(3, 40), lsn(3, 40)) == [StreamStart(1, lsn(3))]


def test_empty_repository_starts_there_in_the_very_first_segment_as_well() -> None:
    assert plan_stream_start(catalog({}), ONE, lsn(0, 7), lsn(1))[0] == StreamStart(1, lsn(0))


def test_empty_repository_without_a_slot_starts_at_redo() -> None:
    assert plan_stream_start(catalog({}), ONE, None, lsn(5, 77)) == [StreamStart(1, lsn(5))]


def test_goes_on_after_the_last_whole_segment() -> None:
    starts = plan_stream_start(catalog({1: [3, 4, 5]}), ONE, lsn(6), lsn(6, 10))
    assert starts[0] == StreamStart(1, lsn(6))


def test_the_open_segment_is_received_again_from_its_start() -> None:
    starts = plan_stream_start(catalog({1: [3, 4, 5]}, {(1, 6): 9000}), ONE, lsn(6, 9000), lsn(6, 10))
    assert starts[0] == StreamStart(1, lsn(6))


def test_a_hole_left_by_a_crash_is_filled_first() -> None:
    """Segment 6 was durable before segment 5: the slot still keeps 5."""
    starts = plan_stream_start(catalog({1: [3, 4, 6]}), ONE, lsn(5), lsn(6, 10))
    assert starts[0] == StreamStart(1, lsn(5))


def test_a_lost_slot_is_a_gap_only_if_the_server_refuses_the_old_place() -> None:
    starts = plan_stream_start(catalog({1: [3, 4]}), ONE, lsn(9, 5), lsn(9, 5))
    assert starts == [StreamStart(1, lsn(5)), StreamStart(1, lsn(9), (Gap(1, lsn(5), lsn(9)),))]


def test_a_gap_that_is_in_the_ledger_is_not_asked_for_again() -> None:
    """Each restart would record it anew, as long as all that was stored since, and take a base backup."""
    have = replace(catalog({1: [3, 4, 9, 10]}, {(1, 5): 700, (1, 11): 5}), known_gaps=(known_gap(5, 9),))
    assert plan_stream_start(have, ONE, lsn(11, 5), lsn(11)) == [StreamStart(1, lsn(11))]


def test_what_is_stored_after_a_hole_is_not_lost() -> None:
    starts = plan_stream_start(catalog({1: [3, 4, 9, 10]}), ONE, lsn(11, 5), lsn(11))
    assert starts == [StreamStart(1, lsn(5)), StreamStart(1, lsn(11), (Gap(1, lsn(5), lsn(9)),))]


def test_everything_that_was_passed_over_is_lost() -> None:
    starts = plan_stream_start(catalog({1: [3, 4, 9, 10]}), ONE, lsn(13, 5), lsn(15))
    holes = Gap(1, lsn(5), lsn(9)), Gap(1, lsn(11), lsn(13))
    assert starts[1:3] == [
        StreamStart(1, lsn(11), holes[:1]),
        StreamStart(1, lsn(13), holes),
    ]
    assert starts[3] == StreamStart(1, lsn(15), (holes[0], Gap(1, lsn(11), lsn(15))))


def test_what_the_slot_still_keeps_of_a_hole_is_filled() -> None:
    starts = plan_stream_start(catalog({1: [3, 6]}), ONE, lsn(5), lsn(6, 10))
    assert [start.lsn for start in starts] == [lsn(4), lsn(5), lsn(7)]
    assert starts[1].gaps == (Gap(1, lsn(4), lsn(5)),)


def test_wal_that_expiry_took_from_behind_a_permanent_backup_is_not_asked_for() -> None:
    """Such a backup keeps no more WAL than it needs; all after it would be called lost at each start."""
    backups = (backup_at(3, permanent=True), backup_at(9))
    have = replace(catalog({1: [3, 9, 10]}, {(1, 11): 5}), backups=backups)
    assert plan_stream_start(have, ONE, lsn(11, 5), lsn(11)) == [StreamStart(1, lsn(11))]


def test_a_gap_of_another_branch_says_nothing_of_ours() -> None:
    elsewhere = replace(known_gap(4, 9), timeline=2)
    have = replace(catalog({1: [3, 4, 9, 10]}), known_gaps=(elsewhere,))
    starts = plan_stream_start(have, ONE, lsn(11, 5), lsn(11))
    assert [start.lsn for start in starts] == [lsn(5), lsn(11)]


def test_after_a_failover_the_old_timeline_is_finished_first() -> None:
    """A new slot after a promotion starts far behind the fork; the bucket lacks the old timeline's end."""
    history = TimelineHistory(2, (Ancestor(1, lsn(9, 100)),))
    starts = plan_stream_start(catalog({1: [3, 4, 5]}), history, lsn(12), lsn(12))
    assert starts[0] == StreamStart(1, lsn(6))


def test_after_the_fork_the_child_segment_that_holds_it_comes_next() -> None:
    history = TimelineHistory(2, (Ancestor(1, lsn(9, 100)),))
    have = catalog({1: [3, 4, 5, 6, 7, 8]}, {(1, 9): 100})
    assert plan_stream_start(have, history, lsn(9), lsn(9, 200))[0] == StreamStart(2, lsn(9))


def test_a_fork_at_a_segment_boundary_needs_no_tail() -> None:
    history = TimelineHistory(2, (Ancestor(1, lsn(9)),))
    have = catalog({1: [3, 4, 5, 6, 7, 8]})
    assert plan_stream_start(have, history, lsn(9), lsn(9, 200))[0] == StreamStart(2, lsn(9))


def test_goes_on_on_the_child() -> None:
    history = TimelineHistory(2, (Ancestor(1, lsn(9, 100)),))
    have = catalog({1: [7, 8], 2: [9, 10]}, {(1, 9): 100, (2, 11): 50})
    assert plan_stream_start(have, history, lsn(11), lsn(11))[0] == StreamStart(2, lsn(11))


def test_wal_of_an_old_timeline_past_the_fork_does_not_count() -> None:
    history = TimelineHistory(2, (Ancestor(1, lsn(5, 100)),))
    have = catalog({1: [3, 4, 5, 6, 7]})
    assert plan_stream_start(have, history, lsn(5), lsn(5, 200))[0] == StreamStart(2, lsn(5))


def test_the_last_whole_segment_is_received_again_to_compare_it() -> None:
    have = catalog({1: [3, 4, 5]}, {(1, 6): 160})
    assert with_comparison([StreamStart(1, lsn(6))], have) == [StreamStart(1, lsn(5)), StreamStart(1, lsn(6))]


def test_nothing_to_compare_with() -> None:
    history = [StreamStart(2, lsn(9))]
    assert with_comparison(history, catalog({1: [7, 8]}, {(1, 9): 100})) == history
    first = [StreamStart(1, lsn(0))]
    assert with_comparison(first, catalog({1: [0]})) == first


def test_where_only_whole_segments_are_stored_a_timeline_ends_with_the_one_before_its_fork() -> None:
    """Its last bytes come with the child's segment; asking for them again and again would never get on."""
    history = TimelineHistory(2, (Ancestor(1, lsn(9, 100)),))
    arguments = catalog({1: [7, 8]}), history, lsn(9), lsn(9, 100)
    assert plan_stream_start(*arguments)[0] == StreamStart(1, lsn(9))
    assert plan_stream_start(*arguments, pieces=False)[0] == StreamStart(2, lsn(9))
    early = catalog({1: [7]}), history, lsn(9), lsn(9, 100)
    assert plan_stream_start(*early, pieces=False)[0] == StreamStart(1, lsn(8))


@given(
    st.sets(st.integers(0, 24)),
    st.sets(st.integers(0, 24), max_size=2),
    st.none() | st.integers(0, 30),
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 24), st.integers(1, 9)), max_size=2),
)
def test_nothing_that_is_stored_is_ever_called_lost(
    whole: set[int], open_ones: set[int], restart: int | None, redo: int, known: list[tuple[int, int]]
) -> None:
    ledger = tuple(known_gap(begin, begin + length) for begin, length in known)
    have = replace(catalog({1: sorted(whole)}, {(1, n): 5 for n in open_ones}), known_gaps=ledger)
    starts = plan_stream_start(have, ONE, None if restart is None else lsn(restart, 7), lsn(redo))
    assert [start.lsn for start in starts] == sorted({start.lsn for start in starts})
    assert not starts[0].gaps
    for start in starts:
        for gap in start.gaps:
            assert gap.start < gap.end <= start.lsn
            assert not whole & set(range(gap.start // MIB16, gap.end // MIB16))
