"""The scheduled verification: the newest backup and its WAL are read back, and what came of it is recorded. What an
earlier one found damaged is read again with it, until it is whole or gone.

The record lies in the repository, so health shows it wherever it is asked, and the schedule goes on from it after a
restart. Damage is recorded and becomes a finding; a store that does not answer is an error, and tried again.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.health_backups import first_done
from pgbackup.core.health_facts import LastRun
from pgbackup.engines.base import SilentProgress, StopSignal
from pgbackup.engines.verify.verify import VerifyReport, choose_backup, verify_backup
from pgbackup.errors import CheckFailed
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.repository.verification_note import read_verification
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.verification_record import Begun, begin_verification, is_gone, record_verification, summary_of

_log = logging.getLogger(__name__)


class VerifyJob:
    """The parts of a ScheduledJob."""

    def __init__(self, store: ObjectStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec

    def last_done(self) -> datetime | None:
        """When the last verification ended; a repository without backups counts as verified now."""
        run = read_verification(self._store)
        if run is not None and run.is_past(datetime.now(UTC)):
            return run.finished
        # The first one is due a period of the schedule after the first backup, not at once.
        return first_done(
            read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False).backups, datetime.now(UTC)
        )

    def work(self, stop: StopSignal) -> str:
        """Verify and record; returns the damage it found."""
        begun = begin_verification(self._store)
        catalog = read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False)
        if not catalog.backups:
            return ""
        newest = choose_backup(catalog, None)
        report = self._verify(catalog, newest, stop)
        if is_gone(self._store, report):
            raise CheckFailed(f"backup {newest.name} was removed while it was verified")
        run = record_verification(self._store, catalog, report, begun)
        for backup in _in_doubt(catalog, run):
            if backup is not newest:
                run = self._read_again(catalog, backup, replace(begun, known=run), stop)
        return "" if report.ok else summary_of(report)

    def _read_again(self, catalog: Catalog, backup: Backup, begun: Begun, stop: StopSignal) -> LastRun | None:
        """What is recorded by then."""
        report = self._verify(catalog, backup, stop)
        if is_gone(self._store, report):
            return begun.known
        return record_verification(self._store, catalog, report, begun)

    def _verify(self, catalog: Catalog, backup: Backup, stop: StopSignal) -> VerifyReport:
        _log.info("verifying backup %s", backup.name)
        report = verify_backup(self._store, self._codec, catalog, backup, progress=SilentProgress(), stop=stop)
        level = logging.INFO if report.ok else logging.ERROR
        _log.log(level, "verified backup %s: %s", backup.name, summary_of(report))
        return report


def _in_doubt(catalog: Catalog, run: LastRun | None) -> list[Backup]:
    """What is known to be damaged, and is still there: that the newest one is whole says nothing of it."""
    return [found for name in (run.damaged if run is not None else {}) if (found := catalog.backup(name)) is not None]
