"""Every damage to plain WAL is found that would end a recovery early, and whole WAL is not found fault with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgbackup.core.lsn import MIB, SegmentName
from pgbackup.core.wal_page import PAGE_BYTES
from pgbackup.engines.wal.records_check import RecordsCheck
from tests.made_wal import MadeWal

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def made() -> tuple[MadeWal, list[int]]:
    """Two whole segments and a begun one, the second ended by a switch; and the offsets at which records begin."""
    wal, starts = MadeWal(1), []
    while wal.position < 2 * MIB + 300_000:
        for size in (30, 400, 9000, 40_000):
            starts.append(wal.filler(size)[0] - MIB)
        starts.append(wal.commit(7, NOON)[0] - MIB)
    wal.switch()
    for _ in range(20):
        starts.append(wal.filler(3000)[0] - MIB)
    return wal, starts


def check(data: bytes, *, step: int = 10_000) -> None:
    """Give it as it is read, in blocks of any size."""
    records = RecordsCheck()
    for number in range(1, 4):
        records.begin(SegmentName(1, number, MIB))
        segment = data[(number - 1) * MIB : number * MIB]
        for offset in range(0, len(segment), step):
            records.feed(segment[offset : offset + step])
        records.end()


@pytest.fixture(scope="module")
def whole() -> tuple[bytes, list[int]]:
    wal, starts = made()
    return wal.segment(1) + wal.segment(2) + wal.tail()[1], starts


@pytest.mark.parametrize("step", [700, PAGE_BYTES, 100_000, MIB])
def test_whole_wal(whole: tuple[bytes, list[int]], step: int) -> None:
    check(whole[0], step=step)


@pytest.mark.parametrize("length", [0, 23, 31, 0x00FF_0000, 0xFFFF_FFFF])
def test_another_length_of_any_record(whole: tuple[bytes, list[int]], length: int) -> None:
    """But for the last page: there WAL may well end."""
    data, starts = whole
    last = (len(data) - 1) // PAGE_BYTES * PAGE_BYTES
    for start in [start for start in starts if start < last]:
        with pytest.raises(ValueError, match=r"does not|ends before|no WAL"):
            check(data[:start] + length.to_bytes(4, "little") + data[start + 4 :])


def test_another_byte_of_any_record(whole: tuple[bytes, list[int]]) -> None:
    data, starts = whole
    for start in starts[:-1]:
        with pytest.raises(ValueError, match=r"does not|ends before|no WAL"):
            check(data[: start + 26] + bytes([data[start + 26] ^ 1]) + data[start + 27 :])
