"""What has to be said of the gaps that are known.

A gap is critical until a base backup that begins after it is there; then it is a known loss (no moment inside it can be
recovered), which stays a warning until somebody acknowledges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgbackup.core.catalog import Catalog
from pgbackup.core.findings import FactValue, Finding, Severity
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.timeline import TimelineHistory


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
