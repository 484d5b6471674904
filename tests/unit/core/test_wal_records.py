"""The WAL reader on WAL made for it: borders, breaks, and what is no WAL. (Real WAL: tests/integration.)"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.wal_page import parse_first_page, segment_problem, strip_headers
from pgbackup.core.wal_records import WalScanner
from tests.made_wal import SYSTEM, MadeWal

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def events_of(wal: MadeWal, block_bytes: int = MIB, *, scanner: WalScanner | None = None):
    scanner = scanner or WalScanner()
    found = []
    pieces = [(SegmentName(wal.timeline, n, MIB).start, wal.segment(n)) for n in wal.numbers()]
    segment, tail = wal.tail()
    if tail:
        pieces.append((segment.start, tail))
    for start, data in pieces:
        for offset in range(0, len(data), block_bytes):
            found += scanner.feed(data[offset : offset + block_bytes], Lsn(start + offset))
            if scanner.stopped:
                break
    return found, scanner


@given(
    st.lists(st.one_of(st.integers(0, 20_000), st.sampled_from(["commit", "abort", "point", "switch"])), max_size=60),
    st.sampled_from([8192, 24576, MIB]),
)
def test_every_record_is_found_whatever_lies_between(steps, block_bytes):
    wal = MadeWal(3)
    expected = []
    for number, step in enumerate(steps, 100):
        moment = NOON + timedelta(seconds=number)
        if step == "switch":
            wal.switch()
        elif step == "point":
            expected.append(("restore point", *wal.restore_point(f"p{number}", moment), 0, f"p{number}", moment))
        elif isinstance(step, int):
            wal.filler(step)
        else:
            expected.append((step, *wal.commit(number, moment, abort=step == "abort"), number, "", moment))
    events, _ = events_of(wal, block_bytes)
    assert [(e.kind, e.start, e.end, e.xid, e.name, e.time) for e in events] == expected


def test_a_record_over_several_segments():
    wal = MadeWal()
    wal.filler(3 * MIB)
    start, end = wal.commit(7, NOON)
    events, scanner = events_of(wal)
    assert [(e.start, e.end) for e in events] == [(start, end)]
    assert scanner.last_record == start
    assert scanner.end == end


def test_reading_can_begin_in_the_middle_of_a_record():
    wal = MadeWal(1)
    wal.fill_to(0.9)
    wal.filler(MIB)
    start, _ = wal.commit(7, NOON)
    scanner = WalScanner()
    segment, tail = wal.tail()
    assert [e.start for e in scanner.feed(tail, segment.start)] == [start]


def test_a_record_that_is_cut_off_does_not_count():
    wal = MadeWal()
    wal.commit(6, NOON)
    start, end = wal.commit(7, NOON)
    segment, tail = wal.tail()
    cut = tail[: end - segment.start - 1]
    scanner = WalScanner()
    assert [e.xid for e in scanner.feed(cut, segment.start)] == [6]
    assert scanner.last_record is not None
    assert scanner.last_record < start


def test_zeros_end_the_wal():
    wal = MadeWal()
    wal.commit(6, NOON)
    segment, _ = wal.tail()
    scanner = WalScanner()
    assert [e.xid for e in scanner.feed(wal.segment(segment.number), segment.start)] == [6]
    assert scanner.stopped


def test_a_recycled_page_ends_the_wal():
    wal = MadeWal()
    wal.fill_to(0.5)
    end = wal.commit(6, NOON)[1]
    old = MadeWal(40)
    old.fill_to(0.99)
    segment, tail = wal.tail()
    page = len(tail) // 8192 * 8192 + 8192
    mixed = tail.ljust(page, b"\0") + old.segment(40)[page:]
    scanner = WalScanner()
    assert [e.xid for e in scanner.feed(mixed, segment.start)] == [6]
    assert scanner.end == end
    assert scanner.stopped


def test_a_record_replaced_after_a_crash():
    """The server crashed within a record; the next page begins anew (XLP_FIRST_IS_OVERWRITE_CONTRECORD)."""
    wal = MadeWal()
    wal.fill_to(0.2)
    wal.filler(20_000)
    broken = (len(wal._bytes) - 12_000) // 8192 * 8192
    del wal._bytes[broken:]
    wal._begin_page(0)
    wal._bytes[broken + 2] |= 8
    start, _ = wal.commit(9, NOON)
    events, _ = events_of(wal)
    assert [(e.xid, e.start) for e in events] == [(9, start)]


@pytest.mark.parametrize("back", [0, 1, 20])
def test_the_first_record_at_or_after_an_lsn(back):
    wal = MadeWal()
    wal.fill_to(0.5)
    wanted = wal.commit(7, NOON)
    wal.commit(8, NOON)
    scanner = WalScanner(not_before=Lsn(wanted[0] - back))
    events_of(wal, scanner=scanner)
    assert scanner.stop == wanted


def test_no_record_after_the_last_one():
    wal = MadeWal()
    last, _ = wal.commit(7, NOON)
    scanner = WalScanner(not_before=Lsn(last + 1))
    events_of(wal, scanner=scanner)
    assert scanner.stop is None
    assert scanner.last_record == last


@pytest.mark.parametrize("data", [b"", b"\0" * 8192, b"\x18\xd1" + b"\0" * 10, bytes(range(256)) * 32])
def test_what_is_no_wal(data):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_first_page(data)
    if data:
        assert segment_problem(data, SegmentName(1, 1, MIB), None)


@given(st.binary(max_size=200), st.integers(0, 9000))
def test_damage_never_raises_anything_but_value_error(noise, where):
    wal = MadeWal()
    wal.fill_to(0.1)
    wal.commit(1, NOON)
    segment, tail = wal.tail()
    damaged = tail[:where] + noise + tail[where + len(noise) :]
    try:
        list(WalScanner().feed(damaged, segment.start))
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("segment", "system", "problem"),
    [
        (SegmentName(1, 5, MIB), SYSTEM, ""),
        (SegmentName(2, 5, MIB), SYSTEM, ""),
        (SegmentName(1, 6, MIB), SYSTEM, "instead of 0/600000"),
        (SegmentName(1, 5, MIB), SYSTEM + 1, "belongs to the cluster"),
        (SegmentName(1, 5, MIB), None, ""),
    ],
)
def test_a_segment_that_does_not_fit_its_name(segment, system, problem):
    wal = MadeWal(5)
    wal.commit(1, NOON)
    found = segment_problem(wal.segment(5), segment, system)
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_segment_of_a_newer_timeline_or_another_size_does_not_fit():
    wal = MadeWal(5, timeline=3)
    wal.commit(1, NOON)
    assert "timeline is 3" in segment_problem(wal.segment(5), SegmentName(2, 5, MIB), None)
    large = MadeWal(5, segment_bytes=2 * MIB)
    large.commit(1, NOON)
    assert "instead of 1048576" in segment_problem(large.segment(5), SegmentName(1, 10, MIB), None)


def test_positions_map_to_lsns_and_back():
    wal = MadeWal(2)
    wal.fill_to(0.2)
    pages = strip_headers(wal.tail()[1], Lsn(2 * MIB))
    for offset in (0, 1, 8151, 8152, 8153, 16319, 16320, 50_000):
        assert pages.offset_at(pages.lsn(offset)) == offset
    assert pages.lsn(0) == 2 * MIB + 40
    assert pages.end_lsn(8152) == 2 * MIB + 8192
    assert pages.lsn(8152) == 2 * MIB + 8192 + 24
