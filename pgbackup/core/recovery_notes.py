"""What people should know of a recovery plan before they follow it: what was left out, and what is doubtful."""

from __future__ import annotations

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.found_damaged import Damaged, found_damage
from pgbackup.core.lsn import Lsn
from pgbackup.core.recovery_choice import left_out, not_damaged, why_left_out
from pgbackup.core.recovery_path import WalPath, other_branches
from pgbackup.core.timeline import TimelineHistory


def notes_of(
    catalog: Catalog, history: TimelineHistory, backup: Backup, path: WalPath, end: Lsn, damaged: Damaged
) -> list[str]:
    """A line each, for a plan that begins with ``backup`` and goes along ``path`` to ``end``."""
    notes = [f"{newer.name} is newer but not used: {why}" for newer, why in left_out(catalog, history, backup)]
    if why := why_left_out(catalog, backup):
        notes.append(f"{backup.name} was named, though {why}")
    if damage := found_damage(catalog, backup, damaged):
        other = not_damaged(catalog, history, backup, end, damaged)
        instead = f"; {other.name} was not found damaged and gets there too: --backup {other.name}" if other else ""
        notes.append(
            f"{backup.name}: {damage.text(backup)}; `pgbackup verify --backup {backup.name}` says whether it is "
            f"still{instead}"
        )
    for branch in other_branches(catalog, history):
        notes.append(
            f"timeline {branch.timeline} is another branch, with WAL to {branch.end}: --timeline {branch.timeline} "
            "recovers along it"
        )
    if path.files and path.files[-1].source == "cut":
        notes.append(f"timeline {history.timeline} has no WAL of its own yet: recovery ends at its fork, {path.end}")
    return notes
