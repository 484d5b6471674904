"""LSNs and WAL segment names, for any ``wal_segment_size``.

An LSN is a 64-bit byte position in the WAL. A segment file covers ``segment_size`` bytes and is named by timeline and
segment number, ``TTTTTTTTXXXXXXXXYYYYYYYY`` (upper-case hexadecimal): X counts the 4 GiB "log" and Y the segment in
it (Postgres: src/include/access/xlog_internal.h, ``XLogFileName``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")
_LOG_BYTES = 1 << 32
_LOGS = 1 << 32
MIB = 1 << 20
MIN_SEGMENT_BYTES = MIB
MAX_SEGMENT_BYTES = 1 << 30
DEFAULT_SEGMENT_BYTES = 16 * MIB


class Lsn(int):
    """A WAL byte position; prints as Postgres does (``16/B374D848``). ``Lsn(0)`` is Postgres' invalid LSN."""

    def __new__(cls, value: int) -> Self:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"LSN out of range: {value}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``X/X``. Raises ValueError for anything else."""
        match = _LSN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"not an LSN (expected X/X in hexadecimal): {text!r}")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{int(self) >> 32:X}/{int(self) & 0xFFFFFFFF:X}"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec) if spec[-1:] in tuple("bcdnoxX") else format(str(self), spec)


@dataclass(frozen=True, slots=True)
class SegmentName:
    """One WAL segment: timeline, number, and the cluster's segment size in bytes."""

    timeline: int
    number: int
    segment_bytes: int = DEFAULT_SEGMENT_BYTES

    @classmethod
    def parse(cls, name: str, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> SegmentName:
        """Read 24 hexadecimal digits. Raises ValueError when they cannot name a segment of that size."""
        if not _SEGMENT_NAME.fullmatch(name):
            raise ValueError(f"not a WAL segment name: {name!r}")
        per_log = _LOG_BYTES // segment_bytes
        log, part = int(name[8:16], 16), int(name[16:], 16)
        if part >= per_log:
            raise ValueError(f"segment name {name} does not exist with {segment_bytes} byte segments")
        if log * per_log + part == per_log * _LOGS - 1:
            raise ValueError(f"segment {name} ends behind the last LSN")
        return cls(int(name[:8], 16), log * per_log + part, segment_bytes)

    @classmethod
    def containing(cls, timeline: int, lsn: int, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> SegmentName:
        """The segment in which the byte at ``lsn`` lies."""
        return cls(timeline, lsn // segment_bytes, segment_bytes)

    @property
    def start(self) -> Lsn:
        return Lsn(self.number * self.segment_bytes)

    @property
    def end(self) -> Lsn:
        """The first byte after the segment."""
        return Lsn((self.number + 1) * self.segment_bytes)

    def next(self) -> SegmentName:
        return SegmentName(self.timeline, self.number + 1, self.segment_bytes)

    def __str__(self) -> str:
        per_log = _LOG_BYTES // self.segment_bytes
        return f"{self.timeline:08X}{self.number // per_log:08X}{self.number % per_log:08X}"


def is_segment_name(name: str) -> bool:
    """Whether the name has the shape of a WAL segment's."""
    return _SEGMENT_NAME.fullmatch(name) is not None


def check_segment_bytes(value: int) -> int:
    """Return a valid ``wal_segment_size`` (a power of two from 1 MiB to 1 GiB) or raise ValueError."""
    if not MIN_SEGMENT_BYTES <= value <= MAX_SEGMENT_BYTES or value & (value - 1):
        raise ValueError(f"not a wal_segment_size: {value}")
    return value


def segments_covering(timeline: int, start: int, end: int, segment_bytes: int) -> list[SegmentName]:
    """The segments that hold the bytes ``[start, end)``; a boundary ``end`` needs segments to ``end - 1`` only."""
    if end <= start:
        return []
    first, last = start // segment_bytes, (end - 1) // segment_bytes
    return [SegmentName(timeline, number, segment_bytes) for number in range(first, last + 1)]
