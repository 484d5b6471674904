"""Watches the replication slot: it must not take the database down.

Warns, then alarms, and where the operator has set a limit it drops the slot: loudly, because WAL that was not shipped
by then is lost. The stream lets go of the slot first, and makes a new one when it can stream again; what is missing
then is recorded as a gap, and a base backup follows at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.slot_forecast import SlotSample, SlotSeries, should_drop, slot_findings
from pgbackup.errors import PgbackupError
from pgbackup.postgres.session import Session
from pgbackup.postgres.slot_watch import look_at_slot

_log = logging.getLogger(__name__)

LetGo = Callable[[], AbstractContextManager[object]]
"""While its block runs, the WAL stream does not use the slot."""


class SlotGuard:
    """``look`` is called by the health check; ``sample`` is what it saw last."""

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
        self._lock = threading.Lock()
        self._sample: SlotSample | None = None
        self._dropped = ""

    @property
    def sample(self) -> SlotSample | None:
        with self._lock:
            return self._sample

    def look(self) -> list[Finding]:
        """Look, act where the limit says so, and say what is wrong. A server that does not answer is told by others."""
        try:
            with self._open_session() as session:
                sample = look_at_slot(session, self._slot)
                if should_drop(sample, self._limit):
                    self._drop(session, sample)
                    sample = look_at_slot(session, self._slot)
        except PgbackupError as exc:
            _log.debug("the slot could not be looked at: %s", exc)
            with self._lock:
                self._sample = None
            return []
        with self._lock:
            self._sample = sample
        if sample.exists:
            self._dropped = ""
        findings = list(slot_findings(sample, self._series.add(sample), self._limit))
        return [self._dropped_finding()] if self._dropped and not sample.exists else findings

    def _drop(self, session: Session, sample: SlotSample) -> None:
        numbers = f"it held back {sample.retained_bytes} bytes of WAL, PGBACKUP_SLOT_MAX_RETAINED is {self._limit}"
        _log.error("dropping replication slot %s: %s", self._slot, numbers)
        with self._let_go():
            session.drop_slot(self._slot)
        self._dropped = numbers

    def _dropped_finding(self) -> Finding:
        return Finding(
            "slot:dropped",
            Severity.CRITICAL,
            f"the replication slot was dropped to save the server: {self._dropped}",
            "Mend what keeps WAL from being shipped; streaming goes on by itself, with a gap and a new base backup.",
        )
