"""The objects of one base backup: several multipart parts in flight, objects completed behind the one being written.

Memory: at most ``concurrency`` part buffers are on their way, whatever object they belong to, one waits for its turn
in each thread that writes (the receiving one and the two that complete objects), and one is being filled. All of them
together are BUFFER_BYTES at most: the more uploads, the smaller a part, down to what S3 takes. It does not depend on
the size of the database, of a stored object or of a file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pgbackup.engines.base import StopSignal
from pgbackup.errors import BackupError
from pgbackup.repository.encoder import Encoder
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.stream_writer import ABORT_SECONDS, ObjectWriter

PART_BYTES = 8 << 20
"""Small, so that a data part of 256 MiB goes up while it is still compressed, whatever the ratio: what is left for the
end is little. A whole object in one PUT would also cost its MD5 (see S3Store), and memory for all of it."""
BUFFER_BYTES = 128 << 20
_OTHER_BUFFERS = 4
_COMPLETING = 2
_LOOK_SECONDS = 0.2


def part_bytes(concurrency: int) -> int:
    """The size of a multipart part when so many are under way: whole MiB."""
    return min(PART_BYTES, BUFFER_BYTES // (concurrency + _OTHER_BUFFERS) >> 20 << 20)


class BackupUploads:
    """Writes objects that must not be there yet, and remembers what was stored. End it with ``close``.

    Whoever waits here, in any thread, gives up with a BackupError when ``stop`` is set.
    """

    def __init__(self, store: ObjectStore, *, concurrency: int, stop: StopSignal) -> None:
        self._store = store
        self._stop = stop
        self._concurrency = concurrency
        self._part_bytes = part_bytes(concurrency)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="backup-upload")
        self._completer = ThreadPoolExecutor(_COMPLETING, thread_name_prefix="backup-complete")
        self._slots = threading.BoundedSemaphore(concurrency)
        self._completing = threading.BoundedSemaphore(_COMPLETING)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: dict[str, ObjectWriter] = {}
        self._stored: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._cancelled = threading.Event()

    @property
    def stored(self) -> dict[str, int]:
        """Key and size of every object that is there."""
        with self._lock:
            return dict(self._stored)

    @property
    def under_way(self) -> list[list[str]]:
        """Key and upload id of every multipart upload under way, for the record of what to clean up."""
        with self._lock:
            writers = list(self._open.items())
        return [[key, writer.upload_id] for key, writer in writers if writer.upload_id is not None]

    def open(self, key: str) -> ObjectWriter:
        """Begin an object; hand it to ``complete`` when everything is written. For one thread at a time."""
        self.check()
        # One more than there are slots: a writer waits for a slot, where it hears of a stop, never for its own parts.
        writer = ObjectWriter(
            self._store, key, part_bytes=self._part_bytes, submit=self._submit, parallel=self._concurrency + 1
        )
        with self._lock:
            self._open[key] = writer
        return writer

    def complete(self, key: str) -> None:
        """Finish an object in the background; waits while two others are being finished. ``wait`` says how it went."""
        self._acquire(self._completing)
        try:
            future = self._completer.submit(self._complete, key)
        except RuntimeError:
            self._completing.release()
            raise _stopped() from None
        future.add_done_callback(lambda _: self._completing.release())

    def write(self, key: str, pieces: Iterable[bytes], encoder: Encoder | None = None) -> None:
        """Store an object from its pieces, here and now. Raises BackupError when something has its key."""
        writer = self.open(key)
        for piece in pieces:
            if data := piece if encoder is None else encoder.write(piece):
                writer.write(data)
        if encoder is not None:
            writer.write(encoder.finish())
        self._finish(key, writer)

    def wait(self) -> None:
        """Until every object is stored. Raises what failed, or BackupError when told to stop."""
        with self._changed:
            while self._open and self._failure is None and not self._stop.is_set():
                self._changed.wait(_LOOK_SECONDS)
        self.check()

    def fail(self, error: BaseException) -> None:
        """Something that belongs to this backup failed elsewhere: the first failure is what everybody sees."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what failed in the background, or BackupError when told to stop."""
        with self._lock:
            failure = self._failure
        if failure is not None:
            raise failure
        if self._cancelled.is_set() or self._stop.is_set():
            raise _stopped()

    def close(self) -> bool:
        """Stop the threads and abort what is not finished. Returns whether nothing of ours can arrive any more."""
        self._cancelled.set()
        with self._lock:
            writers = list(self._open.values())
        # One wait for all: a stop has ten seconds, and a store that hangs would take five of them for each object.
        deadline = time.monotonic() + ABORT_SECONDS
        for writer in writers:
            writer.abort(wait_seconds=max(0.0, deadline - time.monotonic()))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._completer.shutdown(wait=False, cancel_futures=True)
        places = [self._slots] * self._concurrency + [self._completing] * _COMPLETING
        return all(place.acquire(timeout=_LOOK_SECONDS) for place in places)

    # -- threads --------------------------------------------------------------------------------------------------

    def _complete(self, key: str) -> None:
        with self._lock:
            writer = self._open[key]
        try:
            self._finish(key, writer)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the thread that waits must hear of it
            self.fail(exc)

    def _finish(self, key: str, writer: ObjectWriter) -> None:
        if not writer.finish():
            raise BackupError(
                f"object {key} is there already",
                detail="the store shows it with another ETag than that of what was sent: it is another writer's, or "
                "the store's ETags are not stable",
                hint="`pgbackup check` finds out such a store (multipart upload). If it does not, another backup has "
                "this name: wait until that is finished, then start again.",
            )
        with self._changed:
            self._stored[key] = writer.stored_bytes
            del self._open[key]
            self._changed.notify_all()

    def _submit(self, work: Callable[[], None]) -> Future[None]:
        self._acquire(self._slots)
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            self._slots.release()
            raise _stopped() from None
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def _acquire(self, semaphore: threading.BoundedSemaphore) -> None:
        while not semaphore.acquire(timeout=_LOOK_SECONDS):
            self.check()


def _stopped() -> BackupError:
    return BackupError("the base backup was stopped")
