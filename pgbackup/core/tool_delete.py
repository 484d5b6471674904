"""Whether `delete before BACKUP` of WAL-E or WAL-G removes exactly what an expiry plan removes.

Both order backups and WAL by the number of the segment in a name, WAL-E without regard to timelines; both remove all
WAL before the segment of the backup that they are told, and keep that one. So a plan can be expressed where everything
lies on one timeline, the kept backups are the newest, none of the others is permanent, and the WAL that goes ends
at the oldest kept backup. Everything else is for our own expiry.
"""

from __future__ import annotations

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.retention import ExpiryPlan


def oldest_to_keep(plan: ExpiryPlan, catalog: Catalog) -> Backup | None:
    """The backup to name to the tool, or None when the plan cannot be expressed."""
    kept = [verdict.backup for verdict in plan.backups if verdict.keep]
    removed = plan.removed
    if not removed or not kept or plan.histories or len(catalog.timelines) != 1 or len(plan.wal) > 1:
        return None
    size = catalog.segment_bytes
    oldest = min(kept, key=lambda backup: backup.start_lsn)
    horizon = oldest.start_lsn // size
    if any(backup.permanent or backup.delta_of for backup in (*removed, *kept)):
        return None
    if any(backup.start_lsn // size >= horizon for backup in removed):
        return None
    before = [number for number in catalog.segments.get(oldest.timeline, ()) if number < horizon]
    before += [tail.number for tail in catalog.tails if tail.number < horizon]
    going = plan.wal[0] if plan.wal else None
    if going is None:
        return oldest if not before else None
    covered = all(going.begin <= number < going.end for number in before)
    return oldest if covered and going.newest < horizon else None
