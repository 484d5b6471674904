"""The files that a backup must have, as its own manifest lists them; each is taken out as a tar brings it.

Memory: the table goes to disk when there are many files. Safe for threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pgbackup.core.backup import Backup
from pgbackup.count_text import counted
from pgbackup.errors import CorruptObject
from pgbackup.repository.checksum_table import ChecksumTable, FileEntry
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import iter_files_metadata
from pgbackup.repository.manifest import FileChecksum, ManifestFile, ManifestReader
from pgbackup.repository.tar_split import is_dropped
from pgbackup.storage.base import ObjectStore

_REPLACED = "\N{REPLACEMENT CHARACTER}"


class ExpectedFiles:
    """Empty and not ``known`` until ``load`` has read a manifest that is whole and of this backup."""

    def __init__(self) -> None:
        self.known = False
        self._table = ChecksumTable()
        self._not_text = 0
        self._lock = threading.Lock()

    def load(self, store: ObjectStore, codec: Codec, key: str, backup: Backup) -> None:
        """Raises CorruptObject, ObjectMissing and what the store raises; then nothing is known."""
        table, not_text = ChecksumTable(), 0
        try:
            with store.open_read(key) as source:
                reader = ManifestReader(key, codec.open(key, source))
                for file in reader:
                    if not is_dropped(file.path):
                        table.add(_entry(key, file))
                        not_text += not _is_text(file.path)
            _check_backup(key, reader, backup)
        except BaseException:
            table.close()
            raise
        self._table, self._not_text, self.known = table, not_text, True

    def check_list(self, store: ObjectStore, key: str) -> None:
        """WAL-G restores what this list names and nothing else: it must name every file of the manifest.

        A name that is not UTF-8 is in a list only with its odd bytes replaced, so as many such names are let pass as
        the manifest has. Raises CorruptObject when it does not, ObjectMissing, and what the store raises.
        """
        count, replaced = 0, 0
        with store.open_read(key) as source:
            for path in iter_files_metadata(key, source):
                count += 1
                if not self.known or self._table.get(path) is not None:
                    continue
                replaced += 1
                if _REPLACED not in path or replaced > self._not_text:
                    raise CorruptObject(key, f"it lists the file {path!r}, which the manifest does not")
        if self.known and count != len(self._table):
            raise CorruptObject(key, f"it lists {counted(count, 'file')}, the manifest {len(self._table)}")

    def take(self, path: str) -> ManifestFile | None:
        """What the manifest says of a file; None for one that it does not list, or that was taken before."""
        with self._lock:
            entry = self._table.pop(path)
        if entry is None:
            return None
        algorithm, _, checksum = entry.checksum.partition(":")
        return ManifestFile(path, entry.size_bytes, algorithm, checksum)

    def left(self) -> int:
        """How many files nobody has taken."""
        return len(self._table)

    def left_paths(self) -> Iterator[str]:
        return (entry.path for entry in self._table)

    def close(self) -> None:
        self._table.close()


def _entry(key: str, file: ManifestFile) -> FileEntry:
    try:
        FileChecksum(file.checksum_algorithm)
    except ValueError as exc:
        raise CorruptObject(key, str(exc)) from exc
    return FileEntry(file.path, file.size_bytes, f"{file.checksum_algorithm}:{file.checksum}")


def _is_text(path: str) -> bool:
    """Whether a path is valid UTF-8; bytes that are not are kept as surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_backup(key: str, reader: ManifestReader, backup: Backup) -> None:
    """A manifest says which WAL its backup needs, and from PostgreSQL 17 on of which cluster it is."""
    if reader.system_identifier not in (None, backup.system_identifier):
        raise CorruptObject(key, f"it is of another cluster, {reader.system_identifier}")
    if reader.wal_ranges:
        start, end = min(r.start for r in reader.wal_ranges), max(r.end for r in reader.wal_ranges)
        if backup.stop_lsn and (start, end) != (backup.start_lsn, backup.stop_lsn):
            raise CorruptObject(
                key, f"it is of a backup from {start} to {end} instead of {backup.start_lsn} to {backup.stop_lsn}"
            )
