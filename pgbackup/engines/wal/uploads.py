"""From received WAL to durable objects: one encoding thread, a bounded pool of uploads.

The encoding thread takes blocks in order, compresses (and encrypts) them into the current segment's object; when the
segment is complete, the pool makes it durable: put if absent, compared when it is there, its pieces removed. Pieces
are encoded and put by the pool, one at a time per segment.

Memory: blocks waiting to be encoded are at most QUEUE_BYTES (the receiver stops reading then); finished segments that
wait for the store are at most ``concurrency``, and hold at most FINISHED_BYTES of compressed bytes together.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_futures

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.wal.events import Durable, Failed, WakeableQueue
from pgbackup.engines.wal.pieces import PieceStore
from pgbackup.engines.wal.segment import Piece
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.errors import OTHER_WRITER_HINT, CorruptObject, ObjectMissing, StorageError, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, is_readable
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.stream_writer import PART_BYTES, ObjectWriter

QUEUE_BYTES = 32 << 20
FINISHED_BYTES = 4 * PART_BYTES
_READ_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class SegmentUpload:
    """The object of one segment, as it is encoded. Owned by the encoding thread until it is finished."""

    def __init__(self, uploads: WalUploads, name: SegmentName, pieces: PieceStore) -> None:
        self.name = name
        self.pieces = pieces
        self.piece_jobs: list[Future[None]] = []
        self.crc = 0
        self.key = keys.wal(str(name), uploads.codec.extension)
        self._encoder = uploads.codec.encoder()
        self._writer = ObjectWriter(uploads.store, self.key, submit=uploads.submit_part)
        self.stored_bytes = 0
        self.finished = False
        self.is_stored = False

    def write(self, block: bytes) -> None:
        self.crc = zlib.crc32(block, self.crc)
        if data := self._encoder.write(block):
            self._writer.write(data)

    def end_of_data(self) -> None:
        if data := self._encoder.finish():
            self._writer.write(data)

    def finish(self) -> bool:
        stored = self._writer.finish()
        self.stored_bytes = self._writer.stored_bytes
        self.finished = True
        return stored

    def take(self, key: str) -> None:
        """The same is there under that key: ours is not needed."""
        self._writer.abort()
        self.key, self.finished = key, True

    @property
    def buffered_bytes(self) -> int:
        """What of the object is in memory, and not on its way as a part."""
        return self._writer.buffered_bytes

    def abort(self) -> None:
        self._writer.abort()


class WalUploads:
    """The threads of one streaming session. ``events`` receives Durable and Failed; ``stats`` outlives the session."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        events: WakeableQueue,
        before_confirming: Callable[[], None],
        *,
        concurrency: int,
        stats: UploadStats | None = None,
    ) -> None:
        self.store = store
        self.codec = codec
        self._events = events
        self._before_confirming = before_confirming
        self._stats = stats or UploadStats()
        self._cancelled = threading.Event()
        self._queue: queue.SimpleQueue[tuple[SegmentUpload, bytes | None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self._started: dict[int, float] = {}
        self._concurrency = concurrency
        self._finishing: dict[SegmentUpload, int] = {}
        self._finished = threading.Condition()
        self._pool = ThreadPoolExecutor(concurrency + 2, thread_name_prefix="wal-upload")
        self._parts = ThreadPoolExecutor(2, thread_name_prefix="wal-part")
        self._side = ThreadPoolExecutor(2, thread_name_prefix="wal-side")
        self._open: set[SegmentUpload] = set()
        self._thread = threading.Thread(target=self._encode_all, name="wal-encode", daemon=True)
        self._thread.start()

    # -- called by the thread that owns the stream --------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether more WAL may be read from the socket."""
        return self._queued_bytes < QUEUE_BYTES

    def oldest_job_seconds(self) -> float:
        """For how long the oldest request to the store has been under way; 0 without one."""
        with self._lock:
            return time.monotonic() - min(self._started.values()) if self._started else 0.0

    def open(self, name: SegmentName, known_pieces: list[str], *, is_stored: bool = False) -> SegmentUpload:
        upload = SegmentUpload(self, name, PieceStore(self.store, self.codec, name, known_pieces))
        upload.is_stored = is_stored
        self._open.add(upload)
        return upload

    def feed(self, upload: SegmentUpload, block: bytes) -> None:
        with self._lock:
            self._queued_bytes += len(block)
        self._queue.put((upload, block))

    def end(self, upload: SegmentUpload) -> None:
        """The segment is complete."""
        self._queue.put((upload, None))

    def put_piece(self, upload: SegmentUpload, piece: Piece) -> Future[None]:
        """Make a piece durable, then tidy up in the background."""
        return self._submit_for(upload, lambda: self._store_piece(upload, piece))

    def probe(self) -> Future[None]:
        """Ask the store anything, to tell a slow one from a dead one."""
        return self.run_quietly(lambda: (self.store.head(keys.STATUS), None)[1])

    def run_quietly(self, work: Callable[[], None]) -> Future[None]:
        """Run something small beside the uploads; the caller looks at the future."""
        return self._side.submit(work)

    def close(self) -> None:
        """Forget everything that is not durable. Running requests end in their own time, with nobody listening."""
        self._cancelled.set()
        self._queue.put(None)
        self._thread.join(5)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._parts.shutdown(wait=False, cancel_futures=True)
        self._side.shutdown(wait=False, cancel_futures=True)

    # -- the encoding thread ------------------------------------------------------------------------------------

    def submit_part(self, work: Callable[[], None]) -> Future[None]:
        return self._parts.submit(self._timed, work)

    def _encode_all(self) -> None:
        while (item := self._queue.get()) is not None and not self._cancelled.is_set():
            upload, block = item
            try:
                self._encode(upload, block)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the thread that owns the stream must hear of it
                self._fail(exc)
                break
        for upload in list(self._open):
            upload.abort()

    def _encode(self, upload: SegmentUpload, block: bytes | None) -> None:
        if block is not None:
            upload.write(block)
            with self._lock:
                self._queued_bytes -= len(block)
            if self._queued_bytes < QUEUE_BYTES <= self._queued_bytes + len(block):
                self._events.wake()
            return
        upload.end_of_data()
        upload.pieces.expect_whole()
        with self._finished:
            while not self._may_finish(upload.buffered_bytes):
                if self._cancelled.is_set():
                    return
                self._finished.wait(0.5)
            self._finishing[upload] = upload.buffered_bytes
        # From here on it is the pool's, and not ours to abort: what is being finished must not lose its end.
        self._open.discard(upload)
        self._submit(lambda: self._store_segment(upload)).add_done_callback(lambda _: self._forget(upload))

    def _may_finish(self, more: int) -> bool:
        held = self._finishing.values()
        return not held or (len(held) < self._concurrency and sum(held) + more <= FINISHED_BYTES)

    def _forget(self, upload: SegmentUpload) -> None:
        with self._finished:
            del self._finishing[upload]
            self._finished.notify()
        if not upload.finished:
            # Nobody waits for it: a store that is down would hold up the end of the session.
            threading.Thread(target=upload.abort, name="wal-abort", daemon=True).start()

    # -- jobs in the pool ---------------------------------------------------------------------------------------

    def _submit(self, work: Callable[[], None]) -> Future[None]:
        return self._pool.submit(self._report, work)

    def _submit_for(self, upload: SegmentUpload, work: Callable[[], None]) -> Future[None]:
        """Submit work on a segment's pieces; the segment is finished only after it."""
        job = self._submit(work)
        with self._lock:
            upload.piece_jobs = [j for j in upload.piece_jobs if not j.done()] + [job]
        return job

    def _report(self, work: Callable[[], None]) -> None:
        if self._cancelled.is_set():
            return
        try:
            self._timed(work)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the thread that owns the stream must hear of it
            self._fail(exc)

    def _timed(self, work: Callable[[], None]) -> None:
        token = id(work)
        with self._lock:
            self._started[token] = time.monotonic()
        try:
            work()
        finally:
            with self._lock:
                self._started.pop(token, None)

    def _fail(self, exc: BaseException) -> None:
        if not self._cancelled.is_set():
            self._stats.failed(exc)
            self._events.put(Failed(exc))

    def _store_piece(self, upload: SegmentUpload, piece: Piece) -> None:
        began = time.monotonic()
        if stored_bytes := upload.pieces.put(piece):
            self._stats.stored(seconds=time.monotonic() - began, stored_bytes=stored_bytes)
        self._before_confirming()
        start = upload.name.start
        self._events.put(Durable(upload.name, Lsn(start + piece.first), Lsn(start + piece.end), whole=False))
        self._submit_for(upload, upload.pieces.tidy_up)

    def _store_segment(self, upload: SegmentUpload) -> None:
        name, began = upload.name, time.monotonic()
        if other := self._same_under_other_name(upload) if upload.is_stored else None:
            upload.take(other)
        elif upload.finish():
            seconds = time.monotonic() - began
            self._stats.stored(seconds=seconds, stored_bytes=upload.stored_bytes, segment=str(name))
        else:
            compare_segment(self.store, self.codec, upload.key, upload.crc, name.segment_bytes)
        upload.pieces.compare_others(upload.key)
        self._before_confirming()
        self._events.put(Durable(name, name.start, name.end, whole=True))
        while busy := [job for job in upload.piece_jobs if not job.done()]:
            wait_futures(busy, timeout=1)
            if self._cancelled.is_set():
                return
        upload.pieces.remove_all()

    def _same_under_other_name(self, upload: SegmentUpload) -> str | None:
        """The segment as it was stored with another compression, compared. Raises WrongCluster for other content.

        What cannot be read says nothing about ours, which is then stored beside it.
        """
        for key in stored_keys(self.store, str(upload.name)):
            if key == upload.key or not is_readable(keys.split_extension(key)[1]):
                continue
            try:
                compare_segment(self.store, self.codec, key, upload.crc, upload.name.segment_bytes)
            except (CorruptObject, ObjectMissing) as exc:
                _log.warning("%s is stored again: %s", upload.name, exc)
                continue
            return key
        return None


def compare_segment(store: ObjectStore, codec: Codec, key: str, crc: int, segment_bytes: int) -> None:
    """The stored segment must equal ours. Raises WrongCluster when it does not: never overwrite (invariant 4)."""
    stored_crc, stored_bytes = 0, 0
    with store.open_read(key) as source:
        stream = codec.open(key, source)
        while block := stream.read(_READ_BYTES):
            stored_crc = zlib.crc32(block, stored_crc)
            stored_bytes += len(block)
            if stored_bytes > segment_bytes:
                raise StorageError(f"the stored segment {key} is longer than {segment_bytes} bytes")
    if (stored_crc, stored_bytes) != (crc, segment_bytes):
        raise WrongCluster(
            f"the repository holds another segment under {key}",
            detail=f"stored: {stored_bytes} bytes, CRC-32 {stored_crc:08x}; ours: {segment_bytes} bytes, {crc:08x}",
            hint=OTHER_WRITER_HINT,
        )
