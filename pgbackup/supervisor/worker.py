"""One named thread that is kept alive: a crash is logged, and the work begins again after a pause."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pgbackup.engines.base import StopSignal

_FIRST_PAUSE_SECONDS = 1.0
_LAST_PAUSE_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Worker:
    """Runs ``work(stop)`` in a thread until it returns or ``stop`` is set; every exception restarts it."""

    def __init__(self, name: str, work: Callable[[StopSignal], None]) -> None:
        self.name = name
        self._work = work
        self._thread: threading.Thread | None = None
        self.crashes = 0

    def start(self, stop: StopSignal) -> None:
        # A daemon, so that a request that hangs in a library cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(stop,), name=self.name, daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread. Returns whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self, stop: StopSignal) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not stop.is_set():
            try:
                self._work(stop)
                return
            except Exception:  # noqa: BLE001 - the border of a worker: a bug is shown whole and must not end the thread
                self.crashes += 1
                _log.exception("worker %s crashed (%d times), starting it again", self.name, self.crashes)
            stop.wait(pause)
            pause = min(pause * 2, _LAST_PAUSE_SECONDS)
