"""What a restore of a backup that another tool made reads: the backups of its chain, and the files of each.

WAL-G's lists of files say which backup of a chain has which file, and what a backup must bring; they are read, and
compared with each other, before anything is written. WAL-E has no list, and a full backup of WAL-G may have none: then
everything in the tars is restored, and nobody can say whether something is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from pgbackup.core.backup import CONTROL_FILE, Backup
from pgbackup.core.backup_chain import BrokenChain
from pgbackup.core.catalog import Catalog
from pgbackup.count_text import counted
from pgbackup.engines.restore.fetched import is_removed
from pgbackup.engines.restore.objects import BackupObjects
from pgbackup.errors import CorruptObject, ObjectMissing, RestoreError
from pgbackup.repository import keys
from pgbackup.repository.walg_file_table import Part, WalgFileTable
from pgbackup.repository.walg_files import iter_listed_files
from pgbackup.storage.base import ObjectStore

_NAMED = 3


class FilesOfOne:
    """The files of one backup of a chain, for DataFiles; see its Selection."""

    def __init__(self, table: WalgFileTable, level: int) -> None:
        self._table = table
        self._level = level

    def take(self, key: str, name: str) -> Part:
        return self._table.take(self._level, key, name)

    def bring(self, name: str) -> None:
        self._table.bring(self._level, name)

    def give_back(self, names: Sequence[str]) -> None:
        self._table.give_back(self._level, names)


@dataclass(frozen=True, slots=True)
class Link:
    """One backup of a chain: its objects, and which of their files are wanted (None: all)."""

    backup: Backup
    objects: BackupObjects
    files: FilesOfOne | None


class BackupChain:
    """The backups that one restore reads, oldest first; close it, or use it as a context."""

    def __init__(self, links: tuple[Link, ...], table: WalgFileTable | None) -> None:
        self.links = links
        self._table = table

    @classmethod
    def load(cls, store: ObjectStore, catalog: Catalog, backup: Backup) -> Self:
        """List the objects, read the lists, compare them. Raises RestoreError, CorruptObject, what the store raises."""
        try:
            chain = catalog.chain(backup)
        except BrokenChain as exc:
            raise RestoreError(f"backup {backup.name} cannot be restored", detail=str(exc)) from exc
        objects = [BackupObjects.find(store, each) for each in chain]
        if backup.engine != "wal-g":
            return cls((Link(backup, objects[-1], None),), None)
        with ExitStack() as stack:
            table = stack.enter_context(WalgFileTable())
            load_lists(store, table, chain)
            table.choose(len(chain) - 1)
            has_lists = len(chain) > 1 or table.has_list(0)
            links = tuple(
                Link(each, found, FilesOfOne(table, level) if has_lists else None)
                for level, (each, found) in enumerate(zip(chain, objects, strict=True))
            )
            stack.pop_all()
            return cls(links, table)

    @property
    def stored_bytes(self) -> int:
        return sum(link.objects.stored_bytes for link in self.links)

    @property
    def raw_bytes(self) -> int:
        """What the tars hold, all together."""
        return sum(link.backup.raw_bytes for link in self.links)

    @property
    def data_bytes(self) -> int:
        """What the data directory needs: as the newest backup says, else all of the tars."""
        return self.links[-1].backup.data_bytes or self.raw_bytes

    def keys_of(self, link: Link) -> tuple[str, ...]:
        """The objects that come after a backup's parts: those of a parent hold nothing that is wanted."""
        return link.objects.last if link is self.links[-1] else ()

    def check_complete(self, level: int) -> None:
        """Everything that a restore takes from a backup was brought. Raises CorruptObject."""
        if self._table is None:
            return
        missing = list(self._table.missing(level))
        if missing:
            names = ", ".join(missing[:_NAMED])
            raise CorruptObject(
                self._table.key(level) or keys.tar_folder(self.links[level].backup.name),
                f"it lists {counted(len(missing), 'file')} that no object of the backup brought: {names}",
                hint="Restore another backup, and run `pgbackup verify` on this one.",
            )

    def check_fetched(self, directory: Path) -> list[str]:
        """Everything that the newest backup lists was put down by another program, which may have left it out in
        silence. Returns what could not be checked, for people. Raises RestoreError."""
        level = len(self.links) - 1
        if self._table is None or not self._table.has_list(level):
            return ["the backup has no list of its files: whether all of them are there could not be checked"]
        names = (name for name in self._table.names(level) if name != CONTROL_FILE and not is_removed(name))
        missing = list(islice((name for name in names if not os.path.lexists(directory / name)), _NAMED))
        if missing:
            raise RestoreError(
                f"the tool put down backup {self.links[-1].backup.name} without {', '.join(missing)}",
                detail=f"{self._table.key(level)} lists what is not there",
                hint="PGBACKUP_ENGINE=native restores the same backup without the tool.",
            )
        return []

    def notes(self, member_bytes: int) -> list[str]:
        """What could not be checked, for people. ``member_bytes``: the content of all files that were read."""
        backup = self.links[-1].backup
        if backup.engine == "wal-e" and member_bytes < backup.raw_bytes:
            return [
                f"the backup's files have {member_bytes} bytes, its sentinel says {backup.raw_bytes}: files vanished "
                "while it was taken, or its last parts are missing"
            ]
        if backup.engine == "wal-g" and not (self._table and self._table.has_list(len(self.links) - 1)):
            return ["the backup has no list of its files: whether all of them are there could not be checked"]
        return []

    def close(self) -> None:
        if self._table is not None:
            self._table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_lists(store: ObjectStore, table: WalgFileTable, chain: Sequence[Backup]) -> None:
    """Read the list of each backup of a chain. Raises CorruptObject, also for a delta that has none."""
    for level, backup in enumerate(chain):
        for key in (keys.files_metadata(backup.name), keys.sentinel(backup.name)):
            # Before version 1 of WAL-G the list was in the sentinel.
            try:
                with store.open_read(key) as stream:
                    found = table.load(level, key, iter_listed_files(key, stream))
            except ObjectMissing:
                continue
            if found:
                break
        if level and not table.has_list(level):
            raise CorruptObject(
                keys.files_metadata(backup.name),
                "it is missing or empty, and without it nobody knows what a delta backup holds",
                hint="Restore another one, with --backup.",
            )
