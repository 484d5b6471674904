"""The scheduled verification: the newest backup and its WAL are read back, and what came of it is recorded. What an
earlier one found damaged is read again with it, until it is whole or gone.

The record lies in the repository, so health shows it wherever it is asked, and the schedule goes on from it after a
restart. Damage is recorded and becomes a finding; a store that does not answer is an error, and tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.health_backups import first_done
from pgbackup.core.health_facts import LastRun
from pgbackup.engines.backup.intent import store_clock
from pgbackup.engines.base import SilentProgress, StopSignal
from pgbackup.engines.verify.verify import VerifyReport, choose_backup, verify_backup
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.health_look import read_last_run, write_last_run

_CLOCK_DOUBT = timedelta(minutes=10)
_log = logging.getLogger(__name__)


class VerifyJob:
    """The parts of a ScheduledJob."""

    def __init__(self, store: ObjectStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec

    def last_done(self) -> datetime | None:
        """When the last verification ended; a repository without backups counts as verified now.

        One that a wrong clock has put into the future was at some time that nobody knows.
        """
        run = read_last_run(self._store, keys.VERIFICATION)
        if run is not None and run.finished <= datetime.now(UTC) + _CLOCK_DOUBT:
            return run.finished
        # The first one is due a period of the schedule after the first backup, not at once.
        return first_done(
            read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False).backups, datetime.now(UTC)
        )

    def work(self, stop: StopSignal) -> str:
        """Verify and record; returns the damage it found."""
        began = store_clock(self._store)
        catalog = read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False)
        if not catalog.backups:
            return ""
        backup = choose_backup(catalog, None)
        report = self._verify(catalog, backup, stop)
        known = read_last_run(self._store, keys.VERIFICATION)
        in_doubt = [each for each in _those_of(catalog, known.damaged if known else ()) if each is not backup]
        damaged = [each.name for each in in_doubt]
        whole = {each.name: known.whole[each.name] for each in _those_of(catalog, known.whole)} if known else {}
        if report.ok:
            whole[backup.name] = began
        else:
            whole.pop(backup.name, None)
            damaged.append(backup.name)
        self._record(report, began, damaged, whole)
        for each in in_doubt:
            if self._verify(catalog, each, stop).ok:
                damaged.remove(each.name)
                whole[each.name] = began
                self._record(report, began, damaged, whole)
        return "" if report.ok else _summary(report)

    def _record(
        self, report: VerifyReport, began: datetime, damaged: Iterable[str], whole: Mapping[str, datetime]
    ) -> None:
        run = LastRun(store_clock(self._store), report.ok, _summary(report), tuple(damaged), began, whole)
        write_last_run(self._store, keys.VERIFICATION, run)

    def _verify(self, catalog: Catalog, backup: Backup, stop: StopSignal) -> VerifyReport:
        _log.info("verifying backup %s", backup.name)
        report = verify_backup(self._store, self._codec, catalog, backup, progress=SilentProgress(), stop=stop)
        level = logging.INFO if report.ok else logging.ERROR
        _log.log(level, "verified backup %s: %s", backup.name, _summary(report))
        return report


def _those_of(catalog: Catalog, names: Iterable[str]) -> list[Backup]:
    """The backups with these names that are still there. Of the damaged ones: that the newest is whole says nothing of
    them."""
    return [found for name in dict.fromkeys(names) if (found := catalog.backup(name)) is not None]


def _summary(report: VerifyReport) -> str:
    read = f"{report.objects} objects, {report.files} files, {report.segments} WAL segments"
    if report.ok:
        return f"backup {report.backup} is whole ({read})"
    first = report.findings[0]
    return f"backup {report.backup}: {report.findings_total} findings, first {first.object}: {first.problem}"
