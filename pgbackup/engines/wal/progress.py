"""How far the WAL is, for everybody who waits for it or shows it: received, durable, confirmed.

Written by the thread that owns the stream, read by any. A base backup waits here for the WAL that makes it
consistent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pgbackup.core.lsn import Lsn
from pgbackup.engines.base import StopSignal
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.errors import BackupError, PgbackupError
from pgbackup.logs import redact


@dataclass(frozen=True, slots=True)
class WalPosition:
    """One view: on ``timeline``, in the session that ``began`` there, WAL is received to ``received``, durable without
    a hole to ``confirmed``, and in whole segments to ``whole``. ``streaming`` is False between sessions; ``problem``
    says why, and is ``permanent`` when only the operator can mend it."""

    timeline: int = 0
    began: Lsn = Lsn(0)
    received: Lsn = Lsn(0)
    confirmed: Lsn = Lsn(0)
    whole: Lsn = Lsn(0)
    server_end: Lsn = Lsn(0)
    streaming: bool = False
    problem: str = ""
    permanent: bool = False


class WalProgress:
    """The latest WalPosition, and waiting for one; and what the uploads of all sessions have come to."""

    def __init__(self) -> None:
        self.uploads = UploadStats()
        self._changed = threading.Condition()
        self._position = WalPosition()
        self._beat = time.monotonic()

    def publish(self, position: WalPosition) -> None:
        with self._changed:
            if position != self._position:
                self._position = position
                self._changed.notify_all()
            self._beat = time.monotonic()

    def note_problem(self, error: PgbackupError, *, permanent: bool) -> None:
        """Streaming stands; ``permanent`` when only the operator can mend it."""
        text = redact(error.with_hint())
        with self._changed:
            self._position = replace(self._position, streaming=False, problem=text, permanent=permanent)
            self._changed.notify_all()

    def get(self) -> WalPosition:
        with self._changed:
            return self._position

    @property
    def beat_age_seconds(self) -> float:
        """How long ago the streaming thread last showed that it lives."""
        with self._changed:
            return time.monotonic() - self._beat

    def beat(self) -> None:
        with self._changed:
            self._beat = time.monotonic()

    def wait_until(
        self, reached: Callable[[WalPosition], bool], stop: StopSignal, *, stalled_seconds: float
    ) -> WalPosition:
        """Wait for a position. Raises BackupError when we are told to stop, when streaming has failed for good, or when
        nothing moved for ``stalled_seconds``."""
        last, since = self.get(), time.monotonic()
        while True:
            with self._changed:
                position = self._position
                if reached(position):
                    return position
                self._changed.wait(0.5)
            if stop.is_set():
                raise BackupError("stopped while waiting for WAL")
            if position.permanent:
                raise BackupError("WAL is not being shipped", detail=position.problem)
            if (position.confirmed, position.whole) != (last.confirmed, last.whole):
                last, since = position, time.monotonic()
            elif time.monotonic() - since > stalled_seconds:
                raise BackupError(
                    f"no WAL became durable for {stalled_seconds:.0f} s",
                    detail=position.problem or f"durable to {position.confirmed}",
                    hint="Look at the log of the WAL stream; the copy is kept and sealed when WAL moves again.",
                )
