"""Which WAL, history files and time marks may go, once it is decided which backups stay.

For each timeline the segment numbers that something needs are collected as spans, and what is left goes. A backup that
the policy keeps needs all WAL from its start on, on every timeline that goes on from it; a permanent one only the WAL
from its start to its stop. A timeline that may still be written to, and that nothing kept leads to, keeps everything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.retention_branches import is_known
from pgbackup.core.retention_choice import Choice
from pgbackup.core.retention_policy import UnderWay
from pgbackup.core.timeline import TimelineHistory

_END = 1 << 64
"""Above every segment number: a span to here has no end."""
_MARKS_AROUND = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Span:
    """Segment numbers ``[first, end)`` of a timeline that something needs, and what needs them."""

    timeline: int
    first: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class WalRange:
    """WAL to remove: everything named for a segment number in ``[begin, end)`` of a timeline.

    ``oldest`` and ``newest`` are the lowest and highest numbers that are there; ``segments`` and ``tails`` count the
    whole and the open ones. ``reason`` says why the range ends where it does.
    """

    timeline: int
    begin: int
    end: int
    oldest: int
    newest: int
    segments: int
    tails: int
    reason: str


def needed_spans(catalog: Catalog, choice: Choice, under_way: Iterable[UnderWay]) -> list[Span]:
    """All WAL that what is kept needs, and base backups that are not sealed yet."""
    spans: list[Span] = []
    for backup in catalog.backups:
        if backup.name not in choice.reasons:
            continue
        spans += _own_spans(catalog, backup)
        first = first_segment(backup, catalog.segment_bytes)
        if backup.name in choice.onward and first is not None:
            # What cannot be read says nothing of its stop: its start stands for it.
            position = max(backup.stop_lsn, Lsn(first * catalog.segment_bytes))
            spans += _onward(catalog, backup.timeline, position, first, f"{backup.name} starts there")
    for work in under_way:
        first = work.start_lsn // catalog.segment_bytes
        spans += _onward(catalog, work.timeline, work.start_lsn, first, "a backup under way starts there")
    return spans


def first_segment(backup: Backup, segment_bytes: int) -> int | None:
    """The number of the first segment that a backup needs: by its start, else by its name."""
    if backup.start_lsn:
        return backup.start_lsn // segment_bytes
    try:
        return SegmentName.parse(backup.name.removeprefix("base_")[:24], segment_bytes).number
    except ValueError:
        return None


def _own_spans(catalog: Catalog, backup: Backup) -> list[Span]:
    """The WAL from a backup's start to its stop, on its own path.

    Of one whose stop is not known, for its documents are damaged, to the begin of the next one, should they be mended.
    """
    size = catalog.segment_bytes
    first = first_segment(backup, size)
    if first is None:
        return []
    end = (backup.stop_lsn - 1) // size + 1
    if not backup.stop_lsn:
        later = (b.start_lsn // size for b in catalog.backups)
        end = min((number for number in later if number > first), default=first) + 1
    return _along(catalog.history(backup.timeline), first, end, size, f"{backup.name} needs it")


def _onward(catalog: Catalog, timeline: int, position: Lsn, first: int, reason: str) -> list[Span]:
    """Everything from segment ``first`` on, along each path that goes through ``position`` of ``timeline``."""
    spans: list[Span] = []
    for leaf in {*catalog.timelines, timeline}:
        history = catalog.history(leaf)
        if history.holds(timeline, position):
            spans += _along(history, first, _END, catalog.segment_bytes, reason)
    return spans


def _along(history: TimelineHistory, first: int, end: int, size: int, reason: str) -> list[Span]:
    """Numbers ``[first, end)`` of each timeline of a path, an ancestor's to the segment of the fork: where the child
    lacks that segment, the ancestor's stands in for it."""
    spans = []
    for timeline, _, fork in history.path():
        last = end if fork is None else min(end, (max(fork, 1) - 1) // size + 1)
        if first < last:
            spans.append(Span(timeline, first, last, reason))
    return spans


def removable_wal(catalog: Catalog, choice: Choice, spans: Iterable[Span]) -> tuple[WalRange, ...]:
    """The ranges that nothing needs, by timeline and number."""
    needed: dict[int, list[Span]] = {}
    for span in spans:
        needed.setdefault(span.timeline, []).append(span)
    onward = [b for b in catalog.backups if b.name in choice.onward]
    firsts = (first_segment(b, catalog.segment_bytes) for b in onward)
    floor = min((first for first in firsts if first is not None), default=0)
    ranges: list[WalRange] = []
    for timeline in sorted({*catalog.segments, *(segment.timeline for segment in catalog.tails)}):
        spans_here = sorted(needed.get(timeline, ()), key=lambda s: (s.first, -s.end))
        limit, reason = _limit(catalog, choice, timeline, floor, spans_here)
        begin = 0
        for span in spans_here:
            if span.first > begin:
                ranges += _range(catalog, timeline, begin, min(span.first, limit), span.reason)
            begin = max(begin, span.end)
        ranges += _range(catalog, timeline, begin, limit, reason)
    return tuple(ranges)


def _limit(catalog: Catalog, choice: Choice, timeline: int, floor: int, spans: Iterable[Span]) -> tuple[int, str]:
    """Where removal on a timeline ends in any case, and why."""
    if any(span.end == _END for span in spans):
        return _END, "the end of the timeline"
    if timeline not in choice.ended:
        return 0, "the timeline may still be written to"
    if not is_known(catalog, timeline):
        return floor, "newer than the oldest backup kept, on a timeline without a history"
    return _END, "the end of the timeline, which no kept backup leads to"


def _range(catalog: Catalog, timeline: int, begin: int, end: int, reason: str) -> list[WalRange]:
    """What is there of ``[begin, end)``: no range, or one."""
    numbers = catalog.segments.get(timeline, ())
    low, high = bisect_left(numbers, begin), bisect_left(numbers, end)
    tails = sorted(s.number for s in catalog.tails if s.timeline == timeline and begin <= s.number < end)
    if high <= low and not tails:
        return []
    found = [*(numbers[i] for i in (low, high - 1) if low < high), *tails]
    # Never past what was seen: what comes later was written by somebody who thinks that it is needed.
    last = min(end, max(found) + 1)
    return [WalRange(timeline, begin, last, min(found), max(found), max(high - low, 0), len(tails), reason)]


def removable_histories(catalog: Catalog, choice: Choice, ranges: Iterable[WalRange]) -> tuple[int, ...]:
    """The timelines whose history files may go: those below every timeline of which anything stays.

    A timeline's history names all its ancestors, so theirs are not needed for it. Later ones stay even when nothing
    else of them does: a promoted server takes the first number without a history, which must not be one used before.
    """
    stays = {b.timeline for b in catalog.backups if b.name in choice.reasons}
    stays |= {timeline for timeline in catalog.timelines if timeline not in choice.ended}
    left = _left_after(catalog, ranges)
    stays |= {timeline for timeline, count in left.items() if count}
    return tuple(sorted(t for t in catalog.histories if t < min(stays, default=0)))


def _left_after(catalog: Catalog, ranges: Iterable[WalRange]) -> Mapping[int, int]:
    """How many segments and tails stay of each timeline."""
    left = Counter({timeline: len(numbers) for timeline, numbers in catalog.segments.items()})
    left.update(segment.timeline for segment in catalog.tails)
    for each in ranges:
        left[each.timeline] -= each.segments + each.tails
    return left


def marks_horizon(catalog: Catalog, choice: Choice, cutoff: datetime) -> datetime:
    """Time marks before this moment serve no recovery, but for those around permanent backups.

    Never later than the window's begin: marks in the window prove that a timeline is not over.
    """
    started = [b.started for b in catalog.backups if b.name in choice.onward and b.start_lsn]
    return min([cutoff, *started])


def keeps_mark(moment: datetime, horizon: datetime, kept: Iterable[Backup]) -> bool:
    """Whether a time mark stays."""
    if moment >= horizon:
        return True
    return any(b.started - _MARKS_AROUND <= moment <= b.finished + _MARKS_AROUND for b in kept)
