"""How long a streaming session waits for its store: a big object on a slow line takes long; a store is dead when it
answers nothing at all."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from pgbackup.engines.wal.port import SegmentUploads
from pgbackup.errors import StoreUnavailable

STORE_DEAD_SECONDS = 15.0
_PROBE_SECONDS = 5.0


class StorePatience:
    """Watches the uploads of one session; for the thread that owns the stream."""

    def __init__(self, uploads: SegmentUploads[Any]) -> None:
        self._uploads = uploads
        self._probe: tuple[float, Future[None]] | None = None

    def progressed(self) -> None:
        """Something became durable."""
        self._probe = None

    def check(self) -> None:
        """Ask the store something small once the oldest upload takes long. Raises StoreUnavailable when it does not
        answer that either."""
        if self._uploads.oldest_job_seconds() < STORE_DEAD_SECONDS:
            self._probe = None
            return
        if self._probe is None:
            self._probe = (time.monotonic(), self._uploads.probe())
            return
        asked, answer = self._probe
        if answer.done() and answer.exception() is None:
            if time.monotonic() - asked > STORE_DEAD_SECONDS:
                self._probe = None
        elif answer.done() or time.monotonic() - asked > _PROBE_SECONDS:
            raise StoreUnavailable("the store does not answer", detail=f"for {STORE_DEAD_SECONDS:.0f} s and more")
