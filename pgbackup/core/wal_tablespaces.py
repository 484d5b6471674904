"""Tablespaces that WAL creates: a recovery that replays their creation needs the directory at that very place.

Only CREATE TABLESPACE is looked for, and by its bytes, not by walking all records: that would make staging slow.
Sources in Postgres: src/include/access/rmgrlist.h (tablespaces are resource manager 5), xlogrecord.h beside it, and
src/include/commands/tablespace.h (``xl_tblspc_create_rec``: OID, path with its zero); the same from 14 to 18.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_page import PAGE_BYTES, strip_headers

_RECORD = struct.Struct("<IIQBBHI")
_MANAGER_OFFSET = 17
_OPERATION_MASK, _CREATE = 0xF0, 0x00
_PATTERN = re.compile(rb"\x05\x00\x00.{4}(?:\xff.|\xfe.{4})(.{4})(/[^\x00]{0,1023})\x00", re.DOTALL)
"""From the resource manager on: padding, CRC, the header of the main data, OID, path."""


@dataclass(frozen=True, slots=True)
class CreatedTablespace:
    """CREATE TABLESPACE, as WAL has it; the record begins at ``lsn``."""

    lsn: Lsn
    oid: int
    location: str


class TablespaceFinder:
    """Feed it WAL: whole pages, in order. ``crc`` computes the CRC-32C of a record, as for WalScanner: bytes that only
    look like such a record do not have it. Keeps the last page, where a record may begin that runs on."""

    def __init__(self, crc: Callable[[memoryview], int]) -> None:
        self._crc = crc
        self._page = b""
        self._end = self._searched = Lsn(0)

    def feed(self, data: bytes, start: Lsn) -> Iterator[CreatedTablespace]:
        """What is created by the records of a block that begins at a page; consume it wholly. Never raises: what is no
        WAL (zeros after the switch to another segment) creates nothing."""
        if self._page and start == self._end:
            data, start = self._page + data, Lsn(start - len(self._page))
        self._page, self._end = data[-PAGE_BYTES:], Lsn(start + len(data))
        try:
            pages = strip_headers(data, start)
        except ValueError:
            return
        for match in _PATTERN.finditer(pages.body):
            first = match.start() - _MANAGER_OFFSET
            if first < 0 or (lsn := pages.lsn(first)) < self._searched or not self._is_record(pages.body, first, match):
                continue
            self._searched = Lsn(lsn + 1)
            oid = int.from_bytes(match[1], "little")
            yield CreatedTablespace(lsn, oid, match[2].decode("utf-8", "surrogateescape"))

    def _is_record(self, body: bytes, first: int, match: re.Match[bytes]) -> bool:
        total, _, _, info, _, _, stored = map(int, _RECORD.unpack_from(body, first))
        if info & _OPERATION_MASK != _CREATE or first + total != match.end():
            return False
        return self._crc(memoryview(body)[first : first + total]) == stored
