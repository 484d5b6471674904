"""The workers of the resident process: started together, watched, and stopped within the time that is given.

Every worker watches the same stop event. A base backup under way is abandoned (unsealed, it is invisible), the WAL
stream makes durable what it has received and confirms it; then what must be said at the end is said (``on_stopping``,
for alerts that wait and the lease). Whatever is not done in time is left, and said.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from pgbackup import logs
from pgbackup.core.findings import Finding
from pgbackup.core.worker_health import WorkerState, worker_findings
from pgbackup.supervisor.worker import Worker

_HOOK_SECONDS = 2.0
_SHARE = 0.9
_log = logging.getLogger(__name__)

StopHook = Callable[[float], None]
"""Called once when the workers have ended, with the seconds that it may take."""


class Service:
    """Starts ``workers`` in order and waits for ``stop``.

    ``on_stopping`` is called in order when the workers have ended; the names are for the log. A hook has what is left
    of ``stop_seconds``, of which some is kept for the hooks however long the workers take; one that takes longer is
    left behind.
    """

    def __init__(
        self,
        workers: list[Worker],
        stop: threading.Event,
        *,
        stop_seconds: float,
        on_stopping: Mapping[str, StopHook] | None = None,
    ) -> None:
        self._workers = workers
        self._stop = stop
        self._stop_seconds = stop_seconds
        self._hooks = dict(on_stopping or {})

    def worker_states(self) -> list[WorkerState]:
        """One look at every worker, from any thread."""
        return [worker.state() for worker in self._workers]

    def worker_findings(self) -> list[Finding]:
        """What is wrong with the workers now."""
        return worker_findings(self.worker_states())

    def run(self) -> None:
        """Run until ``stop`` is set. Returns when everything has ended, or the time to stop is over."""
        for worker in self._workers:
            worker.start(self._stop)
        while not self._stop.wait(1.0):
            logs.write_late_counts()
        _log.info("stopping")
        deadline = time.monotonic() + self._stop_seconds
        kept = min(_HOOK_SECONDS, self._stop_seconds / 5) if self._hooks else 0.0
        left = [w.name for w in reversed(self._workers) if not w.join(deadline - kept - time.monotonic())]
        for later, (name, hook) in zip(reversed(range(len(self._hooks))), self._hooks.items(), strict=True):
            # Whoever waits for a channel that hangs takes all it is given: the lease is given back all the same.
            seconds = (deadline - time.monotonic()) * (_SHARE if later else 1.0)
            if not _run_hook(name, hook, seconds):
                left.append(name)
        if left:
            _log.warning("stopped without waiting for %s", ", ".join(left))
        else:
            _log.info("stopped")


def _run_hook(name: str, hook: StopHook, seconds: float) -> bool:
    """Run it in a thread of its own, which may be left behind. Returns whether it has ended."""
    if seconds <= 0:
        return False

    def run() -> None:
        try:
            hook(seconds)
        except Exception as exc:  # noqa: BLE001 - the process ends here, whatever this one says
            _log.warning("while stopping: %s: %s", name, exc)

    thread = threading.Thread(target=run, name="stopping", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
