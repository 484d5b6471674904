"""When expiry does not act at all: what it sees is not what a healthy repository looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.core.catalog import Catalog
from pgbackup.core.clusters import clusters_of
from pgbackup.core.lsn import SegmentName
from pgbackup.core.retention_choice import Choice
from pgbackup.core.retention_policy import LastListing, RetentionPolicy, newest_first, time_of
from pgbackup.count_text import counted

CLOCK_DOUBT = timedelta(hours=1)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing may be removed, and what to do next."""

    text: str
    hint: str


def refuse(
    catalog: Catalog, policy: RetentionPolicy, choice: Choice, now: datetime, previous: LastListing | None
) -> Refusal | None:
    """The first reason not to remove anything, or None."""
    guards: tuple[Callable[[], Refusal | None], ...] = (
        lambda: _another_cluster(catalog, previous),
        lambda: _segment_size(catalog),
        lambda: _vanished(catalog, previous),
        lambda: _unreadable_here(catalog),
        lambda: _no_restorable(catalog, choice),
        lambda: _wrong_clock(catalog, now),
        lambda: _newest_is_broken(catalog, choice),
        lambda: _too_few(policy, catalog, choice),
    )
    return next((refusal for guard in guards if (refusal := guard()) is not None), None)


def _another_cluster(catalog: Catalog, previous: LastListing | None) -> Refusal | None:
    """Clusters that follow each other (an upgrade) are one history, in which the last one goes on. Refused is what
    several write to at once, and what was claimed, or expired the last time, for another than the last one."""
    clusters = clusters_of(catalog)
    claimed = [catalog.system_identifier or 0, (previous.system_identifier if previous else None) or 0]
    wanted = clusters.identifiers[-1:] or tuple(each for each in claimed[:1] if each)
    others = [each for each in claimed if each and each not in wanted]
    if not clusters.mixed and (not others or not wanted):
        return None
    found = sorted({*clusters.identifiers, *wanted, *others})
    why = clusters.mixed or f"the prefix was taken for {others[0]}, and the newest backup is of {wanted[0]}"
    return Refusal(
        f"the prefix holds data of several clusters: system identifiers {', '.join(map(str, found))}; {why}",
        "Give each cluster a prefix of its own, and see which one PGBACKUP_REPOSITORY names. Clusters may only follow "
        "each other in one prefix, as pg_upgrade makes them.",
    )


def _segment_size(catalog: Catalog) -> Refusal | None:
    """Names of WAL are read by the segment size: with a wrong one, needed WAL looks old. Backups prove it, for each is
    named for the segment of its start (WAL-G on a standby: of the byte before)."""
    size = catalog.segment_bytes
    for backup in catalog.backups:
        start = backup.start_lsn
        fitting = [str(SegmentName.containing(backup.timeline, at, size)) for at in (start, max(start - 1, 0))]
        if start and backup.name.removeprefix("base_")[:24] not in fitting:
            return Refusal(
                f"backup {backup.name} starts at {start}, which is not in the segment that it is named for if segments "
                f"have {size} bytes",
                "See whether pgbackup_005/cluster.json is there and has the server's wal_segment_size.",
            )
    return None


def _vanished(catalog: Catalog, previous: LastListing | None) -> Refusal | None:
    if previous is None:
        return None
    gone = sorted(previous.backups - previous.removing - {b.name for b in catalog.backups})
    if not gone:
        return None
    more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
    return Refusal(
        f"backups are gone that expiry did not remove: {', '.join(gone[:_SHOWN])}{more}",
        "Find out who removed them; if that was meant, run pgbackup expire --apply --accept-missing once.",
    )


def _unreadable_here(catalog: Catalog) -> Refusal | None:
    """A backup that only this installation cannot read must not go as one that cannot be restored."""
    backup = next((b for b in catalog.backups if b.needs), None)
    if backup is None:
        return None
    return Refusal(f"whether backup {backup.name} can be restored is not known here: {backup.problem}", backup.needs)


def _no_restorable(catalog: Catalog, choice: Choice) -> Refusal | None:
    if len(choice.problems) < len(catalog.backups):
        return None
    return Refusal("no backup can be restored", "Take a backup; pgbackup list shows what is wrong with those there.")


def _wrong_clock(catalog: Catalog, now: datetime) -> Refusal | None:
    newest = max(time_of(b) for b in catalog.backups)
    if newest - now <= CLOCK_DOUBT:
        return None
    return Refusal(
        f"the clock says {now.isoformat(timespec='seconds')}, but a backup finished at "
        f"{newest.isoformat(timespec='seconds')}",
        "Set the clocks of this machine, of the store and of the database server.",
    )


def _newest_is_broken(catalog: Catalog, choice: Choice) -> Refusal | None:
    newest = newest_first(list(catalog.backups))[0]
    if newest.name not in choice.problems:
        return None
    return Refusal(
        f"the newest backup, {newest.name}, cannot be restored: {choice.problems[newest.name]}",
        "Find out what went wrong and take a backup; the older ones stay until one can be restored again.",
    )


def _too_few(policy: RetentionPolicy, catalog: Catalog, choice: Choice) -> Refusal | None:
    left = sum(b.name in choice.reasons and b.name not in choice.problems for b in catalog.backups)
    if left >= policy.min_restorable:
        return None
    return Refusal(
        f"{counted(left, 'restorable backup')} would be left, and at least {policy.min_restorable} must be",
        "Take backups until there are enough, or lower the number that must be left.",
    )
