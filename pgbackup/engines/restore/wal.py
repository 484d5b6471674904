"""Put the WAL that a plan needs into the data directory, in a folder of its own from which ``cp`` fetches it.

``staged``: every file of the plan, whole segments as they are, the tail filled up with zeros, and all history files, so
that a server without pgbackup can recover and chooses a timeline number that is free. ``on demand``: only the plan as
a document, for ``wal-fetch --tail``.
"""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.recovery_path import WalFile
from pgbackup.core.recovery_plan import RecoveryPlan
from pgbackup.core.timeline import Ancestor, TimelineHistory, history_name
from pgbackup.core.wal_page import PAGE_BYTES
from pgbackup.core.wal_tablespaces import CreatedTablespace, TablespaceFinder
from pgbackup.engines.base import ProgressSink
from pgbackup.engines.restore.disk_error import disk_error
from pgbackup.engines.restore.sync import PUSH_BYTES, push_out, write_all
from pgbackup.engines.wal.read import WalReader
from pgbackup.engines.wal.records_check import RecordsCheck, record_crc
from pgbackup.errors import CorruptObject, NotInArchive, RestoreError
from pgbackup.postgres.data_directory import Owner, make_directory, write_file

FOLDER = "pgbackup_wal"
PLAN_NAME = "recovery.json"
_CHECKED_BYTES = 8 << 20


class WalStager:
    """Writes the WAL folder of one restore."""

    def __init__(self, reader: WalReader, directory: Path, owner: Owner | None, progress: ProgressSink) -> None:
        self._reader = reader
        self._folder = directory / FOLDER
        self._owner = owner
        self._progress = progress
        self._failed = threading.Event()
        self._created: set[CreatedTablespace] = set()

    def stage(self, plan: RecoveryPlan, *, threads: int) -> None:
        """Write all files of a plan. Raises CorruptObject, RestoreError and what the store raises."""
        make_directory(self._folder, self._owner)
        self._write_histories(plan)
        with ThreadPoolExecutor(threads, thread_name_prefix="stage-wal") as pool:
            for done in [pool.submit(self._write_or_stop, file) for file in plan.wal]:
                done.result()
        self._search_borders(plan)
        if self._reader.unproven:
            self._check_records(plan)

    def created(self, plan: RecoveryPlan) -> list[CreatedTablespace]:
        """The tablespaces that recovery will create, of the WAL that was staged: the first segment begins before it."""
        replayed = (each for each in self._created if plan.backup.start_lsn <= each.lsn < plan.end)
        return sorted(replayed, key=lambda each: each.lsn)

    def _search_borders(self, plan: RecoveryPlan) -> None:
        """A record may run on from one segment into the next."""
        for left, right in pairwise(plan.wal):
            finder = TablespaceFinder(record_crc)
            for file, offset in ((left, left.segment.segment_bytes - PAGE_BYTES), (right, 0)):
                with (self._folder / str(file.segment)).open("rb") as stream:
                    stream.seek(offset)
                    page = stream.read(PAGE_BYTES)
                self._created.update(finder.feed(page, Lsn(file.segment.start + offset)))

    def _check_records(self, plan: RecoveryPlan) -> None:
        """Plain WAL: recovery would end without a word at the first damaged record, so look at each of them now."""
        records = RecordsCheck()
        for file in plan.wal:
            records.begin(file.segment)
            with (self._folder / str(file.segment)).open("rb") as stream:
                try:
                    for offset in range(0, file.used_bytes, _CHECKED_BYTES):
                        records.feed(stream.read(min(_CHECKED_BYTES, file.used_bytes - offset)))
                    records.end()
                except ValueError as exc:
                    raise CorruptObject(self._reader.key_of(file), str(exc)) from exc

    def write_plan(self, plan: RecoveryPlan) -> None:
        """Write what ``wal-fetch --tail`` has to know."""
        make_directory(self._folder, self._owner)
        self._write_histories(plan)
        write_file(self._folder / PLAN_NAME, json.dumps(FetchPlan.of(plan).document()), self._owner)

    def _write_histories(self, plan: RecoveryPlan) -> None:
        for timeline in plan.histories:
            write_file(self._folder / history_name(timeline), self._reader.history(timeline), self._owner)

    def _write_or_stop(self, file: WalFile) -> None:
        if self._failed.is_set():
            return
        try:
            finder = TablespaceFinder(record_crc)
            self._created.update(
                write_wal_file(self._reader, file, self._folder / str(file.segment), self._owner, finder)
            )
            self._progress.advance(file.segment.segment_bytes)
        except BaseException:
            self._failed.set()
            raise


