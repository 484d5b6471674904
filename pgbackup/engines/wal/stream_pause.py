"""Lets somebody else have the replication slot for a moment: the stream ends as at a stop, waits, and begins again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pgbackup.core.stop import StopSignal
from pgbackup.errors import SlotBusy

_LOOK_SECONDS = 0.2


class StreamPause:
    """``session`` is used by the streaming thread, ``hold`` by any other."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._wanted = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    @contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        """Nothing streams while the block runs. Raises SlotBusy when the stream has not ended in so many seconds."""
        with self._one_at_a_time:
            self._wanted.set()
            try:
                if not self._idle.wait(seconds):
                    raise SlotBusy("the WAL stream did not let go of the slot", detail=f"waited {seconds:.0f} s")
                yield
            finally:
                self._wanted.clear()

    @contextmanager
    def session(self, stop: StopSignal) -> Iterator[StopSignal]:
        """One streaming session; waits while somebody holds. Yields the signal to end it: ``stop``, or a hold."""
        self._idle.clear()
        # Not idle first, and then the look: who begins to hold in between waits for us.
        while self._wanted.is_set() and not stop.is_set():
            self._idle.set()
            stop.wait(_LOOK_SECONDS)
            self._idle.clear()
        try:
            yield _EitherStop(stop, self._wanted)
        finally:
            self._idle.set()


class _EitherStop:
    def __init__(self, stop: StopSignal, wanted: threading.Event) -> None:
        self._stop = stop
        self._wanted = wanted

    def is_set(self) -> bool:
        return self._stop.is_set() or self._wanted.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                return False
            self._stop.wait(left)
        return True
