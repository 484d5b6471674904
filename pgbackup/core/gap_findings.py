"""What has to be said of the gaps that are known.

A gap is critical until a base backup that begins after it is there; then it is a known loss (no moment inside it can be
recovered), which stays a warning until somebody acknowledges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.findings import FactValue, Finding, Severity
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.timeline import TimelineHistory


def backup_after(gap: KnownGap, catalog: Catalog) -> bool:
    """Whether a restorable base backup begins after the gap, on a path that went through it."""
    return any(
        backup.start_lsn >= gap.end
        and catalog.history(backup.timeline).holds(gap.timeline, gap.end)
        and not catalog.why_not_restorable(backup)
        for backup in catalog.backups
    )


def gaps_need_backup(catalog: Catalog, newest: Backup) -> bool:
    """Whether a gap lies after ``newest``, the newest restorable backup, and none begins after it.

    By positions, not by times: those of gaps are of our clock, those of backups of the server's. A gap of a branch that
    ``newest`` is not on is nothing that another backup mends.
    """
    for gap in catalog.known_gaps:
        on_one_path = catalog.history(gap.timeline).holds(newest.timeline, newest.stop_lsn) or catalog.history(
            newest.timeline
        ).holds(gap.timeline, gap.end)
        if on_one_path and newest.start_lsn < gap.end and not backup_after(gap, catalog):
            return True
    return False


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
