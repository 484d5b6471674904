"""Find the record at which a recovery will stop, by reading WAL out of the repository.

A time is found by bisection over the segments, an LSN in the segment that holds it. A transaction or a restore point
can be anywhere, so the newest stretch (from one backup to the next) is read first. Nothing is kept of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn
from pgbackup.core.recovery_choice import candidates, ended_before, marks_on
from pgbackup.core.recovery_evidence import Evidence, StopRecord
from pgbackup.core.recovery_path import WalFile, wal_path
from pgbackup.core.recovery_target import Target
from pgbackup.core.timeline import TimelineHistory
from pgbackup.core.wal_records import WalEvent, WalScanner
from pgbackup.engines.base import ProgressSink, SilentProgress
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import CorruptObject

Wanted = Callable[[WalEvent], bool]
_NAMESAKES = 4
"""Restore points of one name that are told."""


@dataclass
class RestoreScan:
    """Looks for targets on one path. Raises what reading raises."""

    catalog: Catalog
    history: TimelineHistory
    by_name: Backup | None
    reader: WalReader
    progress: ProgressSink = field(default_factory=SilentProgress)

    def evidence(self, target: Target) -> Evidence | None:
        """What the WAL says about a target; None where it has nothing to say, and planning must refuse or go on."""
        if target.lsn is not None:
            return self._for_lsn(target.lsn)
        backups = candidates(self.catalog, self.history, self.by_name)
        if target.time is not None:
            return self._for_time(target, target.time, backups)
        if target.kind in ("xid", "name"):
            return self._for_record(target, backups)
        return None

    # -- an LSN -------------------------------------------------------------------------------------------------------

    def _for_lsn(self, lsn: Lsn) -> Evidence | None:
        files = wal_path(self.catalog, lsn, self.history).files
        if not files:
            return None
        scanner = WalScanner(not_before=lsn)
        for _ in self._events(scanner, files, until=lambda: scanner.stop is not None):
            pass
        stop = StopRecord(*scanner.stop) if scanner.stop is not None else None
        return Evidence(stop, scanner.last_record)

    # -- a time -------------------------------------------------------------------------------------------------------

    def _for_time(self, target: Target, moment: datetime, backups: list[Backup]) -> Evidence | None:
        before = ended_before(backups, moment, marks_on(self.catalog, self.history))
        if not before:
            return None
        files = wal_path(self.catalog, before[0].start_lsn, self.history).files
        if not files:
            return None

        def is_late(event: WalEvent) -> bool:
            if event.kind not in ("commit", "abort") or event.time is None:
                return False
            return event.time >= moment if target.exclusive else event.time > moment

        first = self._bisect(files, is_late)
        found, _, _ = self._scan(files[first:], is_late)
        if found is not None:
            return Evidence(StopRecord(found.start, found.end, found.time))
        return self._of_the_end(files)

    def _bisect(self, files: Sequence[WalFile], is_late: Wanted) -> int:
        """The index of a file before which nothing is late, as near as transactions tell."""
        low, high = 0, len(files)
        while high - low > 1:
            middle = (low + high) // 2
            late, next_index = self._first_is_late(files, middle, high, is_late)
            if late is None or late:
                high = middle
            else:
                low = max(middle, next_index)
        return low

    def _first_is_late(
        self, files: Sequence[WalFile], index: int, end: int, is_late: Wanted
    ) -> tuple[bool | None, int]:
        """Whether the first transaction that ends in a file is late, and in which file that is; None without any."""
        for number in range(index, end):
            event, _, _ = self._scan(files[number : number + 1], lambda event: event.kind in ("commit", "abort"))
            if event is not None:
                return is_late(event), number
        return None, end

    def _of_the_end(self, files: Sequence[WalFile]) -> Evidence:
        """Nothing was found: where the archive's last record is, and when its last transaction ended."""
        last_record: Lsn | None = None
        for count in range(1, len(files) + 1):
            _, scanner, last = self._scan(files[-count:], lambda _: False)
            last_record = last_record or scanner.last_record
            if last is not None or (last_record is not None and count == 2):
                return Evidence(None, last_record, last)
        return Evidence(None, last_record)

    # -- a transaction, a restore point -------------------------------------------------------------------------------

    def _for_record(self, target: Target, backups: list[Backup]) -> Evidence | None:
        if not backups:
            return None

        def is_target(event: WalEvent) -> bool:
            if target.xid is not None:
                return event.xid == target.xid and event.kind in ("commit", "abort")
            return event.kind == "restore point" and event.name == target.name

        newer: Lsn | None = None
        for backup in backups:
            files = list(wal_path(self.catalog, backup.start_lsn, self.history).files)
            if newer is not None:
                # One file more: a record may run on from the last one.
                files = [file for file in files if file.segment.start <= newer]
            if found := self._stops(files, is_target, 1 if target.xid is not None else _NAMESAKES):
                return Evidence(found[0], others=tuple(found[1:]))
            newer = backup.start_lsn
        newest = wal_path(self.catalog, backups[0].start_lsn, self.history).files
        return self._of_the_end(newest)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _scan(self, files: Sequence[WalFile], wanted: Wanted) -> tuple[WalEvent | None, WalScanner, datetime | None]:
        """The first wanted event of consecutive files; the scanner; when the last transaction before it ended."""
        scanner = WalScanner()
        last: datetime | None = None
        for event in self._events(scanner, files, until=lambda: False):
            if wanted(event):
                return event, scanner, last
            if event.kind in ("commit", "abort"):
                last = event.time
        return None, scanner, last

    def _stops(self, files: Sequence[WalFile], wanted: Wanted, most: int) -> list[StopRecord]:
        """The first wanted events of consecutive files, as many as are asked for."""
        found: list[StopRecord] = []
        for event in self._events(WalScanner(), files, until=lambda: len(found) >= most):
            if wanted(event) and len(found) < most:
                found.append(StopRecord(event.start, event.end, event.time))
        return found

    def _events(self, scanner: WalScanner, files: Sequence[WalFile], until: Callable[[], bool]) -> Iterator[WalEvent]:
        for file in files:
            for offset, block in self.reader.pages(file):
                self.progress.advance(len(block))
                try:
                    yield from scanner.feed(block, Lsn(file.segment.start + offset))
                except ValueError as exc:
                    raise CorruptObject(str(file.segment), str(exc)) from exc
                if scanner.stopped or until():
                    break
            if until():
                return