def write_wal_file(
    reader: WalReader, file: WalFile, path: Path, owner: Owner | None, finder: TablespaceFinder
) -> list[CreatedTablespace]:
    """Write one file of a plan, filled up with zeros to a segment's size; returns what ``finder`` found in it.

    Raises RestoreError when it is not there, or when the disk cannot take it.
    """
    try:
        return _write_wal_file(reader, file, path, owner, finder)
    except OSError as exc:
        raise disk_error(path, exc) from exc


def _write_wal_file(
    reader: WalReader, file: WalFile, path: Path, owner: Owner | None, finder: TablespaceFinder
) -> list[CreatedTablespace]:
    created: list[CreatedTablespace] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if owner is not None:
            owner.take(descriptor)
        written, pushed = 0, 0
        for offset, block in reader.pages(file):
            write_all(descriptor, block)
            created += finder.feed(block, Lsn(file.segment.start + offset))
            written += len(block)
            if written - pushed >= PUSH_BYTES:
                push_out(descriptor, pushed, written)
                pushed = written
        if written < file.used_bytes:
            raise CorruptObject(str(file.segment), f"{written} bytes of it are there, {file.used_bytes} were planned")
        os.ftruncate(descriptor, file.segment.segment_bytes)
        return created
    except NotInArchive as exc:
        raise RestoreError(
            f"WAL segment {file.segment} was there when the restore was planned and is gone now",
            hint="Stop whatever deletes from the repository, and plan again.",
        ) from exc
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What ``wal-fetch --tail`` knows of a plan: the path, where WAL ends, and the one file that is not whole."""

    history: TimelineHistory
    segment_bytes: int
    system_identifier: int
    end: Lsn
    last: WalFile | None

    @classmethod
    def of(cls, plan: RecoveryPlan) -> FetchPlan:
        last = plan.wal[-1] if plan.wal and plan.wal[-1].source != "segment" else None
        size = plan.wal[0].segment.segment_bytes
        end = max((file.end for file in plan.wal), default=plan.end)
        return cls(plan.history, size, plan.backup.system_identifier, end, last)

    def file_for(self, name: SegmentName) -> WalFile | None:
        """The file to serve under a name; None for one that is not of the path."""
        if self.last is not None and name == self.last.segment:
            return self.last
        if self.history.segment_for(name.number, self.segment_bytes) != name:
            return None
        return WalFile(name, "segment", name.segment_bytes)

    def must_have(self, name: SegmentName) -> bool:
        """Whether recovery was planned with this segment, so that it must not be missing.

        Where the parent's segment stands in for the one of a fork, the child's is asked for first and is not there.
        """
        stood_in = self.last is not None and self.last.source == "cut" and self.last.segment.number == name.number
        return name.start < self.end and not (stood_in and self.last is not None and self.last.segment != name)

    def document(self) -> dict[str, object]:
        return {
            "format": 1,
            "timeline": self.history.timeline,
            "ancestors": [[a.timeline, str(a.fork)] for a in self.history.ancestors],
            "segment_bytes": self.segment_bytes,
            "system_identifier": self.system_identifier,
            "end": str(self.end),
            "last": [str(self.last.segment), self.last.source, self.last.used_bytes] if self.last else None,
        }

    @classmethod
    def read(cls, path: Path) -> FetchPlan:
        """Read the document. Raises RestoreError when it is not there or not one."""
        try:
            found = json.loads(path.read_bytes())
            ancestors = tuple(Ancestor(int(timeline), Lsn.parse(fork)) for timeline, fork in found["ancestors"])
            size = int(found["segment_bytes"])
            last = None
            if found["last"] is not None:
                name, source, used = found["last"]
                last = WalFile(SegmentName.parse(name, size), source, int(used))
            history = TimelineHistory(int(found["timeline"]), ancestors)
            return cls(history, size, int(found["system_identifier"]), Lsn.parse(found["end"]), last)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise RestoreError(
                f"the plan of this recovery cannot be read from {path}", detail=str(exc), hint="Restore again."
            ) from exc
