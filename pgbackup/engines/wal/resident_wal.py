"""WAL coverage for a base backup, by the stream that `pgbackup run` keeps going in the same process."""

from __future__ import annotations

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.base import StopSignal
from pgbackup.engines.wal.bucket_wal import BucketWal
from pgbackup.engines.wal.progress import WalPosition, WalProgress
from pgbackup.errors import BackupError
from pgbackup.storage.base import ObjectStore

_START_SECONDS = 300.0
_LISTED_SECONDS = 30.0


class ResidentWal:
    """Implements the WAL coverage port on a WalProgress. The repository has the last word: what the stream calls
    durable must be listed there before the backup may be sealed."""

    def __init__(self, progress: WalProgress, store: ObjectStore, *, stalled_seconds: float = 300) -> None:
        self._progress = progress
        self._stalled_seconds = stalled_seconds
        self._bucket = BucketWal(store, stalled_seconds=_LISTED_SECONDS)

    def wait_streaming(self, stop: StopSignal) -> None:
        """Wait until WAL is being streamed, so that a backup that starts now is covered. Raises BackupError."""
        self._progress.wait_until(lambda position: position.streaming, stop, stalled_seconds=_START_SECONDS)

    def begin(self, timeline: int, start_lsn: Lsn, segment_bytes: int) -> None:
        """Raise BackupError when the stream is not running, or began after the backup's start."""
        position = self._progress.get()
        first = SegmentName.containing(timeline, start_lsn, segment_bytes)
        if not position.streaming or position.began > first.start:
            raise BackupError(
                "WAL is not being streamed from before the backup's start",
                detail=position.problem or f"streaming began at {position.began}, the backup at {start_lsn}",
                hint="The next try will find the stream running.",
            )
        self._bucket.begin(timeline, start_lsn, segment_bytes)

    def wait_for(self, timeline: int, lsn: Lsn, segment_bytes: int, stop: StopSignal, *, tail_counts: bool) -> bool:
        """Wait until WAL to ``lsn`` (exclusive) is durable. Returns whether a tail was needed for it.

        Whole segments are wanted; with ``tail_counts`` (a standby, which cannot switch segments) pieces will do.
        """
        wanted = SegmentName.containing(timeline, max(lsn - 1, 0), segment_bytes).end

        def reached(position: WalPosition) -> bool:
            if position.timeline < timeline:
                return False
            return position.whole >= wanted or (tail_counts and position.confirmed >= lsn)

        self._progress.wait_until(reached, stop, stalled_seconds=self._stalled_seconds)
        return self._bucket.wait_for(timeline, lsn, segment_bytes, stop, tail_counts=tail_counts)

    def close(self) -> None:
        """Nothing to give back."""
