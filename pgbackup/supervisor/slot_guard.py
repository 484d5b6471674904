"""Watches the replication slot: it must not take the database down.

Warns, then alarms, and where the operator has set a limit it drops the slot: loudly, because WAL that was not shipped
by then is lost. The stream lets go of the slot first (one that hangs has its connection ended), and makes a new one
when it can stream again; what is missing then is recorded as a gap, and a base backup follows at once.

Beside the slot it watches pg_wal, which others can fill: what fills it is named.

It is a worker of its own, because the health check may have to wait for a store that hangs, and then the slot grows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.growth import GrowthSeries
from pgbackup.core.pg_wal import pg_wal_findings
from pgbackup.core.slot_forecast import SlotSample, SlotSeries, should_drop, slot_findings
from pgbackup.engines.base import StopSignal
from pgbackup.errors import PgbackupError, SlotBusy
from pgbackup.postgres.pg_wal_watch import look_at_pg_wal
from pgbackup.postgres.session import Session
from pgbackup.postgres.slot_watch import look_at_slot

_LONGEST_INTERVAL_SECONDS = 15.0
_MISSING_SECONDS = 1.0
_TOLD_SECONDS = 900.0
"""That a slot was dropped is told for so long, also when there is a new one at once."""
_TRIES = 10
_TRY_SECONDS = 0.5
_log = logging.getLogger(__name__)

LetGo = Callable[[], AbstractContextManager[object]]
"""While its block runs, the WAL stream does not use the slot."""


class SlotGuard:
    """``run`` is a worker that looks; ``findings`` and ``sample`` are what it saw last."""

    def __init__(
        self,
        open_session: Callable[[], Session],
        slot: str,
        *,
        let_go: LetGo = nullcontext,
        limit_bytes: int | None = None,
    ) -> None:
        self._open_session = open_session
        self._slot = slot
        self._let_go = let_go
        self._limit = limit_bytes
        self._series = SlotSeries()
        self._pg_wal = GrowthSeries()
        self._lock = threading.Lock()
        self._sample: SlotSample | None = None
        self._dropped = ""
        self._dropped_at = 0.0
        self._findings: list[Finding] = []

    def run(self, stop: StopSignal, interval_seconds: float) -> None:
        """Look until ``stop`` is set, at least every quarter of a minute."""
        while not stop.is_set():
            self.look()
            sample = self.sample
            # At the first start it is made in a moment, and that it is missing would be told until the next look.
            is_missing = sample is not None and not sample.exists
            stop.wait(_MISSING_SECONDS if is_missing else min(interval_seconds, _LONGEST_INTERVAL_SECONDS))

    def findings(self) -> list[Finding]:
        """What was wrong at the last look."""
        with self._lock:
            return list(self._findings)

    def urgent(self) -> list[Finding]:
        """What is told at once: the health check may wait for a store that hangs while the disk fills. A slot that is
        missing is made again in a moment, or its absence is told with the rest."""
        return [f for f in self.findings() if f.severity is Severity.CRITICAL and f.key != "slot:missing"]

    @property
    def sample(self) -> SlotSample | None:
        with self._lock:
            return self._sample

    def look(self) -> list[Finding]:
        """Look, act where the limit says so, and say what is wrong. A server that does not answer is told by others."""
        before = self.sample
        try:
            with self._open_session() as session:
                sample = look_at_slot(session, self._slot)
                problem = self._drop(session, sample) if should_drop(sample, self._limit, before) else ""
                if self._dropped and sample.exists and not problem:
                    sample = look_at_slot(session, self._slot)
                pg_wal = self._look_at_pg_wal(session, sample)
        except PgbackupError as exc:
            _log.debug("the slot could not be looked at: %s", exc)
            with self._lock:
                self._sample, self._findings = None, []
            return []
        findings = list(slot_findings(sample, self._series.add(sample), self._limit))
        if self._dropped and (not sample.exists or time.monotonic() - self._dropped_at < _TOLD_SECONDS):
            findings = [_dropped_finding(self._dropped), *(f for f in findings if f.key != "slot:missing")]
        if problem:
            findings.append(_not_dropped_finding(problem))
        findings += pg_wal
        with self._lock:
            self._sample, self._findings = sample, findings
        return list(findings)

    def _look_at_pg_wal(self, session: Session, sample: SlotSample) -> list[Finding]:
        try:
            seen = look_at_pg_wal(session, self._slot, sample)
        except PgbackupError as exc:
            _log.debug("pg_wal could not be looked at: %s", exc)
            return []
        return list(pg_wal_findings(seen, self._pg_wal.add(seen.moment, seen.wal_bytes)))

    def _drop(self, session: Session, sample: SlotSample) -> str:
        """Drop it. Returns why that did not work."""
        numbers = f"it held back {sample.retained_bytes} bytes of WAL, PGBACKUP_SLOT_MAX_RETAINED is {self._limit}"
        _log.error("dropping replication slot %s: %s", self._slot, numbers)
        try:
            with self._let_go():
                session.drop_slot(self._slot)
        except PgbackupError as exc:
            _log.warning("ending the connection that holds replication slot %s: %s", self._slot, exc)
            try:
                self._drop_by_force(session)
            except PgbackupError as refusal:
                _log.error("replication slot %s could not be dropped: %s", self._slot, refusal)
                return f"{numbers}; {refusal}"
        self._dropped, self._dropped_at = numbers, time.monotonic()
        return ""

    def _drop_by_force(self, session: Session) -> None:
        """Raises the last try's error.

        A sender whose peer does not read needs to be told again: its first end waits to say goodbye.
        """
        for left in reversed(range(_TRIES)):
            session.end_slot_holder(self._slot)
            try:
                session.drop_slot(self._slot)
                return
            except SlotBusy:
                if not left:
                    raise
                time.sleep(_TRY_SECONDS)


def _dropped_finding(numbers: str) -> Finding:
    return Finding(
        "slot:dropped",
        Severity.CRITICAL,
        f"the replication slot was dropped to save the server: {numbers}",
        "Mend what keeps WAL from being shipped; streaming goes on by itself, with a gap and a new base backup.",
    )


def _not_dropped_finding(problem: str) -> Finding:
    return Finding(
        "slot:not-dropped",
        Severity.CRITICAL,
        f"the replication slot should be dropped to save the server, and cannot be: {problem}",
        "Drop it by hand: end the connection in pg_replication_slots.active_pid, then pg_drop_replication_slot().",
    )
