"""What a recorded verification found damaged, as whoever chooses a backup is told it.

It refuses no restore: the objects may be back since, and a damaged backup may be all that is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from pgbackup.core.backup import Backup
from pgbackup.core.backup_chain import BrokenChain
from pgbackup.core.catalog import Catalog

Damaged = Mapping[str, datetime | None]
"""What is recorded: the backups, and when each was found damaged (None: not known)."""


@dataclass(frozen=True, slots=True)
class FoundDamage:
    """``backup`` was damaged, or its WAL, when a verification last read it, which ended at ``moment``."""

    backup: str
    moment: datetime | None

    def text(self, of: Backup, zone: tzinfo = UTC) -> str:
        """What is to be said of ``of``, a clause for people."""
        which = "" if self.backup == of.name else f"{self.backup}, which it builds on, was "
        when = f", {self.moment.astimezone(zone).isoformat(sep=' ', timespec='seconds')}" if self.moment else ""
        return f"{which}found damaged (or its WAL) when it was last verified{when}"


def found_damage(catalog: Catalog, backup: Backup, damaged: Damaged) -> FoundDamage | None:
    """What was found of a backup, or of what it builds on."""
    try:
        chain = catalog.chain(backup)
    except BrokenChain:
        chain = (backup,)
    return next((FoundDamage(link.name, damaged[link.name]) for link in reversed(chain) if link.name in damaged), None)
