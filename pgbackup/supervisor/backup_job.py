"""Scheduled base backups: whether one is due is decided from the repository, one runs at a time, failures are retried.

After downtime an overdue backup runs at once; a backup made by hand counts, because it is in the repository. The
repository is only asked when the time of the next backup has come, so an idle database costs no requests.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgbackup.engines.base import StopSignal
from pgbackup.errors import PgbackupError

_FIRST_RETRY = timedelta(minutes=1)
_LAST_RETRY = timedelta(minutes=30)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackupPorts:
    """What the job needs: when the newest restorable backup was finished (asks the repository), whether we may run it
    (the lease), how to run it, and when the next is due after a given last one."""

    last_backup: Callable[[], datetime | None]
    may_run: Callable[[], bool]
    take_backup: Callable[[StopSignal], None]
    next_due: Callable[[datetime | None, datetime], datetime]


class BackupJob:
    """``tick`` is called often and only looks at the clock; ``run`` is the worker that takes backups."""

    def __init__(self, ports: BackupPorts, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ports = ports
        self._clock = clock
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._next: datetime | None = None
        self._failures = 0

    @property
    def next_due(self) -> datetime | None:
        """When the next backup is due, as far as is known."""
        return self._next

    def tick(self) -> None:
        """Wake the worker when the time has come."""
        with self._lock:
            due = self._next is None or self._clock() >= self._next
        if due:
            self._wanted.set()

    def run(self, stop: StopSignal) -> None:
        """Take backups when woken and due, until ``stop`` is set."""
        while not stop.is_set():
            self.run_when_woken(stop, timeout=0.5)

    def run_when_woken(self, stop: StopSignal, *, timeout: float) -> None:
        """Wait for a tick that says so, and take a backup if the repository says so too."""
        if self._wanted.wait(timeout):
            self._wanted.clear()
            self._run_if_due(stop)

    def _run_if_due(self, stop: StopSignal) -> None:
        try:
            now = self._clock()
            due = self._ports.next_due(self._ports.last_backup(), now)
            if due > now:
                self._schedule(due)
                return
            if not self._ports.may_run():
                _log.info("another process holds the lease and takes the base backups")
                self._schedule(now + _FIRST_RETRY)
                return
            self._ports.take_backup(stop)
            self._failures = 0
            self._schedule(self._ports.next_due(self._clock(), self._clock()))
        except PgbackupError as exc:
            self._retry_later(exc, stop)

    def _retry_later(self, exc: PgbackupError, stop: StopSignal) -> None:
        if stop.is_set():
            _log.info("base backup was stopped: %s", exc)
            return
        self._failures += 1
        delay = min(_FIRST_RETRY * 2 ** min(self._failures - 1, 10), _LAST_RETRY)
        _log.error("base backup failed (%d times), next try in %s: %s", self._failures, delay, exc)
        self._schedule(self._clock() + delay)

    def _schedule(self, due: datetime) -> None:
        with self._lock:
            self._next = due
