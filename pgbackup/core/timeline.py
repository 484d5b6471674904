"""Timelines: history files, and which timeline owns which byte of WAL.

A history file ``TTTTTTTT.history`` lists the ancestors of timeline T, oldest first, a line each: parent timeline, the
LSN at which the next one forked off, a reason; fields are separated by tabs (Postgres: src/backend/access/transam/
timeline.c, ``readTimeLineHistory``). Timeline 1 has none. A byte at or after a fork belongs to the child, and the
segment that holds the fork exists on both: the child's copy begins with the parent's bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgbackup.core.lsn import Lsn, SegmentName

_HISTORY_NAME = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One line of a history file: ``timeline`` was left at ``fork`` for the next one."""

    timeline: int
    fork: Lsn
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """Timeline ``timeline`` and its ancestors, oldest first."""

    timeline: int
    ancestors: tuple[Ancestor, ...] = ()

    @property
    def parent(self) -> Ancestor | None:
        return self.ancestors[-1] if self.ancestors else None

    @property
    def begin(self) -> Lsn:
        """Where this timeline forked off its parent; 0 for one without ancestors."""
        return self.ancestors[-1].fork if self.ancestors else Lsn(0)

    def path(self) -> list[tuple[int, Lsn, Lsn | None]]:
        """The way from the oldest ancestor: (timeline, first LSN it owns, first LSN it no longer owns or None)."""
        rows: list[tuple[int, Lsn, Lsn | None]] = []
        begin = Lsn(0)
        for ancestor in self.ancestors:
            rows.append((ancestor.timeline, begin, ancestor.fork))
            begin = ancestor.fork
        rows.append((self.timeline, begin, None))
        return rows

    def owner(self, lsn: int) -> int:
        """The timeline on this path that owns the byte at ``lsn``."""
        for ancestor in self.ancestors:
            if lsn < ancestor.fork:
                return ancestor.timeline
        return self.timeline

    def end_of(self, timeline: int) -> Lsn | None:
        """Where ``timeline`` stops owning bytes on this path; None for the newest. KeyError when it is not on it."""
        for ancestor in self.ancestors:
            if ancestor.timeline == timeline:
                return ancestor.fork
        if timeline == self.timeline:
            return None
        raise KeyError(timeline)

    def includes(self, timeline: int) -> bool:
        return timeline == self.timeline or any(a.timeline == timeline for a in self.ancestors)

    def holds(self, timeline: int, lsn: int) -> bool:
        """Whether position ``lsn`` reached on ``timeline`` is part of this path (a position *at* the fork is)."""
        if not self.includes(timeline):
            return False
        end = self.end_of(timeline)
        return end is None or lsn <= end

    def segment_for(self, number: int, segment_bytes: int) -> SegmentName:
        """The one file that recovery along this path reads for a segment number.

        It is the newest timeline that begins in or before the segment: the segment of a fork comes from the child.
        """
        last_byte = (number + 1) * segment_bytes - 1
        return SegmentName(self.owner(last_byte), number, segment_bytes)


def parse_history(timeline: int, text: str) -> TimelineHistory:
    """Read a history file. Raises ValueError when a line is not one, or the order is impossible."""
    ancestors: list[Ancestor] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(None, 2)
        if len(fields) < 2 or not fields[0].isdigit():
            raise ValueError(f"not a line of a history file: {line!r}")
        ancestor = Ancestor(int(fields[0]), Lsn.parse(fields[1]), fields[2].strip() if len(fields) > 2 else "")
        if ancestors and (ancestor.timeline <= ancestors[-1].timeline or ancestor.fork < ancestors[-1].fork):
            raise ValueError(f"history of timeline {timeline} is not in order at {line!r}")
        if ancestor.timeline >= timeline:
            raise ValueError(f"history of timeline {timeline} names timeline {ancestor.timeline} as its ancestor")
        ancestors.append(ancestor)
    return TimelineHistory(timeline, tuple(ancestors))


def history_name(timeline: int) -> str:
    return f"{timeline:08X}.history"


def parse_history_name(name: str) -> int | None:
    """The timeline of ``TTTTTTTT.history``, or None when the name is not of that shape."""
    match = _HISTORY_NAME.fullmatch(name)
    return int(match[1], 16) if match else None
