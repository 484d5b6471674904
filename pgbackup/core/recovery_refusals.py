"""Why a restore is refused, in words that say what could succeed. Every function returns the error to raise."""

from __future__ import annotations

from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.recovery_target import Target, time_text
from pgbackup.core.timeline import TimelineHistory
from pgbackup.errors import RestoreError

_RANGES_SHOWN = 4
_UNUSABLE_SHOWN = 2


def what_could_succeed(catalog: Catalog) -> str:
    """The recoverable ranges, for people."""
    ranges = catalog.recoverable()
    if not ranges:
        return "no backup of the repository is restorable"
    rows = []
    for row in ranges[-_RANGES_SHOWN:]:
        until = time_text(row.end_time) if row.end_time else "its end"
        where = f"(LSN {row.start} to {row.end}, {row.backup})"
        rows.append(f"timeline {row.timeline}: {time_text(row.start_time)} to {until} {where}")
    return "recoverable: " + "; ".join(rows)


def no_such_backup(catalog: Catalog, name: str) -> RestoreError:
    known = ", ".join(b.name for b in catalog.backups[-_RANGES_SHOWN:]) or "none"
    return RestoreError(f"the repository has no backup {name}", detail=f"the newest are: {known}", hint=_LIST)


def unusable(backup: Backup, problem: str) -> RestoreError:
    return RestoreError(f"backup {backup.name} cannot be restored", detail=problem, hint=backup.needs or _LIST)


def no_backup(catalog: Catalog, history: TimelineHistory) -> RestoreError:
    return RestoreError(
        f"no restorable backup is on the path of timeline {history.timeline}",
        detail="; ".join([*_unusable_ones(catalog), what_could_succeed(catalog)]),
        hint=_LIST,
    )


def all_unusable(catalog: Catalog) -> RestoreError:
    return RestoreError(
        "no backup of the repository can be restored", detail="; ".join(_unusable_ones(catalog)), hint=_LIST
    )


def _unusable_ones(catalog: Catalog) -> list[str]:
    """The newest backups that cannot be restored for what they are, with the reason."""
    damaged = [backup for backup in catalog.backups if backup.problem]
    return [f"{backup.name} cannot be used: {backup.problem}" for backup in damaged[-_UNUSABLE_SHOWN:]]


def before_backup(catalog: Catalog, target: Target, first: Backup) -> RestoreError:
    first_end = f"{first.name} ended at {time_text(first.finished)}, LSN {first.stop_lsn}"
    return RestoreError(
        f"{target} lies before the end of the first backup that could be used",
        detail="; ".join([first_end, *_unusable_ones(catalog), what_could_succeed(catalog)]),
        hint="Choose a later target, or another --timeline or --backup.",
    )


def beyond_archive(
    catalog: Catalog, target: Target, end: Lsn, known: datetime | None, last_commit: datetime | None = None
) -> RestoreError:
    facts = [f"WAL ends at {end}"]
    if known is not None:
        facts.append(f"the newest moment that the archive is known to reach is {time_text(known)}")
    if last_commit is not None:
        facts.append(f"the last transaction in it ended at {time_text(last_commit)}")
    return RestoreError(
        f"{target} lies beyond the archive",
        detail="; ".join([*facts, what_could_succeed(catalog)]),
        hint="Use --latest to recover everything that the archive has.",
    )


def ends_early(target: Target, ahead: TimeMark, behind: TimeMark) -> RestoreError:
    return RestoreError(
        f"the clock of the server was ahead for a while, and recovery to {target} would end too early",
        detail=f"at LSN {ahead.lsn} it showed {time_text(ahead.moment)}, behind that, at {behind.lsn}, "
        f"{time_text(behind.moment)}",
        hint=f"Choose a --backup that was taken after {ahead.lsn}, or a position: --to-lsn {behind.lsn} is the newest "
        "that is known to lie before that time.",
    )


def missing_segment(catalog: Catalog, missing: SegmentName, end: Lsn, what_for: str) -> RestoreError:
    return RestoreError(
        f"WAL segment {missing} is missing{catalog.why_missing(missing)}",
        detail=f"WAL goes without a hole to {end}, but {what_for}; {what_could_succeed(catalog)}",
        hint="Choose a target before the hole, or a backup after it; --accept-loss recovers with --latest to the hole.",
    )


def confirmed_missing(end: Lsn, confirmed: Lsn) -> RestoreError:
    return RestoreError(
        f"the archive ends at {end}, but WAL to {confirmed} had been confirmed as durable",
        detail=f"{confirmed - end} bytes of WAL that were in the repository are not there now",
        hint="Find out who removed them; --accept-loss restores without them.",
    )


def confirmed_elsewhere(chosen: int, confirmed: int, lsn: Lsn) -> RestoreError:
    return RestoreError(
        f"the last WAL that was confirmed is of timeline {confirmed}, at {lsn}, and the path of timeline {chosen} does "
        "not lead there",
        detail=f"what was written on timeline {confirmed} would be missing",
        hint=f"Say which branch is meant: --timeline {confirmed}, or --timeline {chosen} to leave it out.",
    )


def not_found(target: Target, history: TimelineHistory, last_commit: datetime | None) -> RestoreError:
    newest = f"; the last transaction in it ended at {time_text(last_commit)}" if last_commit else ""
    return RestoreError(
        f"{target} is not in the archived WAL",
        detail=f"the WAL after the backups on the path of timeline {history.timeline} was read to its end{newest}",
        hint="Leave out --backup, look along another --timeline, or name a time or an LSN instead.",
    )


def not_proven(target: Target) -> RestoreError:
    return RestoreError(
        f"which backup ended before {target} is not known without reading the WAL",
        hint="Name the backup with --backup, or let the restore read the WAL.",
    )


_LIST = "Run `pgbackup list` to see what is there."
