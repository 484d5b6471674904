"""CREATE TABLESPACE in WAL, found by its bytes."""

from __future__ import annotations

import pytest

from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.wal_page import PAGE_BYTES
from pgbackup.core.wal_tablespaces import CreatedTablespace, TablespaceFinder
from pgbackup.engines.wal.records_check import record_crc
from tests.made_wal import MadeWal

LONG = "/" + "x" * 1000


def found_in(wal: MadeWal, block_bytes: int) -> list[CreatedTablespace]:
    finder = TablespaceFinder(record_crc)
    data = wal.segment(1)
    return [
        each
        for offset in range(0, MIB, block_bytes)
        for each in finder.feed(data[offset : offset + block_bytes], Lsn(MIB + offset))
    ]


@pytest.mark.parametrize("block_bytes", [PAGE_BYTES, 8 * PAGE_BYTES, MIB])
@pytest.mark.parametrize("location", ["/fast", "/with a space/\u00fc", LONG])
def test_found_wherever_it_lies(block_bytes, location):
    """Also across the border of two pages, and of two blocks."""
    wal = MadeWal(1)
    expected = []
    for number in range(60):
        start, _ = wal.create_tablespace(16384 + number, location)
        expected.append(CreatedTablespace(start, 16384 + number, location))
        wal.filler(211 + 97 * number)
    assert found_in(wal, block_bytes) == expected


def test_what_only_looks_like_it():
    wal = MadeWal(1)
    start, _ = wal.create_tablespace(16384, "/there")
    data = bytearray(wal.segment(1))
    place = data.index(b"/there")
    data[place + 1 : place + 6] = b"wrong"
    assert list(TablespaceFinder(record_crc).feed(bytes(data), Lsn(MIB))) == []
    assert start in range(MIB, 2 * MIB)


def test_zeros_and_rubbish_are_passed_over():
    finder = TablespaceFinder(record_crc)
    assert list(finder.feed(bytes(PAGE_BYTES), Lsn(MIB))) == []
    assert list(finder.feed(b"\x05\x00\x00" * 3000, Lsn(MIB + PAGE_BYTES))) == []
    assert list(finder.feed(b"", Lsn(0))) == []
