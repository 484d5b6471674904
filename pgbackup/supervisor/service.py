"""`pgbackup run`: starts the workers, waits for a signal, stops them in order within the time that is given.

Signal handlers only set the stop event. Stopping: the ticker and the jobs first (an unsealed base backup is
invisible), then the WAL stream, which makes what it has received durable and confirms it. A second signal ends the
process at once; nothing is lost by that, because only what is durable was ever confirmed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType

from pgbackup.supervisor.worker import Worker

_log = logging.getLogger(__name__)
EXIT_SECOND_SIGNAL = 130


class Service:
    """The resident process; ``workers`` in the order in which they are started, stopped the other way round."""

    def __init__(self, workers: list[Worker], *, stop_seconds: float) -> None:
        self._workers = workers
        self._stop_seconds = stop_seconds
        self._stop = threading.Event()

    @property
    def stop_event(self) -> threading.Event:
        return self._stop

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Returns when everything has ended, or the time to stop is over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        for worker in self._workers:
            worker.start(self._stop)
        while not self._stop.wait(1.0):
            pass
        self._stop_all()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop.is_set():
            os._exit(EXIT_SECOND_SIGNAL)
        self._stop.set()

    def _stop_all(self) -> None:
        _log.info("stopping")
        deadline = time.monotonic() + self._stop_seconds
        left = [w.name for w in reversed(self._workers) if not w.join(deadline - time.monotonic())]
        if left:
            _log.warning("stopped without waiting for %s", ", ".join(left))
        else:
            _log.info("stopped")
