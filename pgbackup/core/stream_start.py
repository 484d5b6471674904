"""Where streaming has to start, decided from the bucket.

The slot only keeps WAL; it never chooses the start: a slot made after a failover would leave a hole, and slots can
move backwards. What the repository holds decides, along the path of the server's timeline: streaming goes on at the
segment in which contiguous WAL ends. The candidates are tried in order; only when the server refuses one (it no
longer has that WAL) is the next one a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory

_RUNS_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Stream ``timeline`` from ``lsn`` (a segment's start). ``gap_from`` is where the repository's WAL ended, when
    starting here leaves a hole; None when it does not."""

    timeline: int
    lsn: Lsn
    gap_from: Lsn | None = None


def plan_stream_start(
    catalog: Catalog, history: TimelineHistory, restart_lsn: Lsn | None, redo_lsn: Lsn, *, pieces: bool = True
) -> list[StreamStart]:
    """The places to start, best first.

    ``history`` is that of the server's current timeline, ``restart_lsn`` what our slot keeps (None without one),
    ``redo_lsn`` the server's current redo position, which it always has. Without ``pieces`` only whole segments are
    stored: then a timeline ends for us with the segment before its fork's, which is the next timeline's.
    """
    size = catalog.segment_bytes
    ends = _run_ends(catalog, history, pieces=pieces)
    if restart_lsn is not None:
        kept = restart_lsn // size * size
        before = [end for end in ends if end.lsn < kept]
        ends = before[-1:] + [end for end in ends if end.lsn >= kept]
    fallback = restart_lsn if restart_lsn is not None else redo_lsn
    start = Lsn(fallback // size * size)
    gap = ends[-1].lsn if ends and ends[-1].lsn < start else None
    last = StreamStart(_timeline_at(history, start, size), start, gap)
    starts = [end for end in ends if end.lsn <= start or restart_lsn is None or end is ends[-1]]
    for index in range(1, len(starts)):
        starts[index] = StreamStart(starts[index].timeline, starts[index].lsn, starts[index - 1].lsn)
    if not any(s.lsn == last.lsn and s.timeline == last.timeline for s in starts):
        starts.append(last)
    redo = Lsn(redo_lsn // size * size)
    if redo > starts[-1].lsn:
        starts.append(StreamStart(_timeline_at(history, redo, size), redo, starts[-1].lsn))
    return starts


def with_comparison(starts: list[StreamStart], catalog: Catalog) -> list[StreamStart]:
    """The starts, and before them the segment that is stored whole just before the first: it is received once more.

    A server that was set back to an older copy of its disk writes other content at the same LSNs. Where it has passed
    the end of the stored WAL again, only comparing shows it, and all WAL after the place where two histories part
    differs: so the last whole segment does.
    """
    first = starts[0]
    number = first.lsn // catalog.segment_bytes
    if number == 0 or not catalog.has(SegmentName(first.timeline, number - 1, catalog.segment_bytes)):
        return starts
    return [StreamStart(first.timeline, Lsn((number - 1) * catalog.segment_bytes)), *starts]


def _run_ends(catalog: Catalog, history: TimelineHistory, *, pieces: bool) -> list[StreamStart]:
    """The ends of the newest unbroken runs along a path, oldest first."""
    size = catalog.segment_bytes
    ends: list[StreamStart] = []
    for timeline, begin, fork in reversed(history.path()):
        for number in _ends_on(catalog, timeline, begin, fork):
            lsn = Lsn(number * size)
            if fork is not None and _reaches(catalog, timeline, number, fork, pieces=pieces):
                ends.append(_at_fork(history, fork, size))
            else:
                ends.append(StreamStart(timeline, lsn))
            if len(ends) == _RUNS_LOOKED_AT:
                break
        if ends:
            break
    unique = {(end.timeline, end.lsn): end for end in ends}
    return sorted(unique.values(), key=lambda end: (end.lsn, end.timeline))


def _ends_on(catalog: Catalog, timeline: int, begin: Lsn, fork: Lsn | None) -> Iterator[int]:
    """Numbers of the first missing segments after each run on a timeline, newest first."""
    size = catalog.segment_bytes
    first = begin // size
    last = fork // size if fork is not None else None
    numbers = [n for n in catalog.segments.get(timeline, ()) if n >= first and (last is None or n <= last)]
    tails = [s.number for s in catalog.tails if s.timeline == timeline and s.number >= first]
    known = set(numbers)
    if tails and max(tails) not in known and (max(tails) - 1 not in known):
        yield max(tails)
    for number in sorted(known, reverse=True):
        if number + 1 not in known:
            yield number + 1


def _reaches(catalog: Catalog, timeline: int, number: int, fork: Lsn, *, pieces: bool) -> bool:
    """Whether what is stored of a timeline, up to before segment ``number`` and its tail, reaches the fork, as
    far as it ever will."""
    if not pieces:
        return number >= fork // catalog.segment_bytes
    tail = catalog.tails.get(SegmentName(timeline, number, catalog.segment_bytes), 0)
    return number * catalog.segment_bytes + tail >= fork


def _at_fork(history: TimelineHistory, fork: Lsn, size: int) -> StreamStart:
    """The segment that holds the fork, of the timeline that goes on there: it begins with the bytes before the fork."""
    return StreamStart(history.owner(fork), Lsn(fork // size * size))


def _timeline_at(history: TimelineHistory, lsn: Lsn, size: int) -> int:
    """The timeline to ask for when starting at a segment's start: the one that owns the segment's last byte."""
    return history.owner(lsn + size - 1)
