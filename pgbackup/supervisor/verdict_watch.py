"""Who watches the watchman: no verdict for too long is told by another thread than the one that should have come to it.

The health check can hang in a call to a library, or crash each time by a bug of its own; then nobody else would open an
alert any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.status import STALE_INTERVALS

_LEAST_SECONDS = 60.0
"""One look may take that long by itself, while the store or the server does not answer."""


class VerdictWatch:
    """``note`` is called with each verdict, ``finding`` by another thread."""

    def __init__(self, interval_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max(_LEAST_SECONDS, STALE_INTERVALS * interval_seconds)
        self._clock = clock
        self._lock = threading.Lock()
        self._last = clock()

    def note(self) -> None:
        """A health check has come to a verdict."""
        with self._lock:
            self._last = self._clock()

    def finding(self) -> Finding | None:
        """What to tell when none has for too long."""
        with self._lock:
            silent = self._clock() - self._last
        if silent <= self._limit:
            return None
        return Finding(
            "health:stale",
            Severity.CRITICAL,
            f"no health check has come to a verdict for {round(silent)} s: nobody knows whether backups are well",
            "See the log for what it waits for or why it crashes, and restart pgbackup.",
            {"silent_seconds": round(silent)},
        )
