"""WAL page headers: what a segment says about itself, and its bytes without the headers.

Each page of XLOG_BLCKSZ bytes begins with a header; the first page of a segment has the long one, which names the
cluster and the segment size (Postgres: src/include/access/xlog_internal.h, ``XLogPageHeaderData`` and
``XLogLongPageHeaderData``; little-endian, as every platform that we support writes it).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pgbackup.core.lsn import Lsn, SegmentName

PAGE_BYTES = 8192
SHORT_HEADER_BYTES = 24
LONG_HEADER_BYTES = 40
FIRST_IS_CONTRECORD = 0x0001
FIRST_IS_OVERWRITE_CONTRECORD = 0x0008
MAGICS = {0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
"""``XLOG_PAGE_MAGIC`` of each major version."""

_LONG_HEADER = 0x0002
_SHORT = struct.Struct("<HHIQI")
_LONG = struct.Struct("<HHIQI4xQII")
_BODY = PAGE_BYTES - SHORT_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The long header of a segment's first page; ``pg_major`` is None for a version that we do not know."""

    magic: int
    timeline: int
    address: Lsn
    system_identifier: int
    segment_bytes: int
    page_bytes: int
    continued_bytes: int

    @property
    def pg_major(self) -> int | None:
        return MAGICS.get(self.magic)


def parse_first_page(data: bytes | memoryview) -> FirstPage:
    """Read the header at the start of a segment. Raises ValueError when there is none."""
    if len(data) < _LONG.size:
        raise ValueError(f"{len(data)} bytes are too few for a WAL segment")
    magic, info, timeline, address, remaining, system, segment, page = _LONG.unpack_from(data)
    if not _is_magic(magic) or not info & _LONG_HEADER:
        raise ValueError(f"no WAL page header at the start (magic {magic:04X})")
    return FirstPage(magic, timeline, Lsn(address), system, segment, page, remaining)


def segment_problem(data: bytes | memoryview, segment: SegmentName, system_identifier: int | None) -> str:
    """Why the first page of a segment does not fit its name and its cluster; empty when it does.

    Its timeline may be an older one: a new timeline's first segment begins with a copy of its parent's.
    """
    try:
        page = parse_first_page(data)
    except ValueError as exc:
        return str(exc)
    if page.address != segment.start:
        return f"it holds the WAL at {page.address} instead of {segment.start}"
    if page.segment_bytes != segment.segment_bytes:
        return f"it was written with segments of {page.segment_bytes} bytes instead of {segment.segment_bytes}"
    if system_identifier is not None and page.system_identifier != system_identifier:
        return f"it belongs to the cluster {page.system_identifier} instead of {system_identifier}"
    if page.timeline > segment.timeline:
        return f"its timeline is {page.timeline}"
    return ""


@dataclass(frozen=True, slots=True)
class PageBodies:
    """WAL from a page's start on, without its page headers, up to the first page that is not WAL of that place.

    ``first_header_bytes``: of the first page. ``overwritten``: offsets at which a page replaces a record that a crash
    left unfinished. ``whole``: nothing of what was given is left out.
    """

    start: Lsn
    body: bytes
    first_header_bytes: int
    continued_bytes: int
    overwritten: tuple[int, ...]
    whole: bool

    def lsn(self, offset: int) -> Lsn:
        """The WAL position of a byte of ``body``."""
        first_body = PAGE_BYTES - self.first_header_bytes
        if offset < first_body:
            return Lsn(self.start + self.first_header_bytes + offset)
        page, within = divmod(offset - first_body, _BODY)
        return Lsn(self.start + PAGE_BYTES * (page + 1) + SHORT_HEADER_BYTES + within)

    def end_lsn(self, offset: int) -> Lsn:
        """The position after the byte before ``offset``: the end of a record, a page's border where it ends there."""
        return Lsn(self.lsn(offset - 1) + 1) if offset else self.start

    def offset_at(self, lsn: int) -> int:
        """The offset of the first byte at or after a position; 0 for one before the start."""
        page, within = divmod(lsn - self.start, PAGE_BYTES)
        if page < 0:
            return 0
        if page == 0:
            return max(0, within - self.first_header_bytes)
        return PAGE_BYTES - self.first_header_bytes + (page - 1) * _BODY + max(0, within - SHORT_HEADER_BYTES)


def strip_headers(data: bytes | memoryview, start: Lsn) -> PageBodies:
    """Take the page headers out of WAL that begins at a page's start. Raises ValueError when the first page is none."""
    view = memoryview(data)
    parts: list[memoryview] = []
    overwritten: list[int] = []
    size, continued, expected, first_header, whole = 0, 0, 0, SHORT_HEADER_BYTES, True
    for position in range(0, len(view) - SHORT_HEADER_BYTES + 1, PAGE_BYTES):
        magic, info, _, address, remaining = _SHORT.unpack_from(view, position)
        if position == 0:
            if not _is_magic(magic) or address != start:
                raise ValueError(f"no WAL page of {start}: magic {magic:04X}, address {Lsn(address)}")
            expected, continued = magic, remaining if info & FIRST_IS_CONTRECORD else 0
            first_header = LONG_HEADER_BYTES if info & _LONG_HEADER else SHORT_HEADER_BYTES
        elif magic != expected or address != start + position:
            whole = False
            break
        if info & FIRST_IS_OVERWRITE_CONTRECORD:
            overwritten.append(size)
        header = LONG_HEADER_BYTES if info & _LONG_HEADER else SHORT_HEADER_BYTES
        part = view[position + header : position + PAGE_BYTES]
        parts.append(part)
        size += len(part)
    return PageBodies(start, b"".join(parts), first_header, continued, tuple(overwritten), whole)


def _is_magic(magic: int) -> bool:
    """A version's magic, known or newer."""
    return magic >> 8 == 0xD1 or magic in MAGICS
