"""A deletion that somebody asks for in the words of WAL-E and WAL-G, as a retention policy for this once.

``retain 5`` and ``before base_…`` name the oldest backup to keep. Everything else is decided as for every expiry:
chains stay whole, permanent backups stay, WAL goes up to what the kept ones need, and the guards count. Backups count
in order of time, newest first, and only those that can be restored: so never more goes than was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import is_segment_name
from pgbackup.core.retention_policy import RetentionPolicy, newest_first, time_of

Chain = Literal["as named", "FULL", "FIND_FULL"]
_SEGMENT_DIGITS, _TIMELINE_DIGITS = 24, 8


class NotDeletable(ValueError):
    """The request cannot be carried out; the text is for people, ``hint`` says what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Retain:
    """Keep the newest ``count`` backups. ``FULL``: so many full ones; ``FIND_FULL``: back to a full one."""

    count: int
    chain: Chain = "as named"
    after: str | datetime | None = None
    """Keep everything from this backup or moment on as well."""


@dataclass(frozen=True, slots=True)
class Before:
    """Remove everything before a backup, by its name, before the first backup from a moment on, or before a segment.

    A segment is WAL-E's word, and no backup need start in it: the last one before it stays, for what follows needs it.
    """

    point: str | datetime
    chain: Chain = "as named"


def oldest_to_keep(catalog: Catalog, request: Retain | Before) -> Backup | None:
    """The oldest backup that stays, or None when there is nothing to remove. Raises NotDeletable."""
    restorable = newest_first([b for b in catalog.backups if not catalog.why_not_restorable(b)])
    if isinstance(request, Before):
        found = _at(catalog, restorable, request.point)
    else:
        counted = [b for b in restorable if b.delta_of is None or request.chain != "FULL"]
        if len(counted) < request.count:
            return None
        found = counted[request.count - 1]
        if request.after is not None:
            other = _at(catalog, restorable, request.after)
            if other is None and isinstance(request.after, str):
                return None
            found = max(found, other or found, key=restorable.index)
    if found is None or found.delta_of is None:
        return found
    if request.chain != "FIND_FULL":
        raise NotDeletable(
            f"{found.name}, the oldest backup to keep, is a delta of {found.delta_of}",
            "Say FIND_FULL before the number or the name, to keep the full backup that it builds on.",
        )
    return next((b for b in restorable[restorable.index(found) :] if b.delta_of is None), found)


def policy_for(catalog: Catalog, oldest: Backup, *, min_restorable: int) -> RetentionPolicy:
    """The policy that keeps ``oldest``, which can be restored, and every later one."""
    restorable = newest_first([b for b in catalog.backups if not catalog.why_not_restorable(b)])
    return RetentionPolicy(restorable.index(oldest) + 1, timedelta(0), min_restorable=min_restorable)


def starts_in(backup: Backup, segment: str) -> bool:
    """Whether the backup begins in the segment of that name."""
    return _first_segment(backup) == segment


def _at(catalog: Catalog, restorable: Sequence[Backup], point: str | datetime) -> Backup | None:
    """The backup that a name means; the first one from a moment on, the last one up to a segment, or None."""
    if isinstance(point, datetime):
        return next((b for b in reversed(restorable) if time_of(b) >= point), None)
    if is_segment_name(point):
        found = next((b for b in catalog.backups if starts_in(b, point)), None)
        if found is None:
            return next((b for b in restorable if _is_up_to(_first_segment(b), point)), None)
    else:
        found = next((b for b in catalog.backups if point in (b.name, b.name.partition("_D_")[0])), None)
    if found is None:
        raise NotDeletable(
            f"there is no backup {point}",
            "pgbackup backup-list shows the names; the name of a segment need not be one in which a backup starts.",
        )
    if why := catalog.why_not_restorable(found):
        raise NotDeletable(
            f"{found.name}, the oldest backup to keep, cannot be restored: {why}",
            "Name an older one that can be; pgbackup list shows which.",
        )
    return found


def _first_segment(backup: Backup) -> str:
    return backup.name.removeprefix("base_")[:_SEGMENT_DIGITS]


def _is_up_to(segment: str, last: str) -> bool:
    """Neither of a later timeline nor at a later place: what comes first in time is told by neither alone."""
    cut = _TIMELINE_DIGITS
    return segment[:cut] <= last[:cut] and segment[cut:] <= last[cut:]
