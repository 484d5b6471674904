"""Cron monitors: every run of a scheduled job is a check-in at Sentry.

The monitors are made by their check-ins (upsert), so that Sentry notices by itself when a run never started, also when
this process is dead.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pgbackup.alerts.base import DeliveryError, bug
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.monitor_schedule import interval, monitor_schedule, monitor_slug
from pgbackup.core.schedule_spec import ScheduleSpec

if TYPE_CHECKING:
    from pgbackup.alerts.sentry_client import SentryClient

_MOST_WAITING = 100
_TRIES = 5
_FIRST_PAUSE_SECONDS = 2.0
_LAST_PAUSE_SECONDS = 300.0
_FAILURES_TO_TELL = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Monitor:
    """A cron monitor: when it expects a check-in, how late it may come, how long a run may take."""

    what: str
    schedule: dict[str, str | int]
    timezone: str
    margin: timedelta
    longest: timedelta

    @classmethod
    def of_schedule(
        cls,
        what: str,
        spec: ScheduleSpec,
        timezone: str,
        *,
        margin: timedelta,
        longest: timedelta = timedelta(hours=24),
    ) -> Monitor:
        return cls(what, monitor_schedule(spec), timezone, margin, longest)

    @classmethod
    def of_interval(cls, what: str, every: timedelta) -> Monitor:
        return cls(what, interval(every), "UTC", max(every, timedelta(minutes=5)), timedelta(minutes=10))

    def document(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule,
            "timezone": self.timezone,
            "checkin_margin": max(1, self.margin // timedelta(minutes=1)),
            "max_runtime": max(1, self.longest // timedelta(minutes=1)),
            "failure_issue_threshold": 1,
            "recovery_threshold": 1,
        }


@dataclass(slots=True)
class _Waiting:
    """A check-in, whether a newer one of its monitor may take its place, and the tries so far."""

    document: dict[str, Any]
    replaceable: bool
    tries: int = 0


class CheckIns:
    """Sends check-ins from a thread of its own, in order; ``note`` never blocks, and at most 100 wait."""

    def __init__(self, client: SentryClient, cluster: str, *, first_pause: float = _FIRST_PAUSE_SECONDS) -> None:
        client.join()
        self._client = client
        self._cluster = cluster
        self._first_pause = first_pause
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._finishing = False
        self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="check-ins", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def note(self, monitor: Monitor, status: str, *, run_id: str | None = None, seconds: float | None = None) -> None:
        """A run of ``monitor`` is ``in_progress``, ``ok`` or ``error``; ``run_id`` ties the two of one run together.

        Without one it is a sign of life, of which only the newest has to arrive.
        """
        slug = monitor_slug(self._cluster, monitor.what)
        alone = run_id is None and status != "in_progress"
        check_in = {
            "type": "check_in",
            "monitor_slug": slug,
            "check_in_id": run_id or uuid.uuid4().hex,
            "status": status,
            "duration": seconds,
            "monitor_config": monitor.document(),
        }
        with self._changed:
            if alone:
                self._waiting = [w for w in self._waiting if not (w.replaceable and w.document["monitor_slug"] == slug)]
            self._waiting = [*self._waiting, _Waiting(check_in, alone)][-_MOST_WAITING:]
            self._changed.notify()

    def finding(self) -> Finding | None:
        with self._changed:
            if self._failures < _FAILURES_TO_TELL:
                return None
            return Finding(
                f"alert-channel:sentry crons {self._client.host}",
                Severity.WARNING,
                f"check-ins do not arrive at Sentry: {self._problem}",
                "Mend SENTRY_DSN or the network; `pgbackup alerts test` shows what it answers.",
                {"failures": self._failures},
            )

    def finish(self, seconds: float) -> None:
        """Give what waits so many seconds, once more each, and end."""
        with self._changed:
            self._finishing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            try:
                self._client.capture(waiting.document)
            except DeliveryError as exc:
                self._failed(waiting, str(exc), retryable=exc.retryable)
            except Exception as exc:  # noqa: BLE001 - a bug must neither end the thread nor go unseen
                self._failed(waiting, bug(exc), retryable=False)
            else:
                with self._changed:
                    self._failures = 0
        self._client.leave()

    def _next(self) -> _Waiting | None:
        with self._changed:
            while not self._waiting:
                if self._finishing:
                    return None
                self._changed.wait()
            return self._waiting.pop(0)

    def _failed(self, waiting: _Waiting, problem: str, *, retryable: bool) -> None:
        document = waiting.document
        _log.warning("check-in %s (%s) failed: %s", document["monitor_slug"], document["status"], problem)
        waiting.tries += 1
        with self._changed:
            self._failures += 1
            self._problem = problem
            if retryable and waiting.tries < _TRIES and not self._finishing:
                self._put_back(waiting)
            until = time.monotonic() + min(self._first_pause * 2 ** min(self._failures - 1, 8), _LAST_PAUSE_SECONDS)
            while not self._finishing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _put_back(self, waiting: _Waiting) -> None:
        slug = waiting.document["monitor_slug"]
        newer = waiting.replaceable and any(w.replaceable and w.document["monitor_slug"] == slug for w in self._waiting)
        if not newer and len(self._waiting) < _MOST_WAITING:
            self._waiting.insert(0, waiting)
