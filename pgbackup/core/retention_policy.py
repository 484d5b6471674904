"""What shall be kept, and what expiry is told besides the catalog: the last listing, and work under way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.core.backup import Backup
from pgbackup.core.lsn import Lsn


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What stays: a backup goes only when none of these wants it.

    ``backups``: so many of the newest. ``window``: every moment of that long stays recoverable. ``daily`` to
    ``yearly``: the newest backup of each of so many days, weeks (ISO), months and years that have one.
    ``min_restorable``: expiry refuses to leave fewer. Only restorable backups count anywhere.
    """

    backups: int = 7
    window: timedelta = timedelta(days=7)
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    min_restorable: int = 1

    def __post_init__(self) -> None:
        counts = (self.backups, self.daily, self.weekly, self.monthly, self.yearly)
        if min(counts) < 0 or self.window < timedelta(0) or self.min_restorable < 1:
            raise ValueError(f"not a retention policy: {self}")


@dataclass(frozen=True, slots=True)
class LastListing:
    """The backups that the last expiry saw, and those that it meant to remove: all others must still be there."""

    system_identifier: int | None
    backups: frozenset[str]
    removing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A base backup that is not sealed yet, and needs the WAL from its start on."""

    timeline: int
    start_lsn: Lsn


def time_of(backup: Backup) -> datetime:
    """By which backups are ordered: when it finished; the sentinel's age where its documents cannot be read."""
    return backup.finished if backup.finished.year > 1970 else backup.modified


def newest_first(backups: list[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda b: (time_of(b), b.name), reverse=True)


def span_text(span: timedelta) -> str:
    """``7 d``, ``36 h``, ``90 min``."""
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
