"""Makes WAL for unit tests: pages, records and segments laid out as Postgres does, with the few records that matter."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.wal_page import MAGICS, PAGE_BYTES
from pgbackup.engines.wal.records_check import record_crc

SYSTEM = 7400000000000000001
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MAGIC = {major: magic for magic, major in MAGICS.items()}


class MadeWal:
    """WAL of one timeline that grows from the start of a segment."""

    def __init__(self, number: int = 1, *, timeline: int = 1, segment_bytes: int = MIB, major: int = 18) -> None:
        self.timeline = timeline
        self.segment_bytes = segment_bytes
        self.start = number * segment_bytes
        self._major = major
        self._bytes = bytearray()
        self._last = 0

    @property
    def position(self) -> Lsn:
        return Lsn(self.start + len(self._bytes))

    def commit(self, xid: int, moment: datetime, *, abort: bool = False) -> tuple[Lsn, Lsn]:
        return self._record(1, 0x20 if abort else 0x00, xid, struct.pack("<q", _micros(moment)))

    def restore_point(self, name: str, moment: datetime) -> tuple[Lsn, Lsn]:
        data = struct.pack("<q", _micros(moment)) + name.encode().ljust(64, b"\0")
        return self._record(0, 0x70, 0, data)

    def create_tablespace(self, oid: int, location: str) -> tuple[Lsn, Lsn]:
        return self._record(5, 0x00, 0, struct.pack("<I", oid) + location.encode() + b"\0")

    def filler(self, size: int) -> tuple[Lsn, Lsn]:
        """A record of another kind, with about ``size`` bytes."""
        return self._record(10, 0, 0, b"\x55" * size)

    def fill_to(self, fraction: float) -> None:
        """Records until that part of the current segment is full."""
        wanted = len(self._bytes) // self.segment_bytes * self.segment_bytes + int(fraction * self.segment_bytes)
        while wanted - len(self._bytes) > 200:
            self.filler(min(4000, wanted - len(self._bytes) - 100))

    def switch(self) -> None:
        """End the segment early: the rest of it is zeros."""
        self._record(0, 0x40, 0, b"")
        self._bytes += bytes(-len(self._bytes) % self.segment_bytes)

    def segment(self, number: int) -> bytes:
        """One segment, zero-padded."""
        first = number * self.segment_bytes - self.start
        return bytes(self._bytes[first : first + self.segment_bytes].ljust(self.segment_bytes, b"\0"))

    def numbers(self) -> range:
        """Segments that are full, or ended by a switch."""
        first = self.start // self.segment_bytes
        return range(first, first + len(self._bytes) // self.segment_bytes)

    def tail(self) -> tuple[SegmentName, bytes]:
        """The open segment and what there is of it."""
        number = (self.start + len(self._bytes)) // self.segment_bytes
        first = number * self.segment_bytes - self.start
        return SegmentName(self.timeline, number, self.segment_bytes), bytes(self._bytes[first:])

    def branch(self, timeline: int) -> MadeWal:
        """A copy on a new timeline, as a promoted server goes on: its first segment begins with the parent's bytes."""
        other = MadeWal(
            self.start // self.segment_bytes, timeline=timeline, segment_bytes=self.segment_bytes, major=self._major
        )
        other._bytes = bytearray(self._bytes)
        other._last = self._last
        return other

    def _record(self, manager: int, info: int, xid: int, data: bytes) -> tuple[Lsn, Lsn]:
        self._align()
        short = len(data) < 256
        header = struct.pack("<BB", 255, len(data)) if short else struct.pack("<BI", 254, len(data))
        body = header + data if data else b""
        self._begin_page(0)
        start = self.position
        head = struct.pack("<IIQBBxx", 24 + len(body), xid, self._last, info, manager)
        record = head + struct.pack("<I", record_crc(memoryview(head + bytes(4) + body))) + body
        self._last = start
        left = record
        while left:
            room = PAGE_BYTES - len(self._bytes) % PAGE_BYTES
            if room == PAGE_BYTES:
                self._begin_page(len(left))
                continue
            self._bytes += left[:room]
            left = left[room:]
        end = self.position
        self._align()
        return start, end

    def _begin_page(self, remaining: int) -> None:
        if len(self._bytes) % PAGE_BYTES:
            return
        info = 1 if remaining else 0
        address = self.start + len(self._bytes)
        long = address % self.segment_bytes == 0
        header = struct.pack(
            "<HHIQI4x", _MAGIC[self._major], info | (2 if long else 0), self.timeline, address, remaining
        )
        if long:
            header += struct.pack("<QII", SYSTEM, self.segment_bytes, PAGE_BYTES)
        self._bytes += header

    def _align(self) -> None:
        self._bytes += bytes(-len(self._bytes) % 8)


def _micros(moment: datetime) -> int:
    return round((moment - _EPOCH).total_seconds() * 1_000_000)
