"""Gaps that are known: WAL that the server had removed before it could be shipped, and what that means now.

A gap is critical until a base backup that begins after it is there; then it is a known loss (no moment inside it can be
recovered), which stays a warning until somebody acknowledges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pgbackup.core.findings import FactValue, Finding, Severity
from pgbackup.core.lsn import Lsn, SegmentName

if TYPE_CHECKING:
    from pgbackup.core.catalog import Catalog
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

    def covers(self, segment: SegmentName) -> bool:
        """Whether a missing segment is part of this gap. A gap names the timeline where streaming went on, and the
        segments before it may be an ancestor's, so only the positions count."""
        return segment.start < self.end and segment.end > self.start


def gap_of(gaps: Iterable[KnownGap], segment: SegmentName) -> KnownGap | None:
    """The gap that a missing segment is part of."""
    return next((gap for gap in gaps if gap.covers(segment)), None)


def backup_after(gap: KnownGap, catalog: Catalog) -> bool:
    """Whether a restorable base backup begins after the gap, on a path that went through it."""
    return any(
        backup.start_lsn >= gap.end
        and catalog.history(backup.timeline).includes(gap.timeline)
        and not catalog.why_not_restorable(backup)
        for backup in catalog.backups
    )


def gap_findings(
    gaps: Iterable[KnownGap], catalog: Catalog, current: TimelineHistory | None = None
) -> Iterator[Finding]:
    """What has to be said of the gaps. ``current``: the server's path, where known; a gap on a branch that was left
    does not keep what the server writes now from being recovered."""
    for gap in gaps:
        behind_us = current is not None and not current.holds(gap.timeline, gap.end)
        lost = f"WAL {gap.start} to {gap.end} of timeline {gap.timeline} is lost ({gap.reason})"
        facts: dict[str, FactValue] = {"timeline": gap.timeline, "start_lsn": str(gap.start), "end_lsn": str(gap.end)}
        if not behind_us and not backup_after(gap, catalog):
            yield Finding(
                f"gap:{gap.name}",
                Severity.CRITICAL,
                f"{lost}, and no base backup was finished since: nothing after it can be recovered",
                "A base backup is started by itself; `pgbackup backup` takes one at once.",
                facts,
            )
        elif gap.acknowledged is None:
            yield Finding(
                f"gap:{gap.name}",
                Severity.WARNING,
                f"{lost}; what came after it can be recovered",
                f"No moment in it can be recovered: `pgbackup gaps acknowledge {gap.name}` when that is known.",
                facts,
            )
