"""Where streaming has to start, decided from the bucket.

The slot only keeps WAL; it never chooses the start: a slot made after a failover would leave a hole, and slots can
move backwards. What the repository holds decides, along the path of the server's timeline: streaming goes on at the
segment in which contiguous WAL ends. The candidates are tried in order; only when the server refuses one (it no
longer has that WAL) does the next one leave a gap.

Holes between what is stored are asked for as well, while they matter: one that the ledger of gaps knows was refused
before, and what lies before the newest base backup expiry may have made (of a permanent backup it keeps little WAL).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from pgbackup.core.catalog import Catalog, Gap
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory

_RUNS_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Stream ``timeline`` from ``lsn`` (a segment's start). ``gaps``: what is lost when starting here."""

    timeline: int
    lsn: Lsn
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class _Run:
    """WAL without a hole: from ``begin``, to where ``timeline`` goes on at ``end``; both segments' starts."""

    begin: Lsn
    timeline: int
    end: Lsn


def plan_stream_start(
    catalog: Catalog, history: TimelineHistory, restart_lsn: Lsn | None, redo_lsn: Lsn, *, pieces: bool = True
) -> list[StreamStart]:
    """The places to start, best first.

    ``history`` is that of the server's current timeline, ``restart_lsn`` what our slot keeps (None without one),
    ``redo_lsn`` the server's current redo position, which it always has. Without ``pieces`` only whole segments are
    stored: then a timeline ends for us with the segment before its fork's, which is the next timeline's.
    """
    size = catalog.segment_bytes
    runs = _runs(catalog, history, pieces=pieces)
    kept = None if restart_lsn is None else Lsn(restart_lsn // size * size)
    redo = Lsn(redo_lsn // size * size)
    holes = list(_holes(runs, catalog, history, kept))
    starts = {hole.start: hole.timeline for hole in holes}
    if runs:
        starts[runs[-1].end] = runs[-1].timeline
    end = runs[-1].end if runs else Lsn(0)
    if kept is not None and (not runs or kept > end or any(hole.start < kept < hole.end for hole in holes)):
        starts[kept] = _timeline_at(history, kept, size)
    if redo > max(starts, default=Lsn(0)) or not starts:
        starts[redo] = _timeline_at(history, redo, size)
    # Where nothing is stored yet, WAL is lost that the slot should have kept.
    behind = Gap(0, end if runs else kept if kept is not None else redo, max(starts))
    return [
        StreamStart(timeline, lsn, tuple(_lost_before(lsn, timeline, [*holes, behind])))
        for lsn, timeline in sorted(starts.items())
    ]


def _holes(runs: list[_Run], catalog: Catalog, history: TimelineHistory, kept: Lsn | None) -> Iterator[Gap]:
    """The holes between runs that are asked for: those of which the slot keeps something, and those after the newest
    base backup that are not in the ledger."""
    newest = _newest_backup(catalog, history)
    ledger = [gap for gap in catalog.known_gaps if history.holds(gap.timeline, gap.end)]
    for run, later in pairwise(runs):
        first = SegmentName.containing(run.timeline, run.end, catalog.segment_bytes)
        # By the server's own history, of which the repository may lack a file.
        known = next((gap for gap in ledger if gap.covers(first, history)), None)
        if known is not None and known.end >= later.begin:
            continue
        if later.begin > newest or (kept is not None and later.begin > kept):
            yield Gap(run.timeline, run.end, later.begin)


def _newest_backup(catalog: Catalog, history: TimelineHistory) -> Lsn:
    """Where the newest backup on the path begins, of those that can be restored; 0 when there is none."""
    on_path = (b for b in catalog.backups if history.holds(b.timeline, b.stop_lsn))
    return max((b.start_lsn for b in on_path if not catalog.why_not_restorable(b)), default=Lsn(0))


def _lost_before(lsn: Lsn, timeline: int, holes: Iterable[Gap]) -> Iterator[Gap]:
    for hole in holes:
        if hole.start < lsn:
            yield Gap(timeline, hole.start, min(hole.end, lsn))


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


def _runs(catalog: Catalog, history: TimelineHistory, *, pieces: bool) -> list[_Run]:
    """The newest unbroken runs along a path, on the last timeline that has any, oldest first."""
    size = catalog.segment_bytes
    for timeline, begin, fork in reversed(history.path()):
        runs = []
        for first, end in _runs_on(catalog, timeline, begin, fork)[-_RUNS_LOOKED_AT:]:
            at = StreamStart(timeline, Lsn(end * size))
            if fork is not None and _reaches(catalog, timeline, end, fork, pieces=pieces):
                at = _at_fork(history, fork, size)
            runs.append(_Run(Lsn(first * size), at.timeline, at.lsn))
        if runs:
            return runs
    return []


def _runs_on(catalog: Catalog, timeline: int, begin: Lsn, fork: Lsn | None) -> list[tuple[int, int]]:
    """The runs on a timeline: the first number, and the first that is missing; an open segment behind a hole is one."""
    size = catalog.segment_bytes
    first = begin // size
    last = fork // size if fork is not None else None
    runs: list[tuple[int, int]] = []
    for number in catalog.segments.get(timeline, ()):
        if number < first or (last is not None and number > last):
            continue
        if runs and runs[-1][1] == number:
            runs[-1] = runs[-1][0], number + 1
        else:
            runs.append((number, number + 1))
    tail = max((s.number for s in catalog.tails if s.timeline == timeline and s.number >= first), default=None)
    if tail is not None and (not runs or tail > runs[-1][1]):
        runs.append((tail, tail))
    return runs


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
