"""An upload limit that lets WAL go first.

One ``RateLimiter`` stands for the uplink and is shared by the stores that use it, each with a priority. WAL takes
what it needs as soon as the uplink is not overdrawn, and pays afterwards. A base backup's part saves up its bytes in
small slices and waits while any WAL waits, so WAL never stands behind a whole part.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import IntEnum

from pgbackup.errors import StorageError
from pgbackup.storage.base import MultipartUpload, ObjectStore
from pgbackup.storage.forwarding import ForwardingStore

SLICE_SECONDS = 0.05
SAVED_SECONDS = 0.2
SHORTEST_WAIT_SECONDS = 0.001
LONGEST_WAIT_SECONDS = 1.0


class Priority(IntEnum):
    """Who goes first on the uplink."""

    WAL = 0
    BASE_BACKUP = 1


class RateLimiter:
    """So many bytes per second, for all threads together; an idle uplink saves up a fifth of a second."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Condition, float], object] = threading.Condition.wait,
    ) -> None:
        if bytes_per_second <= 0:
            raise ValueError(f"an upload rate must be positive, not {bytes_per_second}")
        self._rate = bytes_per_second
        self._slice_bytes = max(1, int(bytes_per_second * SLICE_SECONDS))
        self._clock = clock
        self._pause = pause
        self._changed = threading.Condition()
        self._balance = 0.0
        self._counted_at = clock()
        self._wal_waiting = 0
        self._closed = False

    def acquire(self, size_bytes: int, priority: Priority = Priority.WAL) -> None:
        """Wait until so many bytes may go. Raises StorageError when the limiter is closed meanwhile."""
        with self._changed:
            if priority is Priority.WAL:
                self._wal_waiting += 1
                try:
                    self._wait_for(lambda: True)
                    self._balance -= size_bytes
                finally:
                    self._wal_waiting -= 1
                    self._changed.notify_all()
                return
            while size_bytes > 0:
                self._wait_for(lambda: self._wal_waiting == 0)
                taken = min(size_bytes, self._slice_bytes)
                self._balance -= taken
                size_bytes -= taken

    def close(self) -> None:
        """Wake whoever waits; they fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for(self, allowed: Callable[[], bool]) -> None:
        """Until nothing is owed and ``allowed()``. Holds the lock."""
        while True:
            if self._closed:
                raise StorageError("the store was closed while an upload waited for its turn")
            owed_seconds = self._owed_seconds()
            if owed_seconds <= 0 and allowed():
                return
            # Whoever is not allowed is notified; the bound is for clocks that jump.
            wait_seconds = owed_seconds if owed_seconds > 0 else LONGEST_WAIT_SECONDS
            self._pause(self._changed, min(max(wait_seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS))

    def _owed_seconds(self) -> float:
        now = self._clock()
        self._balance += (now - self._counted_at) * self._rate
        self._balance = min(self._balance, self._rate * SAVED_SECONDS)
        self._counted_at = now
        return -self._balance / self._rate


class LimitedStore(ForwardingStore):
    """Passes everything on; what is uploaded waits for its turn first."""

    def __init__(self, store: ObjectStore, limiter: RateLimiter, priority: Priority = Priority.WAL) -> None:
        super().__init__(store)
        self._limiter = limiter
        self._priority = priority

    def with_priority(self, priority: Priority) -> LimitedStore:
        """The same store on the same uplink, at another priority."""
        return LimitedStore(self._store, self._limiter, priority)

    def put(self, key: str, data: bytes) -> None:
        self._limiter.acquire(len(data), self._priority)
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._limiter.acquire(len(data), self._priority)
        return self._store.put_if_absent(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        self._limiter.acquire(len(data), self._priority)
        return self._store.replace(key, data, etag)

    def start_upload(self, key: str) -> MultipartUpload:
        return _LimitedUpload(self._store.start_upload(key), self._limiter, self._priority)

    def close(self) -> None:
        self._limiter.close()
        self._store.close()


class _LimitedUpload:
    """A multipart upload whose parts wait for their turn."""

    def __init__(self, upload: MultipartUpload, limiter: RateLimiter, priority: Priority) -> None:
        self._upload = upload
        self._limiter = limiter
        self._priority = priority

    @property
    def upload_id(self) -> str:
        return self._upload.upload_id

    def put_part(self, number: int, data: bytes) -> None:
        self._limiter.acquire(len(data), self._priority)
        self._upload.put_part(number, data)

    def complete(self) -> bool:
        return self._upload.complete()

    def abort(self) -> None:
        self._upload.abort()


def at_priority(store: ObjectStore, priority: Priority) -> ObjectStore:
    """The store at that priority if its uploads are limited, else the store itself."""
    return store.with_priority(priority) if isinstance(store, LimitedStore) else store
