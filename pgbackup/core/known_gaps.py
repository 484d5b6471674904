"""Gaps that are known: WAL that the server had removed before it could be shipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.lsn import Lsn, SegmentName


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

    def covers(self, segment: SegmentName) -> bool:
        """Whether a missing segment is part of this gap. A gap names the timeline where streaming went on, and the
        segments before it may be an ancestor's; but one of a later timeline, which may come by the same positions after
        a restore to a moment before the gap, is missing for another reason."""
        return segment.timeline <= self.timeline and segment.start < self.end and segment.end > self.start


def gap_of(gaps: Iterable[KnownGap], segment: SegmentName) -> KnownGap | None:
    """The gap that a missing segment is part of."""
    return next((gap for gap in gaps if gap.covers(segment)), None)
