"""Name, size and checksum of every file of a backup: in memory for most, in a temporary SQLite file for very many.

A database of a million files would take some hundred megabytes as Python objects; above SPILL_FILES the table moves
to disk, so memory does not grow with the number of files.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pgbackup.errors import StorageError

SPILL_FILES = 50_000
_INSERT = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path below the data directory, bytes, checksum as hex ("" for none), mtime in seconds."""

    path: str
    size_bytes: int
    checksum: str
    mtime: float = 0.0


class ChecksumTable:
    """A table of FileEntry by path. Used by one thread; close it, or use it as a context."""

    def __init__(self, *, spill_files: int = SPILL_FILES) -> None:
        self._spill_files = spill_files
        self._rows: dict[str, FileEntry] = {}
        self._database: sqlite3.Connection | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, entry: FileEntry) -> None:
        """Add a file, or replace what was known of it. Raises StorageError when the scratch file cannot grow."""
        if self._database is not None:
            with scratch_errors():
                self._database.execute(_INSERT, _columns(entry))
            return
        self._rows[entry.path] = entry
        if len(self._rows) > self._spill_files:
            with scratch_errors():
                self._spill()

    def get(self, path: str) -> FileEntry | None:
        if self._database is None:
            return self._rows.get(path)
        row = self._database.execute("SELECT * FROM files WHERE path = ?", (_key(path),)).fetchone()
        return None if row is None else _entry(row)

    def pop(self, path: str) -> FileEntry | None:
        """Take a file out of the table; what is left in the end was not asked for."""
        entry = self.get(path)
        if entry is not None and self._database is not None:
            self._database.execute("DELETE FROM files WHERE path = ?", (_key(path),))
        elif entry is not None:
            del self._rows[path]
        return entry

    def __len__(self) -> int:
        if self._database is None:
            return len(self._rows)
        return int(self._database.execute("SELECT count(*) FROM files").fetchone()[0])

    def __iter__(self) -> Iterator[FileEntry]:
        """Every file, in order of its path's bytes."""
        if self._database is None:
            yield from (self._rows[path] for path in sorted(self._rows, key=_key))
            return
        for row in self._database.execute("SELECT * FROM files ORDER BY path"):
            yield _entry(row)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spill(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pgbackup-")
        self._database = sqlite3.connect(Path(self._folder.name) / "files.db", check_same_thread=False)
        # The file is scratch: nothing of it has to survive.
        self._database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192;")
        self._database.execute(
            "CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER, checksum TEXT, mtime REAL) WITHOUT ROWID"
        )
        self._database.executemany(_INSERT, (_columns(entry) for entry in self._rows.values()))
        self._rows.clear()


@contextmanager
def scratch_errors() -> Iterator[None]:
    """Turns what a full disk does to a temporary SQLite file into StorageError."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as exc:
        raise StorageError(
            f"the list of files is too long for memory and cannot be written to {tempfile.gettempdir()}",
            detail=str(exc),
            hint="Free space there, or name another folder in TMPDIR.",
        ) from exc


def _key(path: str) -> bytes:
    """Names are bytes to the file system; those that are not UTF-8 are kept as surrogates in text."""
    return path.encode("utf-8", "surrogateescape")


def _columns(entry: FileEntry) -> tuple[bytes, int, str, float]:
    return _key(entry.path), entry.size_bytes, entry.checksum, entry.mtime


def _entry(row: tuple[bytes, int, str, float]) -> FileEntry:
    return FileEntry(row[0].decode("utf-8", "surrogateescape"), row[1], row[2], row[3])
