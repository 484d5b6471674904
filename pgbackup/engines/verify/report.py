"""What a verification found: plain values, and the place where several threads collect them.

Bounded: of thousands of findings the first are kept and the rest are counted.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from pgbackup.core.lsn import Lsn
from pgbackup.errors import CorruptObject, ObjectMissing, StorageError
from pgbackup.repository import keys
from pgbackup.repository.codec import is_readable

MAX_FINDINGS = 500
FindingKind = Literal["damaged", "missing", "unexpected", "unreadable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and the key of the object that it is wrong with."""

    kind: FindingKind
    object: str
    problem: str


@dataclass(frozen=True, slots=True)
class CheckedWal:
    """WAL of one timeline that was read: ``[start, end)``."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was read of one backup and of its WAL, and what was wrong with it (nothing: ``ok``).

    ``findings`` holds the first ``MAX_FINDINGS`` of ``findings_total``. ``unchecked_files``: files that no object
    brought, because one of the objects is damaged. ``notes`` say what could not be checked, and are no failures.
    """

    backup: str
    ok: bool
    findings: tuple[Finding, ...]
    findings_total: int
    objects: int
    stored_bytes: int
    files: int
    raw_bytes: int
    unchecked_files: int
    segments: int
    wal: tuple[CheckedWal, ...]
    notes: tuple[str, ...]


@dataclass
class Findings:
    """Collects findings and counters; safe for threads."""

    objects: int = 0
    stored_bytes: int = 0
    files: int = 0
    raw_bytes: int = 0
    unchecked_files: int = 0
    segments: int = 0
    notes: list[str] = field(default_factory=list)
    total: int = 0
    _kept: list[Finding] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: FindingKind, key: str, problem: str) -> None:
        with self._lock:
            self.total += 1
            if len(self._kept) < MAX_FINDINGS:
                self._kept.append(Finding(kind, key, problem))

    def count(
        self, *, objects: int = 0, stored_bytes: int = 0, files: int = 0, raw_bytes: int = 0, segments: int = 0
    ) -> None:
        """Add to the counters."""
        with self._lock:
            self.objects += objects
            self.stored_bytes += stored_bytes
            self.files += files
            self.raw_bytes += raw_bytes
            self.segments += segments

    def note(self, text: str) -> None:
        """Something that could not be checked, and is no failure."""
        with self._lock:
            self.notes.append(text)

    def catching(self, key: str) -> _Catching:
        """Turn what the block raises about stored objects into findings; ``key`` is the object it reads.

        A store that does not answer is no finding: that is raised.
        """
        return _Catching(self, key)

    def report(self, backup: str, wal: tuple[CheckedWal, ...]) -> VerifyReport:
        with self._lock:
            return VerifyReport(
                backup=backup,
                ok=self.total == 0,
                findings=tuple(self._kept),
                findings_total=self.total,
                objects=self.objects,
                stored_bytes=self.stored_bytes,
                files=self.files,
                raw_bytes=self.raw_bytes,
                unchecked_files=self.unchecked_files,
                segments=self.segments,
                wal=wal,
                notes=tuple(self.notes),
            )


class _Catching:
    """See Findings.catching. A class, so that type checkers know that the block may end early."""

    def __init__(self, findings: Findings, key: str) -> None:
        self._findings = findings
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, CorruptObject):
            self._findings.add("damaged", error.key, error.detail)
        elif isinstance(error, ObjectMissing):
            self._findings.add("missing", self._key, "it is not in the repository")
        elif type(error) is StorageError and not is_readable(keys.split_extension(self._key)[1]):
            self._findings.add("unreadable", self._key, error.detail)
        else:
            return False
        return True
