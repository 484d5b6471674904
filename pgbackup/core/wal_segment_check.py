"""Whether the bytes of a segment are its WAL, page by page, as they pass.

The first page must name the segment, the cluster and the segment size (``wal_page.segment_problem``). Every page has a
header with the magic of one major version, its own address, and the timeline that owns it on the way to the segment's
timeline. After a segment switch the headers of the remaining pages are zero, to the segment's end (Postgres:
src/backend/access/transam/xlog.c, ``CopyXLogRecordToWAL``). What lies between the headers is not looked at.
"""

from __future__ import annotations

import struct

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory
from pgbackup.core.wal_page import MAGICS, PAGE_BYTES, SHORT_HEADER_BYTES, parse_first_page, segment_problem

_HEADER = struct.Struct("<HHIQ")
_ZERO_HEADER = bytes(SHORT_HEADER_BYTES)
_SMALLEST_PAGE, _LARGEST_PAGE = 1 << 10, 1 << 16


class WalProblem(ValueError):
    """What is wrong with a segment's bytes, for people."""


class SegmentCheck:
    """Checks one segment, or the beginning of one: ``feed`` its bytes in order, then ``finish``.

    ``history`` is that of the segment's timeline. ``pg_major`` 0 and ``system_identifier`` None or 0: not known.
    """

    def __init__(
        self, segment: SegmentName, history: TimelineHistory, *, system_identifier: int | None = None, pg_major: int = 0
    ) -> None:
        self._segment = segment
        self._history = history
        self._system_identifier = system_identifier or None
        self._pg_major = pg_major
        self._rest = b""
        self._offset = 0
        self._page_bytes = 0
        self._magic = 0
        self._switched = False

    @property
    def size_bytes(self) -> int:
        """How many bytes were given so far."""
        return self._offset + len(self._rest)

    @property
    def may_be_read(self) -> bool:
        """Whether its records can be read by whoever takes pages to have their usual size."""
        return self._page_bytes in (0, PAGE_BYTES)

    def feed(self, data: bytes) -> None:
        """Raises WalProblem."""
        if self._rest:
            data = self._rest + data
        if not self._page_bytes:
            if len(data) < _SMALLEST_PAGE:
                self._rest = data
                return
            self._begin(data)
        whole = len(data) - len(data) % self._page_bytes
        for position in range(0, whole, self._page_bytes):
            self._check_page(data, position)
        self._offset += whole
        self._rest = data[whole:]
        if self.size_bytes > self._segment.segment_bytes:
            raise WalProblem(f"it holds more than the {self._segment.segment_bytes} bytes of a segment")

    def finish(self, expected_bytes: int) -> None:
        """All bytes were given; there must be as many as expected. Raises WalProblem."""
        if self.size_bytes != expected_bytes:
            raise WalProblem(f"it holds {self.size_bytes} bytes instead of {expected_bytes}")
        if not self._page_bytes:
            self._begin(self._rest)
        if len(self._rest) >= SHORT_HEADER_BYTES:
            self._check_page(self._rest, 0)

    def _begin(self, data: bytes) -> None:
        if problem := segment_problem(data, self._segment, self._system_identifier):
            raise WalProblem(problem)
        page = parse_first_page(data)
        size = page.page_bytes
        if not _SMALLEST_PAGE <= size <= _LARGEST_PAGE or size & (size - 1):
            raise WalProblem(f"its pages are said to have {size} bytes")
        if self._pg_major in MAGICS.values() and page.pg_major != self._pg_major:
            found = f"PostgreSQL {page.pg_major}" if page.pg_major else f"an unknown version (magic {page.magic:04X})"
            raise WalProblem(f"it was written by {found} instead of PostgreSQL {self._pg_major}")
        self._page_bytes, self._magic = size, page.magic

    def _check_page(self, data: bytes, position: int) -> None:
        offset = self._offset + position
        magic, _, timeline, address = _HEADER.unpack_from(data, position)
        if magic == 0 and data[position : position + SHORT_HEADER_BYTES] == _ZERO_HEADER:
            self._switched = True
            return
        expected = self._segment.start + offset
        if magic != self._magic or address != expected or self._switched:
            raise WalProblem(f"the page at offset {offset} is not the WAL at {Lsn(expected)}")
        owner = self._history.owner(expected)
        if timeline != owner:
            raise WalProblem(f"the page at offset {offset} is of timeline {timeline} instead of {owner}")
