"""A segment is its WAL, page by page, or it is said where it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.lsn import MIB, SegmentName
from pgbackup.core.timeline import Ancestor, TimelineHistory
from pgbackup.core.wal_page import PAGE_BYTES
from pgbackup.core.wal_segment_check import SegmentCheck, WalProblem
from tests.made_wal import SYSTEM, MadeWal

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = TimelineHistory(1)


def made() -> MadeWal:
    wal = MadeWal(3)
    wal.fill_to(2.3)
    return wal


WAL = made()


def check(
    data: bytes,
    number: int = 3,
    *,
    timeline: int = 1,
    history: TimelineHistory = ONE,
    size: int = MIB,
    step: int = 100_000,
    system: int | None = SYSTEM,
    major: int = 18,
) -> None:
    pages = SegmentCheck(SegmentName(timeline, number, MIB), history, system_identifier=system, pg_major=major)
    for position in range(0, len(data), step):
        pages.feed(data[position : position + step])
    pages.finish(size)


@pytest.mark.parametrize("step", [1000, 4096, 8192, 8193, 300_000, 2 * MIB])
def test_whole_segments(step: int) -> None:
    for number in WAL.numbers():
        check(WAL.segment(number), number, step=step)


@given(st.integers(40, 2 * PAGE_BYTES), st.integers(1, 5000))
def test_the_beginning_of_a_segment(length: int, step: int) -> None:
    check(WAL.segment(3)[:length], size=length, step=step)


def test_a_switch_leaves_zeros_to_the_end() -> None:
    wal = MadeWal(3)
    wal.commit(5, NOON)
    wal.switch()
    data = wal.segment(3)
    check(data)
    hole = data[:PAGE_BYTES] + bytes(PAGE_BYTES) + WAL.segment(3)[2 * PAGE_BYTES :]
    with pytest.raises(WalProblem, match="offset 16384"):
        check(hole)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: WAL.segment(4), "instead of 0/300000"),
        (lambda d: d[:-1], "1048575 bytes instead"),
        (lambda d: d + b"x", "more than"),
        (lambda d: bytes(MIB), "no WAL page header"),
        (lambda d: b"", "0 bytes instead"),
        (lambda d: d[: PAGE_BYTES * 5] + d[PAGE_BYTES * 6 :] + bytes(PAGE_BYTES), "page at offset 40960"),
        (lambda d: d[:PAGE_BYTES] + b"\0\0" + d[PAGE_BYTES + 2 :], "page at offset 8192"),
        (lambda d: d[: PAGE_BYTES + 4] + b"\2" + d[PAGE_BYTES + 5 :], "is of timeline 2 instead of 1"),
    ],
)
def test_what_is_not_the_segment(change, problem: str) -> None:
    with pytest.raises(WalProblem, match=problem):
        check(change(WAL.segment(3)))


def test_another_cluster_and_another_version() -> None:
    with pytest.raises(WalProblem, match="belongs to the cluster"):
        check(WAL.segment(3), system=5)
    with pytest.raises(WalProblem, match="PostgreSQL 18 instead of PostgreSQL 16"):
        check(WAL.segment(3), major=16)
    check(WAL.segment(3), system=None, major=0)
    check(WAL.segment(3), major=99)


def test_a_new_timeline_begins_with_its_parents_pages() -> None:
    wal = MadeWal(3)
    wal.fill_to(0.5)
    child = wal.branch(2)
    fork = child.position
    child.fill_to(1.2)
    history = TimelineHistory(2, (Ancestor(1, fork),))
    check(child.segment(3), timeline=2, history=history)
    with pytest.raises(WalProblem, match="of timeline 1 instead of 2"):
        check(child.segment(3), timeline=2, history=TimelineHistory(2))
    with pytest.raises(WalProblem, match="of timeline 2 instead of 1"):
        check(child.segment(3), timeline=2, history=TimelineHistory(2, (Ancestor(1, child.position),)))
