"""Which file of a chain of WAL-G backups comes from which of them: all their lists, and what a restore takes from each.

The rule is WAL-G's (``GetBaseFilesToUnwrap``): of the newest backup everything that it lists; of each parent what the
child needs and has only as an increment, or not at all because it is unchanged. The table also keeps what the tars
brought, so that what is missing, or there twice, is seen. It lies in a temporary SQLite file: memory does not grow with
the number of files.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from pgbackup.errors import CorruptObject
from pgbackup.repository.checksum_table import scratch_errors
from pgbackup.repository.walg_files import UTILITY_FILES, ListedFile

Part = Literal["whole", "increment", "none"]
"""What a backup's tars hold of a file."""

_BATCH: Final = 10_000
_WHOLE, _INCREMENT, _SKIPPED = 0, 1, 2
_PARTS: Final[dict[int, Part]] = {_WHOLE: "whole", _INCREMENT: "increment", _SKIPPED: "none"}
_INSERT: Final = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, 0, 0)"
_FROM_CHILD: Final = (
    "INSERT INTO files SELECT 0, name, 0, certain, 1, 0 FROM files WHERE level = 1 AND needed AND part != 0"
)
_UNKNOWN_TO_PARENT: Final = """
SELECT name FROM files AS child WHERE level = :level AND needed AND part != 0 AND NOT EXISTS
    (SELECT 1 FROM files AS parent WHERE parent.level = :level - 1 AND parent.name = child.name) LIMIT 1
"""
_NEED_OF_PARENT: Final = """
UPDATE files SET needed = 1 WHERE level = :level - 1 AND name IN
    (SELECT name FROM files WHERE level = :level AND needed AND part != 0)
"""
_MISSING: Final = """
SELECT name FROM files WHERE level = ? AND (needed OR ?) AND part != 2 AND certain AND NOT brought
    ORDER BY name LIMIT 1000
"""
_NAMES: Final = "SELECT name FROM files WHERE level = ? AND certain AND name > ? ORDER BY name LIMIT 1000"
_CREATE: Final = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192;
CREATE TABLE files (
    level INTEGER, name BLOB, part INTEGER, certain INTEGER, needed INTEGER, brought INTEGER,
    PRIMARY KEY (level, name)
) WITHOUT ROWID;
"""


class WalgFileTable:
    """``level`` 0 is the full backup, each delta one more. Safe for threads; close it, or use it as a context."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pgbackup-")
        self._database = sqlite3.connect(Path(self._folder.name) / "files.db", check_same_thread=False)
        self._database.executescript(_CREATE)
        self._lock = threading.Lock()
        self._keys: dict[int, str] = {}
        self._top = -1

    def load(self, level: int, key: str, files: Iterable[ListedFile]) -> bool:
        """Take over the list of one backup, from object ``key``; False when it lists nothing: then everything counts.

        Raises CorruptObject.
        """
        rows = iter((level, _raw(f.name), _part(f), f.is_certain) for f in files if f.name)  # the root has none
        count = 0
        while batch := list(islice(rows, _BATCH)):
            with self._lock, scratch_errors():
                self._database.executemany(_INSERT, batch)
            count += len(batch)
        if count:
            self._keys[level] = key
        return count > 0

    def has_list(self, level: int) -> bool:
        return level in self._keys

    def choose(self, top: int) -> None:
        """Decide what a restore of the backup at ``top`` takes from each, once all lists are loaded.

        Raises CorruptObject when the lists do not fit together.
        """
        self._top = top
        with self._lock:
            self._database.execute("UPDATE files SET needed = 1 WHERE level = ?", (top,))
        for level in range(top, 0, -1):
            self._choose_parents(level)
        with self._lock:
            base = self._first("SELECT name FROM files WHERE level = 0 AND needed AND part != 0 LIMIT 1", {})
        if base is not None:
            raise CorruptObject(self._keys[0], f"a full backup says that {base} is in an older one")

    def _choose_parents(self, level: int) -> None:
        with self._lock:
            if level == 1 and not self.has_list(0):
                # A full backup without a list: it must bring what its child needs.
                self._database.execute(_FROM_CHILD)
                return
            unknown = self._first(_UNKNOWN_TO_PARENT, {"level": level})
            self._database.execute(_NEED_OF_PARENT, {"level": level})
        if unknown is not None:
            raise CorruptObject(
                self._keys[level], f"it says that {unknown} is in the backup before, which does not list it"
            )

    def take(self, level: int, key: str, name: str) -> Part:
        """What a restore does with a file that object ``key`` of a backup brings; "none": leave it out.

        Raises CorruptObject for a file that another object brought already.
        """
        if name in UTILITY_FILES and level != self._top:
            return "none"
        row = self._look(level, name)
        if row is None:
            is_kept = name in UTILITY_FILES or (not self.has_list(level) and level == self._top)
            return "whole" if is_kept else "none"
        part, needed, brought = row
        if not needed or part == _SKIPPED:
            return "none"
        if brought and name not in UTILITY_FILES:
            raise CorruptObject(
                key,
                f"it brings {name}, which another object of the backup brought already",
                hint="Objects of an unfinished backup lie in the same folder: restore another backup.",
            )
        self._mark(level, [name], brought=True)
        return _PARTS[part]

    def part_of(self, level: int, name: str) -> Part | None:
        """What the list says of a file, whatever a restore needs; None for one that it does not name."""
        row = self._look(level, name)
        return None if row is None else _PARTS[row[0]]

    def bring(self, level: int, name: str) -> bool:
        """Note that a tar holds a member; whether that is the first time."""
        row = self._look(level, name)
        if row is not None:
            self._mark(level, [name], brought=True)
        return row is None or not row[2]

    def give_back(self, level: int, names: Iterable[str]) -> None:
        """What an object brought will come again: it is read anew."""
        self._mark(level, names, brought=False)

    def missing(self, level: int, *, needed_only: bool = True) -> Iterator[str]:
        """Files that the list of a backup names as its own and that no tar brought, in order of their names."""
        with self._lock:
            rows = self._database.execute(_MISSING, (level, not needed_only)).fetchall()
        return (_text(name) for (name,) in rows)

    def names(self, level: int) -> Iterator[str]:
        """Every file and directory that the list of a backup names, whoever of its chain brings it."""
        last = b""
        while True:
            with self._lock:
                rows = self._database.execute(_NAMES, (level, last)).fetchall()
            if not rows:
                return
            yield from (_text(name) for (name,) in rows)
            last = rows[-1][0]

    def key(self, level: int) -> str:
        """The object that the list of a backup came from; empty where there is none."""
        return self._keys.get(level, "")

    def close(self) -> None:
        self._database.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self, level: int, name: str) -> tuple[int, int, int] | None:
        with self._lock:
            row: tuple[int, int, int] | None = self._database.execute(
                "SELECT part, needed, brought FROM files WHERE level = ? AND name = ?", (level, _raw(name))
            ).fetchone()
        return row

    def _mark(self, level: int, names: Iterable[str], *, brought: bool) -> None:
        with self._lock:
            self._database.executemany(
                "UPDATE files SET brought = ? WHERE level = ? AND name = ?",
                [(brought, level, _raw(name)) for name in names],
            )

    def _first(self, query: str, values: Mapping[str, object]) -> str | None:
        row = self._database.execute(query, values).fetchone()
        return None if row is None else _text(row[0])


def _part(file: ListedFile) -> int:
    if file.is_skipped:
        return _SKIPPED
    return _INCREMENT if file.is_incremented else _WHOLE


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
