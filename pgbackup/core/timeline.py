"""Timelines: history files, and which timeline owns which byte of WAL.

A history file ``TTTTTTTT.history`` lists the ancestors of timeline T, oldest first, a line each: parent timeline, the
LSN at which the next one forked off, a reason; fields are separated by tabs (Postgres: src/backend/access/transam/
timeline.c, ``readTimeLineHistory``). Timeline 1 has none. A byte at or after a fork belongs to the child, and the
segment that holds the fork exists on both: the child's copy begins with the parent's bytes.

The forks need not be in order. A recovery along timeline 2 to a moment before 2 began ends on timeline 1, and Postgres
all the same names 2 as the parent of what comes: ``1 X``, ``2 Y`` with Y before X. As for Postgres, the newest timeline
that has begun at a byte owns it, so 1 owns all before Y there, and 2 nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

from pgbackup.core.lsn import Lsn, SegmentName

MAX_HISTORY_BYTES = 1 << 20
"""More is no history file: a line a timeline, and its reason."""
_HISTORY_NAME = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One line of a history file: ``timeline`` was left at ``fork`` for the next one, unless that left it earlier."""

    timeline: int
    fork: Lsn
    reason: str = ""

    @property
    def was_chosen(self) -> bool:
        """Whether recovery ended at a target that somebody had set: what lies behind it was left on purpose.

        The server writes so (xlogrecovery.c, getRecoveryStopReason); after a promotion and at the end of the archive
        it is ``no recovery target specified``.
        """
        return self.reason.startswith(("before ", "after ", "at restore point ", "reached consistency"))


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

    @property
    def forked_from(self) -> int:
        """The timeline that owns the byte before ``begin``; its own number for one without ancestors."""
        return self.owner(self.begin - 1) if self.begin else self.timeline

    def path(self) -> list[tuple[int, Lsn, Lsn | None]]:
        """The way from the oldest ancestor: (timeline, first LSN it owns, first LSN it no longer owns or None)."""
        rows: list[tuple[int, Lsn, Lsn | None]] = []
        begin = Lsn(0)
        for ancestor, end in zip(self.ancestors, self._ends(), strict=True):
            rows.append((ancestor.timeline, begin, end))
            begin = end
        rows.append((self.timeline, begin, None))
        return rows

    def owner(self, lsn: int) -> int:
        """The timeline on this path that owns the byte at ``lsn``."""
        owner = self.timeline
        for ancestor in reversed(self.ancestors):
            if lsn >= ancestor.fork:
                break
            owner = ancestor.timeline
        return owner

    def end_of(self, timeline: int) -> Lsn | None:
        """Where ``timeline`` stops owning bytes on this path; None for the newest. KeyError when it is not on it."""
        for ancestor, end in zip(self.ancestors, self._ends(), strict=True):
            if ancestor.timeline == timeline:
                return end
        if timeline == self.timeline:
            return None
        raise KeyError(timeline)

    def _ends(self) -> list[Lsn]:
        """Where each ancestor stops owning bytes: at its fork, or at a later timeline's that lies before it."""
        return list(accumulate((ancestor.fork for ancestor in reversed(self.ancestors)), min))[::-1]

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
    """Read a history file. Raises ValueError when a line is not one, or the timelines are not in order."""
    ancestors: list[Ancestor] = []
    # Not splitlines: the name of a restore point may hold what else counts as the end of a line.
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(None, 2)
        if len(fields) < 2 or not fields[0].isdigit():
            raise ValueError(f"not a line of a history file: {line!r}")
        ancestor = Ancestor(int(fields[0]), Lsn.parse(fields[1]), fields[2].strip() if len(fields) > 2 else "")
        if ancestors and ancestor.timeline <= ancestors[-1].timeline:
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
