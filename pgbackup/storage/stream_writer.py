"""Writing one object whose size nobody knows yet, in bounded memory.

What fits one part is stored by a single ``put_if_absent``; what is larger goes up in parts while more is written.
Parts may be sent by a pool of the caller. At most ``parallel`` of them are under way and one is being filled: that
is the memory, ``part_bytes * (parallel + 1)``. A part that failed in the background fails the next call here; trying
again is the store's business, and was done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from functools import partial
from types import TracebackType

from pgbackup.errors import StorageError
from pgbackup.logs import log_fields
from pgbackup.storage.base import MultipartUpload, ObjectStore

logger = logging.getLogger(__name__)

PART_BYTES = 16 << 20
MAX_PARTS = 10_000
ABORT_SECONDS = 5.0

Submit = Callable[[Callable[[], None]], "Future[None]"]
"""Runs a function in another thread, like ``executor.submit``; begins them in their order."""


class ObjectWriter:
    """Writes one object if none has its key. For one thread; end it with ``finish`` or ``abort``, or use ``with``.

    ``abort`` may come from another thread: what ``finish`` is at work on is then stored whole or not at all.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        *,
        part_bytes: int = PART_BYTES,
        submit: Submit | None = None,
        parallel: int = 4,
    ) -> None:
        """``submit`` None: parts are sent by the thread that writes, one at a time."""
        self.stored_bytes = 0
        """How many bytes were written so far: the size of the object once it is finished."""
        self._store = store
        self._key = key
        self._part_bytes = max(part_bytes, store.min_part_bytes)
        self._submit = submit or _at_once
        self._parallel = parallel if submit is not None else 1
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._upload: Future[MultipartUpload] | None = None
        self._parts = 0
        self._pending: list[Future[None]] = []
        self._ended = False
        self._failure: BaseException | None = None

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the next part, or for the end."""
        return self._chunk_bytes

    @property
    def upload_id(self) -> str | None:
        """The multipart upload's id once there is one, for the record of what to clean up."""
        upload = self._begun_upload()
        return upload.upload_id if upload is not None else None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes; may wait for parts under way. Raises what a part raised."""
        with self._working():
            rest = memoryview(data)
            self.stored_bytes += len(rest)
            while rest:
                if self._chunk_bytes == self._part_bytes:
                    self._send_part()
                room = self._part_bytes - self._chunk_bytes
                # A copy unless it is all of an immutable buffer: the caller may fill its own again.
                whole = len(rest) == len(data) and len(rest) <= room
                chunk = data if whole and isinstance(data, bytes) else bytes(rest[:room])
                self._chunks.append(chunk)
                self._chunk_bytes += len(chunk)
                rest = rest[room:]

    def finish(self) -> bool:
        """Store the object. True: it is there. False: another object has the key, untouched."""
        with self._working():
            if self._upload is None:
                stored = self._store.put_if_absent(self._key, self._take())
            else:
                self._send_part()
                self._collect(wait(self._pending).done)
                self._require_open()
                stored = self._upload.result().complete()
            self._ended = True
            return stored

    def abort(self, *, wait_seconds: float | None = None) -> None:
        """Leave nothing behind. Never raises: the reason for aborting matters more than a leftover, which is logged.

        ``wait_seconds``: for parts on their way; ABORT_SECONDS unless who aborts several objects says less.
        """
        self._ended = True
        # Neither chunks nor parts are forgotten: a ``finish`` that is at work would complete what is left of them.
        pending = list(self._pending)
        for future in pending:
            future.cancel()
        # A part that is still on its way would outlive the abort, in the store; but a stop cannot wait for long.
        wait(pending, timeout=ABORT_SECONDS if wait_seconds is None else wait_seconds)
        if (upload := self._begun_upload()) is not None:
            self._forget(upload)

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            self.abort()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """What failed once stays failed: an object with a hole must never be completed."""
        self._require_open()
        if self._failure is not None:
            raise self._failure
        try:
            if ended := {part for part in self._pending if part.done()}:
                self._collect(ended)
            yield
        except BaseException as error:
            self._failure = error
            raise

    def _require_open(self) -> None:
        if self._ended:
            raise StorageError(f"object {self._key} was finished or aborted")

    def _send_part(self) -> None:
        if self._parts == MAX_PARTS:
            raise StorageError(
                f"object {self._key} is larger than {MAX_PARTS} parts of {self._part_bytes} bytes",
                hint="Write smaller objects.",
            )
        # Wait first, join after: while the chunks are joined they are in memory twice.
        while len(self._pending) >= self._parallel:
            self._collect(wait(self._pending, return_when=FIRST_COMPLETED).done)
        self._parts += 1
        if self._upload is None:
            begun = self._upload = Future()
            part = self._submit(partial(self._begin_with, begun, self._take()))
            # Cancelled, it never begins the upload: a later part that runs all the same must not wait for that.
            part.add_done_callback(lambda done: done.cancelled() and begun.cancel())
        else:
            part = self._submit(partial(self._put_part, self._upload, self._parts, self._take()))
        self._pending.append(part)

    def _begin_with(self, begun: Future[MultipartUpload], data: bytes) -> None:
        """The first part's task: the store is asked for an upload where its answer holds up no writer."""
        try:
            upload = self._store.start_upload(self._key)
        except BaseException as error:
            begun.set_exception(error)
            raise
        begun.set_result(upload)
        if self._ended:
            # The abort may have come before there was anything to abort.
            self._forget(upload)
            raise StorageError(f"object {self._key} was aborted")
        upload.put_part(1, data)

    @staticmethod
    def _put_part(begun: Future[MultipartUpload], number: int, data: bytes) -> None:
        """Any later part's task. The first one's was submitted before it, so it runs, has run, or was cancelled."""
        begun.result().put_part(number, data)

    def _begun_upload(self) -> MultipartUpload | None:
        begun = self._upload
        if begun is None or not begun.done() or begun.cancelled() or begun.exception() is not None:
            return None
        return begun.result()

    def _forget(self, upload: MultipartUpload) -> None:
        try:
            upload.abort()
        except StorageError as error:
            logger.warning("could not abort an upload", extra=log_fields(object=self._key, error=error))

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._chunk_bytes = 0
        return data

    def _collect(self, done: set[Future[None]]) -> None:
        """Forget parts that ended; raise what one of them raised."""
        self._pending = [future for future in self._pending if future not in done]
        for future in done:
            try:
                future.result()
            except CancelledError as error:
                raise StorageError(f"the upload of {self._key} was cancelled") from error


def _at_once(task: Callable[[], None]) -> Future[None]:
    """Run it here and now; what it raises is raised here."""
    task()
    future: Future[None] = Future()
    future.set_result(None)
    return future
