"""The backup's own manifest, as a table that the restore asks for every file.

Postgres wrote it, with its own checksum at the end, so it is the proof of every byte that is restored. A backup of
another tool has none; then only the tars, the compression and the encryption speak for the files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from pgbackup.core.backup import CONTROL_FILE, OID
from pgbackup.count_text import counted
from pgbackup.engines.restore.place import CONTROL_TEMPORARY
from pgbackup.errors import CorruptObject
from pgbackup.repository.checksum_table import ChecksumTable, FileEntry
from pgbackup.repository.codec import Codec
from pgbackup.repository.manifest import FileChecksum, ManifestFile, ManifestReader
from pgbackup.storage.base import ObjectStore

_MISSING_SHOWN = 3


class ManifestTable:
    """Every file of a manifest by its path, in bounded memory. Safe for threads; close it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.bytes_of_tablespace: dict[int, int] = {}
        self.data_bytes = 0
        self._table = ChecksumTable()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, store: ObjectStore, codec: Codec, key: str) -> ManifestTable:
        """Read a manifest. Raises CorruptObject, ObjectMissing and what the store raises."""
        table = cls(key)
        try:
            with store.open_read(key) as source:
                for file in ManifestReader(key, codec.open(key, source)):
                    table._add(file)
        except BaseException:
            table.close()
            raise
        return table

    def find(self, path: str) -> ManifestFile | None:
        with self._lock:
            entry = self._table.get(path)
        if entry is None:
            return None
        algorithm, _, checksum = entry.checksum.partition(":")
        return ManifestFile(path, entry.size_bytes, algorithm, checksum)

    def check_complete(self, directory: Path, is_left_out: Callable[[str], bool]) -> None:
        """Every file is there, with its size (the content was checked when it was written). Raises CorruptObject."""
        missing = []
        for entry in self._table:
            if is_left_out(entry.path):
                continue
            place = directory / (CONTROL_TEMPORARY if entry.path == CONTROL_FILE else entry.path)
            try:
                size = place.stat(follow_symlinks=False).st_size
            except OSError:
                size = -1
            if size != entry.size_bytes:
                missing.append(entry.path)
        if missing:
            names = ", ".join(missing[:_MISSING_SHOWN])
            raise CorruptObject(
                self.key,
                f"it lists {counted(len(missing), 'file')} that no object of the backup brought: {names}",
                hint="Restore another backup, and run `pgbackup verify` on this one.",
            )

    def close(self) -> None:
        self._table.close()

    def _add(self, file: ManifestFile) -> None:
        try:
            FileChecksum(file.checksum_algorithm)
        except ValueError as exc:
            raise CorruptObject(self.key, str(exc)) from exc
        checksum = f"{file.checksum_algorithm}:{file.checksum}"
        self._table.add(FileEntry(file.path, file.size_bytes, checksum))
        parts = file.path.split("/", 2)
        if len(parts) == 3 and parts[0] == "pg_tblspc" and OID.fullmatch(parts[1]):
            oid = int(parts[1])
            self.bytes_of_tablespace[oid] = self.bytes_of_tablespace.get(oid, 0) + file.size_bytes
        else:
            self.data_bytes += file.size_bytes
