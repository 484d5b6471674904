"""One named thread that is kept alive and watched: a crash is logged and the work begins again after a pause.

The work is given a stop signal that also listens: each time the work looks at it, that is a heartbeat. Every loop in
this program looks at its stop signal (nothing waits without a bound), so a worker that does not is one that hangs.
Only the worker's own thread counts: an upload that looks at the same signal does not hide that its owner hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from pgbackup.core.worker_health import WorkerState
from pgbackup.engines.base import StopSignal
from pgbackup.errors import PgbackupError
from pgbackup.logs import redact

SILENT_AFTER_SECONDS = 300.0
"""Longer than any single request to the store or the server may take with its own retries."""

_FIRST_PAUSE_SECONDS = 1.0
_LAST_PAUSE_SECONDS = 60.0
_GOOD_RUN_SECONDS = 300.0
_LONGEST_WAIT_SECONDS = 5.0
_ERROR_CHARACTERS = 300
_log = logging.getLogger(__name__)


class Worker:
    """Runs ``work(stop)`` in a thread until ``stop`` is set; an exception, or an end nobody asked for, restarts it.

    ``silent_after``: seconds without a heartbeat after which it counts as hanging, None for never.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[StopSignal], None],
        *,
        silent_after: float | None = SILENT_AFTER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._work = work
        self._silent_after = silent_after
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._stop: StopSignal | None = None
        self._lock = threading.Lock()
        self._beat = clock()
        self._crashes = 0
        self._in_a_row = 0
        self._last_crash: float | None = None
        self._last_error = ""

    def start(self, stop: StopSignal) -> None:
        # A daemon, so that a request that hangs in a library cannot keep the process from ending.
        self.beat()
        self._stop = stop
        self._thread = threading.Thread(target=self._run, args=(stop,), name=self.name, daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread. Returns whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def beat(self) -> None:
        """Show that the worker lives: for work that cannot look at its stop signal for long."""
        self._beat = self._clock()

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def state(self) -> WorkerState:
        """One look at it, from any thread."""
        now = self._clock()
        with self._lock:
            return WorkerState(
                name=self.name,
                # One that was told to end, and has, is what it should be: the others still look and tell.
                alive=self.is_alive or (self._stop is not None and self._stop.is_set()),
                crashes=self._crashes,
                crashes_in_a_row=self._in_a_row if self._is_recent(now) else 0,
                seconds_since_crash=None if self._last_crash is None else now - self._last_crash,
                last_error=self._last_error,
                idle_seconds=max(0.0, now - self._beat),
                silent_after_seconds=self._silent_after,
            )

    def _is_recent(self, now: float) -> bool:
        return self._last_crash is not None and now - self._last_crash < _GOOD_RUN_SECONDS + _LAST_PAUSE_SECONDS

    def _run(self, stop: StopSignal) -> None:
        listening = BeatingStop(stop, self)
        while not listening.is_set():
            began = self._clock()
            try:
                self._work(listening)
                if stop.is_set():
                    return
                self._crashed(RuntimeError("it ended although nobody told it to"), began, listening)
            except Exception as exc:  # noqa: BLE001 - the border of a worker: whatever it is must not end the thread
                self._crashed(exc, began, listening)

    def _crashed(self, exc: Exception, began: float, stop: StopSignal) -> None:
        """Remember it, say so, and pause: the longer, the more often it crashed without a good run between."""
        now = self._clock()
        with self._lock:
            self._in_a_row = 1 if now - began > _GOOD_RUN_SECONDS else self._in_a_row + 1
            self._crashes += 1
            self._last_crash = now
            self._last_error = redact(f"{type(exc).__name__}: {exc}")[:_ERROR_CHARACTERS]
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(self._in_a_row - 1, 10), _LAST_PAUSE_SECONDS)
        if isinstance(exc, PgbackupError):
            _log.error("worker %s failed, starting it again in %.0f s: %s", self.name, pause, exc.with_hint())
        else:
            # A bug is shown whole.
            _log.error("worker %s crashed, starting it again in %.0f s", self.name, pause, exc_info=exc)
        if not stop.wait(pause):
            _log.warning("worker %s starts again (crashed %d times so far)", self.name, self._crashes)


class BeatingStop:
    """A stop signal that tells a worker's heartbeat whenever the worker's own thread looks at it."""

    def __init__(self, stop: StopSignal, worker: Worker) -> None:
        self._stop = stop
        self._worker = worker
        self._owner = threading.get_ident()

    def is_set(self) -> bool:
        self._listen()
        return self._stop.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in short steps, so that a long pause is not taken for a hang."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._listen()
            left = _LONGEST_WAIT_SECONDS if until is None else until - time.monotonic()
            if self._stop.wait(max(0.0, min(left, _LONGEST_WAIT_SECONDS))):
                return True
            if left <= _LONGEST_WAIT_SECONDS and until is not None:
                self._listen()
                return False

    def _listen(self) -> None:
        if threading.get_ident() == self._owner:
            self._worker.beat()
