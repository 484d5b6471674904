"""The scheduled expiry: removes what the retention policy no longer keeps, and says so when it refuses.

When it last ran is read from the repository, so an expiry by hand counts. A refusal is no failure that is tried again
every minute: the plan would be the same; it is a finding until a later run goes through.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import LastRun
from pgbackup.count_text import counted
from pgbackup.engines.base import StopSignal
from pgbackup.engines.expire.expire import ExpiryReport, ExpiryRequest, run_expiry
from pgbackup.errors import BackupError
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.expiry_record import last_expiry, read_record

_log = logging.getLogger(__name__)


class ExpireJob:
    """The parts of a ScheduledJob. ``request`` is made anew with the stop signal of each run."""

    def __init__(self, request: Callable[[], ExpiryRequest]) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._refusal: tuple[str, str] | None = None
        self._last_run: LastRun | None = None
        self._ended: datetime | None = None
        """When a run came to its end or refused; one that broke off is tried again."""

    @property
    def last_run(self) -> LastRun | None:
        """The newest run of this process."""
        with self._lock:
            return self._last_run

    def findings(self) -> list[Finding]:
        """The refusal of the last run, if it refused."""
        with self._lock:
            if self._refusal is None:
                return []
            text, hint = self._refusal
        return [
            Finding(
                "expire:refused",
                Severity.WARNING,
                f"expiry refuses to remove anything: {text}",
                hint or "`pgbackup expire` shows the plan; nothing is removed until it is resolved.",
            )
        ]

    def last_done(self) -> datetime | None:
        """When an expiry last ran; before the first one, the first backup's end: it is due a period later."""
        with self._lock:
            own = self._ended
        request = self._request()
        record = read_record(request.store)
        if record is None and own is not None:
            return own
        backups = read_catalog(request.store, request.codec, with_marks=False).backups if record is None else ()
        last = last_expiry(record, backups, datetime.now(UTC))
        return last if own is None else max(last, own)

    def work(self, stop: StopSignal) -> str:
        """Plan and remove; returns why it refused. Raises BackupError when it ended early, what the store raises."""
        report = run_expiry(replace(self._request(), stop=stop))
        self._note(report)
        if report.plan.refusal:
            _log.error("expiry refuses: %s. %s", report.plan.refusal, report.plan.hint)
        elif report.stopped:
            raise BackupError("expiry ended early", detail=report.stopped, hint="The next one goes on from there.")
        return report.plan.refusal

    def _note(self, report: ExpiryReport) -> None:
        removed = report.removed
        text = report.plan.refusal or (
            f"removed {counted(len(report.backups), 'backup')}, {counted(removed.objects, 'object')}, "
            f"{removed.bytes} bytes"
        )
        if removed.retained:
            text += f"; the store keeps {counted(removed.retained, 'object')}, first {removed.first_retained}"
            _log.warning("expiry removed less than it would: %s (%s)", text, removed.why_retained)
        with self._lock:
            self._refusal = (report.plan.refusal, report.plan.hint) if report.plan.refusal else None
            self._ended = self._ended if report.stopped else datetime.now(UTC)
            self._last_run = LastRun(datetime.now(UTC), not report.plan.refusal and not report.stopped, text)
