"""The workers of the resident process: started together, stopped within the time that is given.

Every worker watches the same stop event. A base backup under way is abandoned (unsealed, it is invisible), the WAL
stream makes durable what it has received and confirms it; whatever is not done in time is left, and said.
"""

from __future__ import annotations

import logging
import threading
import time

from pgbackup.supervisor.worker import Worker

_log = logging.getLogger(__name__)


class Service:
    """Starts ``workers`` in order and waits for ``stop``."""

    def __init__(self, workers: list[Worker], stop: threading.Event, *, stop_seconds: float) -> None:
        self._workers = workers
        self._stop = stop
        self._stop_seconds = stop_seconds

    def run(self) -> None:
        """Run until ``stop`` is set. Returns when everything has ended, or the time to stop is over."""
        for worker in self._workers:
            worker.start(self._stop)
        while not self._stop.wait(1.0):
            pass
        _log.info("stopping")
        deadline = time.monotonic() + self._stop_seconds
        left = [w.name for w in reversed(self._workers) if not w.join(deadline - time.monotonic())]
        if left:
            _log.warning("stopped without waiting for %s", ", ".join(left))
        else:
            _log.info("stopped")
