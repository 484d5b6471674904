"""Which base backups a recovery may begin with: on the path, restorable, and finished before the target."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

from pgbackup.core.backup import Backup, Tablespace
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.found_damaged import Damaged, found_damage
from pgbackup.core.lsn import Lsn
from pgbackup.core.recovery_path import is_on, wal_path
from pgbackup.core.recovery_refusals import no_such_backup, unusable
from pgbackup.core.retention_policy import time_of
from pgbackup.core.time_marks import by_position, fitting
from pgbackup.core.timeline import TimelineHistory

CLOCK_DOUBT = timedelta(seconds=5)
"""A backup's times may be another clock's than the server's: that close to a target they prove nothing."""


def chosen_by_name(catalog: Catalog, name: str | None) -> Backup | None:
    """The backup that the operator named. Raises RestoreError when it is not there or cannot be restored at all."""
    if name is None:
        return None
    backup = catalog.backup(name)
    if backup is None:
        raise no_such_backup(catalog, name)
    if problem := whole_problem(catalog, backup):
        raise unusable(backup, problem)
    return backup


def whole_problem(catalog: Catalog, backup: Backup) -> str:
    """Why a backup cannot be restored at all; damaged pages are no reason when the operator insists on it."""
    return backup.problem or catalog.why_chain_broken(backup) or catalog.why_misplaced(backup)


def why_left_out(catalog: Catalog, backup: Backup) -> str:
    """Why a backup is not chosen unless it is named; empty when it may be."""
    if problem := whole_problem(catalog, backup):
        return problem
    if backup.corrupt_files:
        return f"the server found damaged pages in {', '.join(backup.corrupt_files[:3])}"
    return ""


def candidates(catalog: Catalog, history: TimelineHistory, by_name: Backup | None) -> list[Backup]:
    """The backups that recovery along a path can begin with, newest first; only the named one where one is named."""
    if by_name is not None:
        return [by_name]
    found = [b for b in catalog.backups if is_on(b, history) and not why_left_out(catalog, b)]
    return sorted(found, key=lambda b: (b.stop_lsn, b.finished), reverse=True)


def left_out(catalog: Catalog, history: TimelineHistory, than: Backup) -> list[tuple[Backup, str]]:
    """Backups on the path that are newer than the chosen one but cannot be used, with the reason.

    One whose documents do not say where it lies is newer by time, and on the path unless its timeline leads elsewhere.
    """
    found = []
    for backup in catalog.backups:
        if backup.stop_lsn:
            is_meant = is_on(backup, history) and backup.stop_lsn > than.stop_lsn
        else:
            may_be_on = history.includes(backup.timeline) or catalog.lacks_history(backup.timeline)
            is_meant = may_be_on and time_of(backup) > time_of(than)
        if is_meant and (why := why_left_out(catalog, backup) or catalog.why_not_restorable(backup)):
            found.append((backup, why))
    return found


def not_damaged(catalog: Catalog, history: TimelineHistory, than: Backup, end: Lsn, damaged: Damaged) -> Backup | None:
    """The newest backup before another one that leads to the same end and that no verification found damaged."""
    older = (b for b in candidates(catalog, history, None) if b.stop_lsn < than.stop_lsn)
    whole = (b for b in older if found_damage(catalog, b, damaged) is None)
    return next((b for b in whole if wal_path(catalog, b.start_lsn, history).end >= end), None)


def later_tablespaces(catalog: Catalog, history: TimelineHistory, chosen: Backup, end: Lsn) -> tuple[Tablespace, ...]:
    """Tablespaces that a recovery from a backup to ``end`` creates, as newer backups on the path show."""
    known = {tablespace.oid for tablespace in chosen.tablespaces}
    on_path = (b for b in catalog.backups if is_on(b, history) and chosen.stop_lsn <= b.start_lsn)
    newer = [b for b in on_path if max(b.start_lsn, b.stop_lsn) <= end]
    found = {t.oid: t for b in newer for t in b.tablespaces if t.oid not in known and t.location.startswith("/")}
    return tuple(found[oid] for oid in sorted(found))


def ended_before(backups: list[Backup], moment: datetime, marks: list[TimeMark]) -> list[Backup]:
    """The backups that had ended at a moment of the server's clock, newest first.

    A time mark proves it (``marks`` are in order of their positions): what lies before the LSN of an earlier mark was
    written before, unless WAL before that is known to be later. Else the backup's own time counts, which may be another
    clock's; one that is doubtful is taken only when there is none without doubt.
    """
    durable = max((mark.lsn for mark in takewhile(lambda mark: mark.moment <= moment, marks)), default=Lsn(0))
    sure = [b for b in backups if b.stop_lsn <= durable or b.finished + CLOCK_DOUBT <= moment]
    return sure or [b for b in backups if b.finished <= moment]


def marks_on(catalog: Catalog, history: TimelineHistory) -> list[TimeMark]:
    """The time marks that belong to a path, in order of their positions."""
    return by_position([mark for mark in catalog.marks if history.holds(mark.timeline, mark.lsn)])


def known_until(catalog: Catalog, history: TimelineHistory, end: Lsn) -> datetime | None:
    """The newest moment for which it is known that all WAL written before it is in the repository (up to ``end``).

    One that was noted while the server's clock was ahead is none, once there are others behind it.
    """
    row = fitting([mark for mark in marks_on(catalog, history) if mark.lsn <= end])
    return row[-1].moment if row else None
