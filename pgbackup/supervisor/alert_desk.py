"""Where findings become what people hear: the book of alerts, its channels, the heartbeat, Sentry's check-ins.

Nothing here waits for a channel. The book is kept in the repository as well, so that a restart does not tell everything
again; a store that does not answer only loses that memory.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.alerts.channels import AlertSettings, Channels, build_channels
from pgbackup.alerts.dispatch import Dispatch
from pgbackup.alerts.monitors import CheckIns, Monitor
from pgbackup.core.alert_book import Alert, AlertBook, Notice
from pgbackup.core.findings import Finding, Severity, worst
from pgbackup.core.health_facts import Health
from pgbackup.errors import ObjectMissing, PgbackupError
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore

_WAL_CHECK_IN_SECONDS = 300.0
_WAL_KINDS = ("wal:", "stream:", "slot:", "repository:", "server:")
_NEVER_EARLY = ("alert-config:", "slot:dropped", "slot:not-dropped")
"""Neither goes away by itself once everything is up."""
_DRAIN_SHARE = 0.8
"""Of the time to stop; what is left is for storing what nobody has taken yet."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """``monitors``: the cron monitor of each scheduled job, by the job's name. ``grace_seconds``: right after the start
    server and store may still be on their way up, so what is seen then is told only when it lasts longer."""

    alerts: AlertSettings
    monitors: Mapping[str, Monitor]
    grace_seconds: float = 60.0


class AlertDesk:
    """``round`` is called by the health check; jobs report their runs (JobObserver); ``finish`` ends it."""

    def __init__(self, settings: DeskSettings) -> None:
        self._settings = settings
        self._store: ObjectStore | None = None
        self._built: Channels = build_channels(settings.alerts)
        self._dispatch = Dispatch(self._built.channels)
        self._book = AlertBook(repeat=settings.alerts.repeat)
        self._restored = False
        self._stored: tuple[object, ...] = ((), ())
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._runs: dict[str, str] = {}
        self._last_wal_check_in = -_WAL_CHECK_IN_SECONDS
        client = self._built.sentry
        self._check_ins = CheckIns(client, settings.alerts.origin.cluster) if client is not None else None
        self._heartbeat = self._built.heartbeat

    def start(self) -> None:
        """Start the channels, and tell at once of those that cannot be used."""
        for problem in self._built.problems:
            _log.error("%s. %s", problem.summary, problem.hint)
        self._dispatch.start()
        for part in (self._check_ins, self._heartbeat):
            if part is not None:
                part.start()

    def keep_book_in(self, store: ObjectStore) -> None:
        """From now on the book outlives the process; alerts may have been opened before."""
        self._store = store

    def findings(self) -> list[Finding]:
        """Channels that fail or cannot be used."""
        own = [part.finding() for part in (self._check_ins, self._heartbeat) if part is not None]
        return [*self._built.problems, *self._dispatch.findings(), *(finding for finding in own if finding)]

    def active(self) -> list[Alert]:
        """The open alerts, worst first."""
        with self._lock:
            return self._book.active()

    def round(self, health: Health, now: datetime) -> None:
        """One health check has come to a verdict. People are told before a store is waited for that does not answer."""
        answers = health.facts is None or health.facts.repository is not None
        if answers and self._store is not None and not self._restored:
            self._restored = self._restore(self._store)
        with self._lock:
            notices = self._book.update([f for f in health.findings if not self._is_early(f)], now)
        self._tell(notices)
        self._ping(health)
        self._check_in_wal(health)
        if answers:
            self._save()

    def _ping(self, health: Health) -> None:
        """The heartbeat is not told of itself: on a warning nothing is sent, so one that failed would fall silent for
        good because it failed. Nor of what is wrong right after the start only."""
        if self._heartbeat is None:
            return
        others = [f for f in health.findings if f.key != self._heartbeat.key]
        severity = worst(others)
        if severity is Severity.CRITICAL and all(self._is_early(f) for f in others if f.severity is severity):
            return
        self._heartbeat.ping(severity.word if severity else "ok", others[0].summary if others else "")

    def alarm(self, findings: Sequence[Finding], now: datetime) -> None:
        """Tell of something outside the rounds: what cannot wait for the next, or that none comes to a verdict."""
        with self._lock:
            notices = self._book.add([f for f in findings if not self._is_early(f)], now)
        self._tell(notices)

    def _tell(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            _log.log(
                logging.INFO if notice.kind == "resolved" else logging.ERROR,
                "alert %s: %s (%s): %s", notice.kind, notice.finding.key, notice.finding.severity.word,
                notice.finding.summary,
            )  # fmt: skip
        self._dispatch.submit(notices)

    def finish(self, seconds: float) -> None:
        """Deliver what waits, within the time; for the end of the process."""
        deadline = time.monotonic() + seconds
        self._dispatch.drain(seconds * _DRAIN_SHARE)
        for part in (self._check_ins, self._heartbeat):
            if part is not None:
                part.finish(deadline - time.monotonic())
        self._save()

    def _is_early(self, finding: Finding) -> bool:
        if finding.key.startswith(_NEVER_EARLY) or self._book.is_open(finding.key):
            return False
        return time.monotonic() - self._began < self._settings.grace_seconds

    # -- check-ins ------------------------------------------------------------------------------------------------

    def started(self, job: str) -> None:
        monitor = self._settings.monitors.get(job)
        if self._check_ins is not None and monitor is not None:
            self._runs[job] = uuid.uuid4().hex
            self._check_ins.note(monitor, "in_progress", run_id=self._runs[job])

    def ended(self, job: str, seconds: float, problem: str) -> None:
        monitor = self._settings.monitors.get(job)
        if self._check_ins is not None and monitor is not None:
            status = "error" if problem else "ok"
            self._check_ins.note(monitor, status, run_id=self._runs.pop(job, None), seconds=round(seconds, 3))

    def _check_in_wal(self, health: Health) -> None:
        """WAL has no runs that begin and end: its monitor wants a sign of life."""
        if self._check_ins is None or time.monotonic() - self._last_wal_check_in < _WAL_CHECK_IN_SECONDS:
            return
        wrong = [f for f in health.findings if f.key.startswith(_WAL_KINDS) and f.severity is Severity.CRITICAL]
        broken = any(not self._is_early(f) for f in wrong)
        if wrong and not broken:
            return
        self._last_wal_check_in = time.monotonic()
        monitor = Monitor.of_interval("wal-shipping", timedelta(seconds=_WAL_CHECK_IN_SECONDS))
        self._check_ins.note(monitor, "error" if broken else "ok")

    # -- the book in the repository -------------------------------------------------------------------------------

    def _restore(self, store: ObjectStore) -> bool:
        try:
            data = store.get(keys.ALERTS)
        except ObjectMissing:
            return True
        except PgbackupError as exc:
            _log.debug("the open alerts of the last run could not be read: %s", exc)
            return False
        try:
            with self._lock:
                self._book.restore(json.loads(data))
        except (ValueError, RecursionError) as exc:
            _log.warning("object %s is damaged: %s", keys.ALERTS, exc)
        return True

    def _save(self) -> None:
        """Store the book when something was told, has ceased or has arrived since; what fails is tried again later."""
        undelivered = self._dispatch.undelivered()
        with self._lock:
            told = tuple((a.finding.key, a.told, a.count, a.absent_since is None) for a in self._book.active())
            document = self._book.document(undelivered)
        said = told, tuple(sorted(undelivered))
        if self._store is None or not self._restored or said == self._stored:
            return
        try:
            self._store.put(keys.ALERTS, json.dumps(document).encode())
            self._stored = said
        except PgbackupError as exc:
            _log.debug("the open alerts could not be stored: %s", exc)
