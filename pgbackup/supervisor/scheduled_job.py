"""Scheduled work (base backups, expiry, verification): due by what the repository shows, retried, never in a storm.

After downtime overdue work runs at once; work done by hand counts, because it is in the repository. The repository is
only asked when the time has come, so an idle database costs no requests. Jobs of one JobLine run one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pgbackup.core.health_facts import JobView
from pgbackup.count_text import counted
from pgbackup.engines.base import StopSignal
from pgbackup.errors import PgbackupError
from pgbackup.logs import redact

_FIRST_RETRY = timedelta(minutes=1)
_FIRST_RETRY_BEFORE_WORK = timedelta(seconds=5)
"""Server and store could not even be asked. Where they are only starting that is soon over, and asking costs little."""
_LAST_RETRY = timedelta(minutes=30)
_CLOCK_DOUBT = timedelta(minutes=1)
_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobPorts:
    """What a job needs: when it was last done (asks the repository), whether we may run it (the lease), how to run it,
    and when it is next due after a given last time.

    ``work`` returns what it found to be wrong although it did all it had to do (damage, a refusal), empty for nothing.
    ``elsewhere`` names the same work where another process does it just now (somebody, by hand), empty for nowhere.
    """

    last_done: Callable[[], datetime | None]
    may_run: Callable[[], bool]
    work: Callable[[StopSignal], str]
    next_due: Callable[[datetime | None, datetime], datetime]
    elsewhere: Callable[[], str] = str


class JobObserver(Protocol):
    """Is told of every run; must not block and not raise."""

    def started(self, job: str) -> None: ...

    def ended(self, job: str, seconds: float, problem: str) -> None:
        """``problem`` is empty when the work was done and found nothing wrong."""


class SilentObserver:
    """For whoever watches nothing."""

    def started(self, job: str) -> None: ...

    def ended(self, job: str, seconds: float, problem: str) -> None: ...


class ScheduledJob:
    """``tick`` is called often and only looks at the clock; ``run_if_wanted`` does the work."""

    def __init__(
        self,
        name: str,
        ports: JobPorts,
        *,
        observer: JobObserver | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self._ports = ports
        self._observer = observer or SilentObserver()
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted = False
        self._at_once = False
        self._busy = False
        self._next: datetime | None = None
        self._scheduled_at: datetime | None = None
        self._in_future_since: datetime | None = None
        self._view = JobView()
        self._at_work = False
        """Whether the last run got as far as the work itself."""

    def view(self) -> JobView:
        """What the job says of itself, for health."""
        with self._lock:
            return self._view

    def tick(self) -> None:
        """Want to run when the time has come; or when the clock was set back, and the time was of the wrong one.

        Not while it runs: its time is over until the end of the run sets the next one, and what was wanted meanwhile
        would begin right after a failure, without the pause that is due.
        """
        now = self._clock()
        with self._lock:
            if self._busy:
                return
            is_time = self._next is None or now >= self._next
            if is_time or (self._scheduled_at is not None and now < self._scheduled_at - _CLOCK_DOUBT):
                self._wanted = True

    def look_again(self) -> None:
        """Ask the repository again whether it is due: what it was computed from is not there any more. Not while a
        failure is waited out."""
        with self._lock:
            if not self._view.failures:
                self._wanted = True

    def run_now(self) -> None:
        """Run as soon as possible, due or not; a failure is retried like any other."""
        with self._lock:
            self._wanted = self._at_once = True

    def run_if_wanted(self, stop: StopSignal) -> None:
        """Do the work if it is wanted and due, or was asked for."""
        with self._lock:
            wanted, self._wanted = self._wanted, False
            if not wanted:
                return
            at_once, self._at_once = self._at_once, False
            self._busy = True
        self._at_work = False
        try:
            self._run_if_due(stop, at_once=at_once)
        except PgbackupError as exc:
            self._retry_later(exc, stop, at_once=at_once)
        except Exception as exc:
            # A bug ends the worker, which is started again soon; the work is not.
            self._retry_later(exc, stop, at_once=at_once)
            raise
        finally:
            with self._lock:
                self._busy = False

    def _run_if_due(self, stop: StopSignal, *, at_once: bool) -> None:
        now = self._clock()
        due = now if at_once else self._ports.next_due(self._last_done(now), now)
        if due > now:
            # What had failed is not missing any more: somebody else did it, or it was only the question that failed.
            self._publish(failures=0, error="")
            self._schedule(due)
            return
        if not self._ports.may_run():
            self._leave_to_others(f"another process holds the lease, and does the {self.name}", now)
            self._keep_asking(at_once=at_once)
            return
        # What is wanted at once is wanted because of something that the one that runs began too early for.
        if not at_once and (other := self._ports.elsewhere()):
            self._leave_to_others(f"the {self.name} is due, and waits for the end of {other}", now)
            return
        self._work(stop)
        self._publish(failures=0, error="")
        self._schedule(self._ports.next_due(self._clock(), self._clock()))

    def _leave_to_others(self, text: str, now: datetime) -> None:
        """Ask again in a minute."""
        _log.info("%s", text)
        self._publish(failures=0, error="")
        self._schedule(now + _FIRST_RETRY)

    def _last_done(self, now: datetime) -> datetime | None:
        """A time in the future (a clock was wrong) counts as the moment when it was first seen to be one."""
        last = self._ports.last_done()
        if last is None or last <= now:
            self._in_future_since = None
            return last
        self._in_future_since = min(self._in_future_since or now, now)
        return self._in_future_since

    def _work(self, stop: StopSignal) -> None:
        self._at_work = True
        self._publish(running=True)
        self._observer.started(self.name)
        begin, problem = time.monotonic(), "it did not end"
        try:
            problem = self._ports.work(stop)
        except Exception as exc:
            problem = _text(exc)
            raise
        finally:
            self._publish(running=False)
            self._observer.ended(self.name, time.monotonic() - begin, problem)

    def _retry_later(self, exc: Exception, stop: StopSignal, *, at_once: bool) -> None:
        if stop.is_set():
            _log.info("the %s was stopped: %s", self.name, exc)
            return
        failures = self.view().failures + 1
        waits_for_others = isinstance(exc, PgbackupError) and not self._at_work
        first, last = (_FIRST_RETRY_BEFORE_WORK, _FIRST_RETRY) if waits_for_others else (_FIRST_RETRY, _LAST_RETRY)
        delay = min(first * 2 ** min(failures - 1, 10), last)
        _log.error("the %s failed (%s), next try in %s: %s", self.name, counted(failures, "time"), delay, _text(exc))
        self._publish(failures=failures, error=_text(exc))
        self._schedule(self._clock() + delay)
        self._keep_asking(at_once=at_once)

    def _keep_asking(self, *, at_once: bool) -> None:
        """What was asked for at once and could not be done stays asked for; it may have been asked for anew as well."""
        with self._lock:
            self._at_once |= at_once

    def _schedule(self, due: datetime) -> None:
        with self._lock:
            self._next, self._scheduled_at = due, self._clock()
        self._publish(next_due=due)

    def _publish(
        self,
        *,
        running: bool | None = None,
        failures: int | None = None,
        error: str | None = None,
        next_due: datetime | None = None,
    ) -> None:
        with self._lock:
            old = self._view
            self._view = JobView(
                running=old.running if running is None else running,
                failures=old.failures if failures is None else failures,
                error=old.error if error is None else error,
                next_due=old.next_due if next_due is None else next_due,
            )


def _text(exc: Exception) -> str:
    return str(exc) if isinstance(exc, PgbackupError) else redact(f"{type(exc).__name__}: {exc}")


class JobLine:
    """Runs several jobs, one at a time, in their order."""

    def __init__(self, jobs: Sequence[ScheduledJob]) -> None:
        self._jobs = jobs

    def run(self, stop: StopSignal) -> None:
        """Run what is wanted until ``stop`` is set."""
        while not stop.is_set():
            for job in self._jobs:
                if not stop.is_set():
                    job.run_if_wanted(stop)
            stop.wait(_POLL_SECONDS)
