"""WAL coverage for a base backup while another process streams: looks into the repository until the WAL is there.

`pgbackup backup` beside a `pgbackup run` uses this; the one that streams needs no word from the one that backs up.
"""

from __future__ import annotations

import time

from pgbackup.core.lsn import Lsn, SegmentName, segments_covering
from pgbackup.engines.base import StopSignal
from pgbackup.errors import BackupError
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore

_POLL_SECONDS = 1.0


class BucketWal:
    """Implements the WAL coverage port. ``stalled_seconds`` without any new WAL end the wait."""

    def __init__(self, store: ObjectStore, *, stalled_seconds: float = 300) -> None:
        self._store = store
        self._stalled_seconds = stalled_seconds
        self._start = Lsn(0)

    def begin(self, timeline: int, start_lsn: Lsn, segment_bytes: int) -> None:
        """Remember where the backup starts."""
        self._start = start_lsn

    def wait_for(self, timeline: int, lsn: Lsn, segment_bytes: int, stop: StopSignal, *, tail_counts: bool) -> bool:
        """Wait until WAL from the backup's start to ``lsn`` (exclusive) is stored. Returns whether a tail was needed.

        Raises BackupError when told to stop, or when nothing arrives for too long.
        """
        seen, since = -1, time.monotonic()
        while True:
            missing = self._missing(timeline, lsn, segment_bytes)
            if not missing:
                return False
            last = SegmentName.containing(timeline, lsn - 1, segment_bytes)
            if tail_counts and missing == [last] and self._tail_end(last) >= lsn:
                return True
            if stop.wait(_POLL_SECONDS):
                raise BackupError("stopped while waiting for WAL")
            if len(missing) != seen:
                seen, since = len(missing), time.monotonic()
            elif time.monotonic() - since > self._stalled_seconds:
                raise BackupError(
                    f"WAL segment {missing[0]} did not arrive in the repository for {self._stalled_seconds:.0f} s",
                    hint="Look at the `pgbackup run` that streams from this server.",
                )

    def close(self) -> None:
        """Nothing to give back."""

    def _missing(self, timeline: int, lsn: Lsn, segment_bytes: int) -> list[SegmentName]:
        wanted = segments_covering(timeline, self._start, lsn, segment_bytes)
        if not wanted:
            return []
        after = keys.before_segment(str(wanted[0]))
        there = set()
        for info in self._store.list(keys.WAL + f"{timeline:08X}", start_after=after):
            name = keys.wal_file(info.key)[0]
            if name > str(wanted[-1]) and not name.startswith(str(wanted[-1])):
                break
            if info.size_bytes:
                there.add(name)
        return [segment for segment in wanted if str(segment) not in there]

    def _tail_end(self, segment: SegmentName) -> int:
        """The LSN to which pieces of a segment reach without a hole."""
        end = 0
        for info in self._store.list(keys.pieces_folder(str(segment))):
            piece = keys.parse_piece(info.key)
            if piece is not None and info.size_bytes and piece.first <= end:
                end = max(end, piece.end)
        return segment.start + end
