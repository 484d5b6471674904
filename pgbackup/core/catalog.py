"""What a repository holds, as plain values: backups, WAL, tails of open segments, timelines; and what that recovers.

Built by ``repository.catalog_reader`` from a listing; everything here is pure. A *run* is an unbroken row of WAL along
one timeline. A moment is recoverable when a restorable backup ends before it and every segment from the backup's start
to it is there, on the path of one timeline.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import itemgetter

from pgbackup.core.backup import Backup
from pgbackup.core.backup_chain import chain_of, why_broken
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory, history_name

MOST_MISSING = 1000
"""So many missing segments are named, and no more looked for."""


@dataclass(frozen=True, slots=True)
class Gap:
    """WAL that is not in the repository: ``[start, end)`` on a timeline."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True)
class TimeMark:
    """At ``moment`` of the server's clock, WAL to ``lsn`` of ``timeline`` was durable."""

    moment: datetime
    timeline: int
    lsn: Lsn


@dataclass(frozen=True, slots=True)
class Reach:
    """How far recovery from a backup gets along a timeline: to ``end``; ``blocked_by`` is the first missing name."""

    end: Lsn
    blocked_by: SegmentName | None


@dataclass(frozen=True, slots=True)
class RecoverableRange:
    """Any moment from ``start`` to ``end`` (LSNs) on the path of ``timeline``, beginning with ``backup``.

    ``start_time`` is the backup's finish, or a time mark inside that is earlier: what it proves the backup's own clock,
    read a little later, does not take back. ``end_time`` is the newest time mark inside, or None when none is known.
    """

    timeline: int
    backup: str
    start: Lsn
    end: Lsn
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True)
class Catalog:
    """Everything a listing of a repository shows.

    ``segments``: timeline -> sorted numbers of whole segments. ``tails``: open segment -> end of its contiguous pieces,
    as an offset. ``histories``: timeline -> its history (timelines without a history file are not in it).
    """

    segment_bytes: int
    backups: tuple[Backup, ...] = ()
    segments: Mapping[int, Sequence[int]] = field(default_factory=dict)
    tails: Mapping[SegmentName, int] = field(default_factory=dict)
    histories: Mapping[int, TimelineHistory] = field(default_factory=dict)
    marks: tuple[TimeMark, ...] = ()
    system_identifier: int | None = None
    known_gaps: tuple[KnownGap, ...] = ()

    @cached_property
    def _runs(self) -> dict[int, list[tuple[int, int]]]:
        return {timeline: _runs_of(numbers) for timeline, numbers in self.segments.items()}

    def _run_end(self, timeline: int, number: int) -> int:
        """The first number from ``number`` on that is not a whole segment of a timeline."""
        runs = self._runs.get(timeline, [])
        found = bisect_right(runs, number, key=itemgetter(0)) - 1
        return max(number, runs[found][1]) if found >= 0 else number

    @cached_property
    def timelines(self) -> tuple[int, ...]:
        """Every timeline that anything in the repository belongs to."""
        found = set(self.segments) | set(self.histories) | {s.timeline for s in self.tails}
        return tuple(sorted(found | {backup.timeline for backup in self.backups}))

    def history(self, timeline: int) -> TimelineHistory:
        """The history of a timeline; one without a history file counts as without ancestors."""
        return self.histories.get(timeline) or TimelineHistory(timeline)

    def lacks_history(self, timeline: int) -> bool:
        """Whether a timeline's history file should be there and is not: then nobody knows how it came about."""
        return timeline != 1 and timeline not in self.histories

    def has(self, segment: SegmentName) -> bool:
        return self._run_end(segment.timeline, segment.number) > segment.number

    def backup(self, name: str) -> Backup | None:
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Backup]:
        return {backup.name: backup for backup in reversed(self.backups)}

    def chain(self, backup: Backup) -> tuple[Backup, ...]:
        """What a restore of ``backup`` needs, oldest first, itself last. Raises BrokenChain."""
        return chain_of(backup, self.backup)

    def why_chain_broken(self, backup: Backup) -> str:
        """Why a delta cannot be restored for what it builds on; empty when it can, and for full backups."""
        return why_broken(backup, self.backup)

    def why_misplaced(self, backup: Backup) -> str:
        """Why a backup cannot be of the timeline that it is named for; empty when nothing speaks against it."""
        begin = self.history(backup.timeline).begin
        if not 0 < backup.start_lsn < begin:
            return ""
        return f"it began at {backup.start_lsn}, before its timeline {backup.timeline} did, at {begin}"

    def reach(self, backup: Backup, timeline: int) -> Reach | None:
        """How far WAL goes without a hole from a backup's start along the path of ``timeline``.

        None when the backup is not on that path. A tail counts only on ``timeline`` itself (hazard: a tail of an older
        timeline is never replayed past a fork).
        """
        history = self.history(timeline)
        if not history.holds(backup.timeline, backup.stop_lsn):
            return None
        return self.reach_from(backup.start_lsn, history)

    def reach_from(self, start: Lsn, history: TimelineHistory) -> Reach:
        """How far WAL goes without a hole from the segment of ``start`` along a path."""
        number = start // self.segment_bytes
        while True:
            segment = history.segment_for(number, self.segment_bytes)
            end = self._run_end(segment.timeline, number)
            if end == number:
                break
            # Where the path leaves this timeline, the child's segments count, from that of the fork on.
            fork = history.end_of(segment.timeline)
            number = end if fork is None else min(end, fork // self.segment_bytes)
        end = segment.start
        tail = self.tails.get(segment, 0)
        if segment.timeline == history.timeline and tail:
            end = Lsn(segment.start + tail)
        return Reach(end, segment)

    def missing(self, start: Lsn, end: Lsn, history: TimelineHistory) -> list[SegmentName]:
        """The segments of ``[start, end)`` along a path that are not there, tails of the path's timeline counted.

        The first MOST_MISSING of them: the range is what a document says, and that may be anything.
        """
        found: list[SegmentName] = []
        for number in range(start // self.segment_bytes, -(-end // self.segment_bytes) if end > start else 0):
            if len(found) == MOST_MISSING:
                break
            segment = history.segment_for(number, self.segment_bytes)
            tail_end = segment.start + self.tails.get(segment, 0)
            covered = segment.timeline == history.timeline and tail_end >= end
            if not self.has(segment) and not covered:
                found.append(segment)
        return found

    def why_not_restorable(self, backup: Backup) -> str:
        """Empty when the backup can be restored at least to its own end; otherwise the reason, for people."""
        if backup.problem:
            return backup.problem
        if backup.corrupt_files:
            return f"pages are damaged in {', '.join(backup.corrupt_files[:3])}"
        if why := self.why_chain_broken(backup):
            return why
        if self.lacks_history(backup.timeline):
            return f"{history_name(backup.timeline)} is missing or damaged"
        if why := self.why_misplaced(backup):
            return why
        missing = self.missing(backup.start_lsn, backup.stop_lsn, self.history(backup.timeline))
        if missing:
            return f"WAL segment {missing[0]} is missing{self.why_missing(missing[0])}"
        return ""

    def known_gap(self, segment: SegmentName) -> KnownGap | None:
        """The gap of the ledger that a missing segment is part of."""
        return next((gap for gap in self.known_gaps if gap.covers(segment, self.history(gap.timeline))), None)

    def why_missing(self, segment: SegmentName) -> str:
        """What the ledger of gaps says of a missing segment, to be put behind its name; empty when it is not in it."""
        gap = self.known_gap(segment)
        return f" (lost: {gap.reason}, noticed {gap.found.isoformat(sep=' ', timespec='seconds')})" if gap else ""

    def runs(self, timeline: int) -> Sequence[tuple[int, int]]:
        """The unbroken runs of whole segments of a timeline, in order: first number, and the first after it."""
        return self._runs.get(timeline, ())

    def end_of_timeline(self, timeline: int) -> Lsn:
        """The end of the last byte of WAL that is stored for a timeline; 0 when there is none."""
        ends = [segment.start + end for segment, end in self.tails.items() if segment.timeline == timeline]
        numbers = self.segments.get(timeline, ())
        if numbers:
            ends.append((numbers[-1] + 1) * self.segment_bytes)
        return Lsn(max(ends, default=0))

    def leaf_timelines(self) -> list[int]:
        """Timelines at whose end recovery could stop: every one that anything belongs to, newest first."""
        return sorted(self.timelines, reverse=True)

    def recoverable(self) -> list[RecoverableRange]:
        """The recoverable ranges, oldest first; overlapping ranges of one timeline are joined."""
        ranges: list[RecoverableRange] = []
        for timeline in sorted(self.timelines):
            if self.lacks_history(timeline):
                continue
            ranges.extend(self._recoverable_on(timeline))
        return sorted(ranges, key=lambda r: (r.start_time, r.timeline))

    def _recoverable_on(self, timeline: int) -> list[RecoverableRange]:
        ranges: list[RecoverableRange] = []
        history = self.history(timeline)
        for backup in sorted(self.backups, key=lambda b: b.stop_lsn):
            if self.why_not_restorable(backup):
                continue
            reach = self.reach(backup, timeline)
            if reach is None or reach.end < backup.stop_lsn:
                continue
            if backup.timeline != timeline and reach.end <= history.begin:
                continue
            if ranges and backup.stop_lsn <= ranges[-1].end:
                continue
            known = self._marks_inside(history, backup.stop_lsn, reach.end)
            since = min(backup.finished, known[0].moment) if known else backup.finished
            until = known[-1].moment if known else None
            ranges.append(RecoverableRange(timeline, backup.name, backup.stop_lsn, reach.end, since, until))
        return ranges

    def _marks_inside(self, history: TimelineHistory, start: Lsn, end: Lsn) -> list[TimeMark]:
        """The moments known inside a range, in order of their positions: a clock that was set is not; marks of the
        ancestors count up to their fork."""
        found = [m for m in self.marks if start <= m.lsn <= end and history.holds(m.timeline, m.lsn)]
        return sorted(found, key=lambda m: (m.lsn, m.moment))


def _runs_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    begin = previous = None
    for number in numbers:
        if previous is None or begin is None:
            begin = number
        elif number != previous + 1:
            runs.append((begin, previous + 1))
            begin = number
        previous = number
    if begin is not None and previous is not None:
        runs.append((begin, previous + 1))
    return runs
