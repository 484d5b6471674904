"""Gaps that are known: WAL that the server had removed before it could be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory


@dataclass(frozen=True, slots=True)
class KnownGap:
    """WAL ``[start, end)`` of the path of ``timeline`` is lost; ``found`` (aware) when that was noticed."""

    timeline: int
    start: Lsn
    end: Lsn
    found: datetime
    reason: str
    acknowledged: datetime | None = None
    acknowledged_by: str = ""
    comment: str = ""

    @property
    def name(self) -> str:
        """``1/0/5000000``: timeline and start."""
        return f"{self.timeline}/{self.start}"

    def covers(self, segment: SegmentName, path: TimelineHistory) -> bool:
        """Whether a missing segment is part of this gap. ``path`` is that of the gap's timeline, or one that goes on
        from it after the gap.

        A gap names the timeline where streaming went on, and the segments before it may be an ancestor's. What another
        branch has at the same positions (a restore to a moment before the gap comes by them again) is missing for
        another reason; so is an ancestor's segment where the history that would prove it the gap's is not there.
        """
        if not (segment.start < self.end and segment.end > self.start):
            return False
        return path.segment_for(segment.number, segment.segment_bytes) == segment
