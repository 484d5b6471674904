"""What the upload threads tell the thread that owns the WAL stream: queued, and it is woken from its ``select``."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from dataclasses import dataclass

from pgbackup.core.lsn import Lsn, SegmentName


@dataclass(frozen=True, slots=True)
class Durable:
    """The store has acknowledged ``[start, end)`` of a segment; ``whole`` when as the whole segment."""

    segment: SegmentName
    start: Lsn
    end: Lsn
    whole: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A piece of work for the store failed: the session ends."""

    error: BaseException


class WakeableQueue:
    """Many threads put, one thread takes; ``fileno`` becomes readable when something was put."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Durable | Failed | None] = queue.SimpleQueue()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._open = True
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._read

    def put(self, item: Durable | Failed | None) -> None:
        """Queue an item (None only wakes the reader). Never blocks, never fails after ``close``."""
        self._items.put(item)
        self.wake()

    def wake(self) -> None:
        # A full pipe wakes just as well; after close there is nobody to wake, and the descriptor's number may be
        # somebody else's by then: a byte too many in the stream to the server or to the store.
        with self._lock:
            if self._open:
                with contextlib.suppress(OSError):
                    os.write(self._write, b"x")

    def take_all(self) -> list[Durable | Failed]:
        """Everything queued so far."""
        with contextlib.suppress(OSError):
            while os.read(self._read, 4096):
                pass
        taken: list[Durable | Failed] = []
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                return taken
            if item is not None:
                taken.append(item)

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._read)
            os.close(self._write)
