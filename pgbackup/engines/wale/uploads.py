"""From received WAL to the tool: each segment is spooled to a file, and pushed once it is complete.

Bounded: at most ``concurrency`` complete segments lie in the spool, and the one that is received; then no more is read
from the socket, and the server's slot keeps the WAL. Pushes may end in any order; what is confirmed is for the acks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pgbackup.core.lsn import SegmentName
from pgbackup.core.stop import StopSignal
from pgbackup.engines.wal.events import Durable, Failed, WakeableQueue
from pgbackup.engines.wal.segment import Piece
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.engines.wale.spool import Spool, SpooledFile
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectInfo, ObjectStore

_CLOSE_SECONDS = 8.0

Ship = Callable[[SpooledFile, StopSignal], ObjectInfo | None]


@dataclass(frozen=True, slots=True)
class SpooledSegment:
    """One segment and its file."""

    name: SegmentName
    file: SpooledFile


class ToolUploads:
    """Implements the SegmentUploads port."""

    def __init__(
        self,
        store: ObjectStore,
        spool: Spool,
        ship: Ship,
        events: WakeableQueue,
        before_confirming: Callable[[], None],
        *,
        concurrency: int,
        stats: UploadStats,
    ) -> None:
        self._store = store
        self._spool = spool
        self._ship = ship
        self._events = events
        self._before_confirming = before_confirming
        self._stats = stats
        self._concurrency = concurrency
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[SegmentName, float] = {}
        self._open: SpooledSegment | None = None
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="wal-push")
        self._side = ThreadPoolExecutor(2, thread_name_prefix="wal-side")

    @property
    def has_room(self) -> bool:
        with self._lock:
            return len(self._under_way) < self._concurrency

    def oldest_job_seconds(self) -> float:
        with self._lock:
            return time.monotonic() - min(self._under_way.values()) if self._under_way else 0.0

    def open(self, name: SegmentName, known_pieces: list[str], *, is_stored: bool = False) -> SpooledSegment:
        self._open = SpooledSegment(name, self._spool.new(str(name)))
        return self._open

    def feed(self, upload: SpooledSegment, block: bytes) -> None:
        upload.file.write(block)

    def end(self, upload: SpooledSegment) -> None:
        upload.file.complete()
        self._open = None
        with self._lock:
            self._under_way[upload.name] = time.monotonic()
        job = self._pool.submit(self._push, upload)
        job.add_done_callback(lambda _: self._forget(upload))

    def put_piece(self, upload: SpooledSegment, piece: Piece) -> Future[None]:
        raise NotImplementedError("a tool ships whole segments only")

    def probe(self) -> Future[None]:
        return self.run_quietly(lambda: (self._store.head(keys.STATUS), None)[1])

    def run_quietly(self, work: Callable[[], None]) -> Future[None]:
        return self._side.submit(work)

    def close(self) -> None:
        """End the pushes that are under way, and forget what is not durable."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._side.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._is_pushing() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._open is not None:
            self._open.file.remove()

    def _is_pushing(self) -> bool:
        with self._lock:
            return bool(self._under_way)

    def _push(self, upload: SpooledSegment) -> None:
        name, began = upload.name, time.monotonic()
        try:
            if self._stop.is_set():
                return
            info = self._ship(upload.file, self._stop)
            if info is not None:
                seconds = time.monotonic() - began
                self._stats.stored(seconds=seconds, stored_bytes=info.size_bytes, segment=str(name))
            self._before_confirming()
            self._settled(name)
            self._events.put(Durable(name, name.start, name.end, whole=True))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the thread that owns the stream must hear of it
            if not self._stop.is_set():
                self._stats.failed(exc)
                self._events.put(Failed(exc))

    def _forget(self, upload: SpooledSegment) -> None:
        """It was pushed, failed, or never begun: what the spool holds of it goes."""
        upload.file.remove()
        self._settled(upload.name)

    def _settled(self, name: SegmentName) -> None:
        with self._lock:
            self._under_way.pop(name, None)
