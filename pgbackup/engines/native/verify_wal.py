"""The WAL of a base backup, read back: every segment's size, pages and place, on every timeline that goes on from it.

What is to be read is decided from the catalog: from the segment of the backup's start along each path as far as it is
unbroken, each segment once. Where a path breaks off although there is WAL behind, the segments in between are missing.
The first segment of a new timeline begins with a copy of its parent's; where both are stored they have to agree, or the
timelines do not belong together.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pgbackup.core.catalog import Backup, Catalog
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory, history_name
from pgbackup.core.wal_segment_check import SegmentCheck, WalProblem
from pgbackup.engines.base import ProgressSink
from pgbackup.engines.native.verify_pieces import PiecesCheck
from pgbackup.engines.native.verify_report import CheckedWal, Findings
from pgbackup.engines.native.verify_workers import Workers
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ByteStream, ObjectStore

_READ_BYTES = 1 << 20
_NAMED = 100


@dataclass(frozen=True, slots=True)
class _Span:
    """Whole segments of one timeline, numbers ``[first, end)``."""

    timeline: int
    first: int
    end: int


class WalCheck:
    """Checks the WAL of one backup; ``run`` once. ``only_needed``: not beyond what makes the backup consistent."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        catalog: Catalog,
        backup: Backup,
        findings: Findings,
        *,
        only_needed: bool = False,
    ) -> None:
        self._store = store
        self._codec = codec
        self._catalog = catalog
        self._backup = backup
        self._findings = findings
        self._only_needed = only_needed
        self._extension = codec.extension
        self._system_identifier = backup.system_identifier or catalog.system_identifier or 0
        self._pieces = PiecesCheck(
            store, codec, findings, system_identifier=self._system_identifier, pg_major=backup.pg_major
        )

    def run(self, workers: Workers, progress: ProgressSink) -> tuple[CheckedWal, ...]:
        """Read everything; returns what was read, a row for each timeline."""
        paths = self._paths()
        spans = self._spans(paths)
        self._name_missing(paths)
        size = self._catalog.segment_bytes
        progress.start(f"WAL from {self._backup.start_lsn}", sum(s.end - s.first for s in spans) * size)
        try:
            workers.run_all(self._tasks(spans, workers, progress))
            return tuple(self._checked(span) for span in spans)
        finally:
            progress.finish()

    # -- what there is ------------------------------------------------------------------------------------------

    def _paths(self) -> list[TimelineHistory]:
        """The ways on from the backup: to every timeline of which it is a part."""
        catalog, backup = self._catalog, self._backup
        wanted = [backup.timeline] if self._only_needed else catalog.timelines
        for timeline in wanted:
            if timeline > 1 and timeline not in catalog.histories:
                key = keys.wal(history_name(timeline), self._codec.extension)
                self._findings.add("missing", key, f"without it nobody knows how timeline {timeline} came about")
        return [catalog.history(timeline) for timeline in wanted if catalog.reach(backup, timeline) is not None]

    def _spans(self, paths: list[TimelineHistory]) -> list[_Span]:
        """The unbroken rows of whole segments on the paths, joined: on a timeline all begin at the same segment."""
        size = self._catalog.segment_bytes
        last = (self._backup.stop_lsn - 1) // size if self._only_needed else None
        ends: dict[int, tuple[int, int]] = {}
        for history in paths:
            number = self._backup.start_lsn // size
            while last is None or number <= last:
                segment = history.segment_for(number, size)
                if not self._catalog.has(segment):
                    first, end = ends.get(segment.timeline, (number, number))
                    ends[segment.timeline] = first, max(end, number)
                    break
                first, end = ends.get(segment.timeline, (number, number))
                number += 1
                ends[segment.timeline] = first, max(end, number)
        return [_Span(timeline, *span) for timeline, span in sorted(ends.items())]

    def _name_missing(self, paths: list[TimelineHistory]) -> None:
        catalog, backup = self._catalog, self._backup
        own = catalog.history(backup.timeline)
        missing = catalog.missing(backup.start_lsn, backup.stop_lsn, own)
        for segment in missing[:_NAMED]:
            self._name(segment, f"backup {backup.name} needs it to become consistent")
        if self._only_needed:
            return
        named = set(missing)
        for history in paths:
            for segment, behind in self._hole(history):
                if segment not in named:
                    named.add(segment)
                    self._name(segment, f"there is WAL behind it, of {behind}")

    def _name(self, segment: SegmentName, why: str) -> None:
        self._findings.add("missing", keys.wal(str(segment), self._codec.extension), why)

    def _hole(self, history: TimelineHistory) -> Iterator[tuple[SegmentName, SegmentName]]:
        """The missing segments at which a path breaks off, with the next that is there; nothing at its true end."""
        catalog = self._catalog
        reach = catalog.reach(self._backup, history.timeline)
        if reach is None or reach.blocked_by is None:
            return
        first = reach.blocked_by.number
        there = [
            *(s.number for s, end in catalog.tails.items() if end and s.timeline == history.timeline),
            *(number for timeline, numbers in catalog.segments.items() for number in self._near(timeline, numbers)),
        ]
        behind = min((n for n in there if n > first and self._is_on(history, n)), default=None)
        if behind is None:
            return
        size = catalog.segment_bytes
        for number in range(first, min(behind, first + _NAMED)):
            yield history.segment_for(number, size), history.segment_for(behind, size)
