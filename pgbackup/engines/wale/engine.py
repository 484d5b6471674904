"""The engine that drives `wal-e` or `wal-g`."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.retention import ExpiryPlan
from pgbackup.core.tool_delete import oldest_to_keep
from pgbackup.count_text import counted
from pgbackup.engines.backup.base_backup import BackupResult
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.server import ServerLook
from pgbackup.engines.port import BackupOrder
from pgbackup.engines.wal.push import WalFileToPush, claim_for
from pgbackup.engines.wale.base_backup import LONGEST_SECONDS, ToolBackup, leave_backup_mode_of, take_tool_backup
from pgbackup.engines.wale.check import ToolCheck
from pgbackup.engines.wale.shipping import ToolShipping
from pgbackup.engines.wale.spool import Spool
from pgbackup.engines.wale.stall import StallWatch
from pgbackup.engines.wale.tool_processes import end_orphaned, end_own, own_children
from pgbackup.engines.wale.wal_reader import ToolWalReader
from pgbackup.errors import RestoreError, ToolError
from pgbackup.storage.base import ObjectStore

_DELETE_SECONDS = 3600.0
_FETCH_LOOK_SECONDS = 30.0
_log = logging.getLogger(__name__)


class ToolEngine:
    """Implements the Engine port. ``wal_concurrency``: segments pushed at once, which bounds the spool."""

    def __init__(self, how: ToolBackup, *, wal_concurrency: int, spool_parent: Path | None = None) -> None:
        self._how = how
        self._wal_concurrency = wal_concurrency
        self._spool_parent = spool_parent
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._orphans_ended = False

    @property
    def name(self) -> str:
        return self._how.driver.dialect.name

    def shipping(self, store: ObjectStore) -> ToolShipping:
        how = self._how
        return ToolShipping(
            how.driver, store, how.codec, self._spooled(), concurrency=self._wal_concurrency, settle=how.settle
        )

    def take_backup(self, order: BackupOrder, progress: ProgressSink, stop: StopSignal) -> BackupResult:
        self._end_orphans()
        return take_tool_backup(self._how, order, progress, stop)

    def push_file(self, store: ObjectStore, file: WalFileToPush) -> None:
        claim_for(store, self._how.codec, file)
        beside = file.pieces_beside(store, self._how.codec)
        if beside is not None:
            beside.compare()
        spooled = self._spooled().new(file.name)
        try:
            for block in file.blocks():
                spooled.write(block)
            spooled.complete()
            shipped = self.shipping(store).ship(spooled, threading.Event())
        finally:
            spooled.remove()
        if shipped is not None and beside is not None:
            beside.compare_again()

    def wal_reader(self, store: ObjectStore, *, system_identifier: int | None) -> ToolWalReader:
        how = self._how
        return ToolWalReader(store, how.codec, how.driver, self._spooled(), system_identifier=system_identifier)

    def fetch_files(self, backup: Backup, target: Path, threads: int) -> bool:
        readable = ("wal-e",) if self.name == "wal-e" else ("wal-e", "wal-g")
        if backup.engine not in readable:
            _log.info("backup %s is not %s's: pgbackup unpacks it itself", backup.name, self.name)
            return False
        if backup.tablespaces:
            raise RestoreError(
                f"backup {backup.name} has tablespaces, which {self.name} would put where they lay on its server",
                hint="Restore with PGBACKUP_ENGINE=native, which reads the same archive and maps tablespaces.",
            )
        self._how.driver.require_programs()
        words = self._how.driver.dialect.backup_fetch(target, backup.name, threads)
        watch = StallWatch(lambda: _size_of(target), self._stands_still, look_seconds=_FETCH_LOOK_SECONDS)
        self._how.driver.call(words, timeout_seconds=LONGEST_SECONDS, watch=watch.look)
        return True

    def _stands_still(self, why: str) -> ToolError:
        return ToolError(
            f"{self.name} backup-fetch printed and wrote nothing: it {why}",
            hint="See whether the store answers; PGBACKUP_ENGINE=native restores the same backup without the tool.",
        )

    def remove(self, plan: ExpiryPlan, catalog: Catalog) -> bool:
        oldest = oldest_to_keep(plan, catalog)
        readable = ("wal-e",) if self.name == "wal-e" else ("wal-e", "wal-g", "pgbackup")
        if oldest is None or any(verdict.backup.engine not in readable for verdict in plan.backups):
            return False
        try:
            self._how.driver.call(self._how.driver.dialect.delete_before(oldest.name), timeout_seconds=_DELETE_SECONDS)
        except ToolError as exc:
            _log.warning("%s could not delete, pgbackup does it itself: %s", self.name, exc)
        return True

    def check(self, report: CheckReport, found: ServerLook | None) -> None:
        ToolCheck(self._how).run(report, found)

    def close(self) -> None:
        """End what still runs, and remove the spool."""
        if own_children() and (ended := end_own()):
            _log.warning("ended %s of %s that did not end in time", counted(ended, "process"), self.name)
        with self._lock:
            if self._spool is not None:
                self._spool.close()
                self._spool = None

    def _spooled(self) -> Spool:
        with self._lock:
            if self._spool is None:
                self._end_orphans()
                self._spool = Spool(self._spool_parent)
            return self._spool

    def _end_orphans(self) -> None:
        """What a pgbackup that was killed left running would write beside ours, and may hang for ever."""
        if self._orphans_ended:
            return
        self._orphans_ended = True
        if ended := end_orphaned():
            _log.warning("ended %s that a killed pgbackup had left running", counted(len(ended), "process"))
            leave_backup_mode_of(self._how, ended)


def _size_of(folder: Path) -> int:
    """Bytes below a directory that somebody is filling."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(path) / name).lstat().st_size
    return total
