"""Which WAL belongs to a backup, decided from a catalog: what there is to read, and what should be there and is not.

Pure: a Catalog in, plain values out. A path leads from the backup's start along the history of a timeline. Paths share
their beginnings, so what is to be read is one row of segments for each timeline, each segment once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import SegmentName
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.timeline import TimelineHistory, parse_history_name
from pgbackup.core.wal_holes import next_stored
from pgbackup.repository import keys

_NAMED = 100


@dataclass(frozen=True, slots=True)
class Span:
    """Whole segments of one timeline, numbers ``[first, end)``; perhaps none."""

    timeline: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class MissingSegment:
    """A segment that should be there, and why."""

    segment: SegmentName
    why: str


def paths_of(catalog: Catalog, backup: Backup, *, only_needed: bool) -> list[TimelineHistory]:
    """The ways on from a backup: to every timeline of which it is a part, or to its own."""
    timelines = (backup.timeline,) if only_needed else catalog.timelines
    return [catalog.history(timeline) for timeline in timelines if catalog.reach(backup, timeline) is not None]


def histories_of(paths: list[TimelineHistory]) -> dict[int, TimelineHistory]:
    """The history of every timeline on the paths; a child's names its ancestors' too, should their own be missing."""
    found: dict[int, TimelineHistory] = {}
    for history in paths:
        for index, ancestor in enumerate(history.ancestors):
            found.setdefault(ancestor.timeline, TimelineHistory(ancestor.timeline, history.ancestors[:index]))
    return found | {
        history.timeline: history for history in paths if history.ancestors or history.timeline not in found
    }


def without_history(catalog: Catalog, backup: Backup, *, only_needed: bool) -> list[int]:
    """The backup's timeline and those with WAL, of which nobody knows how they came about: their WAL may go on from it.

    One that merely another backup is named for says nothing of this one.
    """
    with_wal = {segment.timeline for segment in catalog.tails}.union(catalog.segments)
    timelines = {backup.timeline} if only_needed else with_wal | {backup.timeline}
    return sorted(timeline for timeline in timelines if catalog.lacks_history(timeline))


def spans_of(catalog: Catalog, backup: Backup, paths: list[TimelineHistory], *, only_needed: bool) -> list[Span]:
    """The unbroken rows of whole segments on the paths, joined: on one timeline all of them begin alike.

    The last timeline of a path has a row even when it is empty: its open segment may have pieces.
    """
    size = catalog.segment_bytes
    rows: dict[int, tuple[int, int]] = {}
    for history in paths:
        number = backup.start_lsn // size
        last = max(backup.stop_lsn - 1, 0) // size if only_needed else None
        while True:
            segment = history.segment_for(number, size)
            is_there = (last is None or number <= last) and catalog.has(segment)
            first, end = rows.get(segment.timeline, (number, number))
            rows[segment.timeline] = first, max(end, number + is_there)
            if not is_there:
                break
            number += 1
    return [Span(timeline, *row) for timeline, row in sorted(rows.items())]


def wal_read_with(catalog: Catalog, backup: Backup) -> Callable[[str], bool]:
    """Which objects below ``wal_005/`` are read with a backup: rows of segments, and the histories on the way."""
    paths = paths_of(catalog, backup, only_needed=False)
    spans = {span.timeline: span for span in spans_of(catalog, backup, paths, only_needed=False)}

    def is_read(key: str) -> bool:
        name = keys.wal_segment(key)
        if name is None:
            return parse_history_name(keys.wal_file(key)[0]) in spans
        segment = SegmentName.parse(name, catalog.segment_bytes)
        span = spans.get(segment.timeline)
        return span is not None and span.first <= segment.number < span.end

    return is_read


def missing_segments(
    catalog: Catalog, backup: Backup, paths: list[TimelineHistory], removed: RemovedWal, *, only_needed: bool
) -> Iterator[MissingSegment]:
    """What the backup needs to become consistent, whatever expiry wrote down that it ``removed``; then the holes that
    it did not make: missing segments, with WAL behind them."""
    needed = catalog.missing(backup.start_lsn, backup.stop_lsn, catalog.history(backup.timeline))
    for segment in needed[:_NAMED]:
        yield MissingSegment(segment, f"backup {backup.name} needs it to become consistent")
    named = set(needed)
    for history in () if only_needed else paths:
        for missing in _hole(catalog, backup, history, removed):
            if missing.segment not in named:
                named.add(missing.segment)
                yield missing


def _hole(catalog: Catalog, backup: Backup, history: TimelineHistory, removed: RemovedWal) -> Iterator[MissingSegment]:
    """The segments at which a path breaks off, when there is more behind them; to where expiry kept no WAL for it."""
    reach = catalog.reach(backup, history.timeline)
    if reach is None or reach.blocked_by is None:
        return
    size, first = catalog.segment_bytes, reach.blocked_by.number
    behind = next_stored(catalog, history, first)
    if behind is None:
        return
    why = f"there is WAL behind it: {behind}"
    for number in range(first, min(behind.number, first + _NAMED)):
        segment = history.segment_for(number, size)
        if _is_expiry_s(segment, backup, removed):
            return
        yield MissingSegment(segment, why)


def ends_by_expiry(catalog: Catalog, backup: Backup, history: TimelineHistory, removed: RemovedWal) -> bool:
    """Whether expiry kept no more WAL for a backup along a path. Where nothing is left behind it, somebody else was
    there too: expiry keeps what is newest."""
    reach = catalog.reach(backup, history.timeline)
    if reach is None or reach.blocked_by is None or not _is_expiry_s(reach.blocked_by, backup, removed):
        return False
    return next_stored(catalog, history, reach.blocked_by.number) is not None


def _is_expiry_s(segment: SegmentName, backup: Backup, removed: RemovedWal) -> bool:
    return segment.start >= backup.stop_lsn and removed.holds(segment)
