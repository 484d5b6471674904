"""Holes: WAL that is missing with stored WAL behind it.

Recovery leads over forks, and the segment of a fork comes from the child. So what is missing right before a fork, or
there, lies between two timelines, and neither shows it for itself: there a backup does, from which recovery breaks off.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, Gap
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory


def holes(catalog: Catalog) -> list[Gap]:
    """Those between the whole segments of each timeline, and those at which recovery from a backup breaks off, in order
    of their timelines."""
    size = catalog.segment_bytes
    found = {t: [(end, begin) for (_, end), (begin, _) in pairwise(catalog.runs(t))] for t in catalog.timelines}
    for backup in catalog.backups:
        if not _leads_on(catalog, backup):
            continue
        for history in map(catalog.history, catalog.timelines):
            for timeline, first, last in _broken_off(catalog, backup, history):
                found[timeline] = [*found.get(timeline, ()), (first, last)]
    return [
        Gap(timeline, Lsn(first * size), Lsn(last * size))
        for timeline in sorted(found)
        for first, last in joined(found[timeline])
    ]


def _leads_on(catalog: Catalog, backup: Backup) -> bool:
    """Whether what comes after a backup is to be recovered from it: of a permanent one, and of one that is kept because
    others build on it, expiry keeps no more WAL than makes it consistent."""
    built_on = any(each.delta_of == backup.name for each in catalog.backups)
    return not backup.permanent and not built_on and not catalog.why_not_restorable(backup)


def _broken_off(catalog: Catalog, backup: Backup, history: TimelineHistory) -> Iterator[tuple[int, int, int]]:
    """Timelines and segment numbers ``[first, last)`` at which recovery along a path breaks off before more WAL."""
    reach = catalog.reach(backup, history.timeline)
    if reach is None or reach.blocked_by is None:
        return
    behind = next_stored(catalog, history, reach.blocked_by.number)
    if behind is not None:
        yield from _owners(history, reach.blocked_by.number, behind.number, catalog.segment_bytes)


def next_stored(
    catalog: Catalog, history: TimelineHistory, number: int, *, open_too: bool = True
) -> SegmentName | None:
    """The first segment on a path behind ``number`` that is stored; ``open_too``: or of which pieces are."""
    size = catalog.segment_bytes
    found = [n for n in _open_ones(catalog, history) if open_too and n > number]
    for timeline, begin, _ in history.path():
        numbers = catalog.segments.get(timeline, ())
        index = bisect_left(numbers, max(number + 1, begin // size))
        if index < len(numbers) and history.segment_for(numbers[index], size).timeline == timeline:
            found.append(numbers[index])
    return history.segment_for(min(found), size) if found else None


def _open_ones(catalog: Catalog, history: TimelineHistory) -> list[int]:
    """The segments of which pieces count on a path: those of its own timeline, from the fork on."""
    found = (s for s, end in catalog.tails.items() if end and s.timeline == history.timeline)
    return [s.number for s in found if history.segment_for(s.number, s.segment_bytes) == s]


def _owners(history: TimelineHistory, begin: int, end: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Segment numbers ``[begin, end)`` by the timeline that they are of on a path."""
    for timeline, since, until in history.path():
        first = max(begin, since // size)
        last = end if until is None else min(end, until // size)
        if first < last:
            yield timeline, first, last


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans ``[first, last)`` in order, those that touch as one."""
    rows: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if rows and first <= rows[-1][1]:
            rows[-1] = rows[-1][0], max(last, rows[-1][1])
        else:
            rows.append((first, last))
    return rows
