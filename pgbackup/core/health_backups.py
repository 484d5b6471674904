"""Findings about base backups and their verification: none, too old, damaged, failing, not verified."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import HealthLimits, JobView, RepositoryView
from pgbackup.core.retention_policy import time_of
from pgbackup.core.schedule_spec import next_due

_CRITICAL_FAILURES = 3
_SHOWN = 3


def backup_findings(
    view: RepositoryView, job: JobView | None, limits: HealthLimits, now: datetime
) -> Iterator[Finding]:
    """What is wrong with the base backups at ``now`` (aware)."""
    yield from _presence(view, job, limits, now)
    yield from _damaged(view.catalog)
    yield from _failing(job)
    yield from _verification(view, limits, now)


def done_at(backup: Backup) -> datetime:
    """When a backup was done, for the schedule: never later than the store knows of it, should a clock have been wrong.
    Otherwise one "of 2035" would count as the newest for years, and none would be missed."""
    return min(backup.finished, backup.modified)


def _presence(view: RepositoryView, job: JobView | None, limits: HealthLimits, now: datetime) -> Iterator[Finding]:
    catalog = view.catalog
    finished = [done_at(b) for b in catalog.backups if not catalog.why_not_restorable(b)]
    if not finished:
        yield _none(catalog, None if view.had_backups else job)
        return
    last = max(finished)
    due = next_due(limits.schedule, last, limits.tz)
    if now <= due + limits.backup_grace:
        return
    missed_two = now > next_due(limits.schedule, due, limits.tz) + limits.backup_grace
    yield Finding(
        "backup:overdue",
        Severity.CRITICAL if missed_two else Severity.WARNING,
        f"the newest restorable base backup is of {_when(last)}; the next was due {_when(due)}",
        "See the log for why none was finished, and start one with `pgbackup backup`.",
        {"age_seconds": round((now - last).total_seconds()), "overdue_seconds": round((now - due).total_seconds())},
    )


def _none(catalog: Catalog, job: JobView | None) -> Finding:
    if not catalog.backups and job is not None and job.running:
        return Finding(
            "backup:none",
            Severity.WARNING,
            "there is no base backup yet, so nothing can be restored; the first one is running",
            "Wait for it to end.",
        )
    held = f"none of {len(catalog.backups)} base backups can be restored" if catalog.backups else "no base backup"
    return Finding(
        "backup:none",
        Severity.CRITICAL,
        f"nothing can be restored: {held} in the repository",
        "Start one with `pgbackup backup`; `pgbackup list` says what is wrong with those there are.",
        {"backups": len(catalog.backups)},
    )


def _damaged(catalog: Catalog) -> Iterator[Finding]:
    if not catalog.backups:
        return
    problems = {b.name: why for b in catalog.backups if (why := catalog.why_not_restorable(b))}
    newest = max(catalog.backups, key=time_of)
    if problem := problems.get(newest.name):
        yield Finding(
            "backup:newest-not-restorable",
            Severity.CRITICAL,
            f"the newest base backup, {newest.name}, cannot be restored: {problem}",
            "Mend the cause and take another with `pgbackup backup`; damaged pages are damaged on the server as well.",
            {"backup": newest.name},
        )
    others = [b.name for b in catalog.backups if b.name in problems and b is not newest]
    if others:
        yield Finding(
            "backup:older-not-restorable",
            Severity.WARNING,
            f"{len(others)} older base backups cannot be restored: {', '.join(others[:_SHOWN])}",
            "Moments that only they lead to are lost; `pgbackup list` says what is wrong with each.",
            {"backups": len(others)},
        )


def _failing(job: JobView | None) -> Iterator[Finding]:
    if job is None or not job.failures:
        return
    yield Finding(
        "backup:failing",
        Severity.CRITICAL if job.failures >= _CRITICAL_FAILURES else Severity.WARNING,
        f"the base backup failed {job.failures} times in a row: {job.error}",
        "It is tried again by itself; mend what the message names.",
        {"failures": job.failures},
    )


def _verification(view: RepositoryView, limits: HealthLimits, now: datetime) -> Iterator[Finding]:
    run = view.verification
    if run is not None and not run.ok:
        yield Finding(
            "verify:failed",
            Severity.CRITICAL,
            f"the verification of {_when(run.finished)} found damage: {run.summary}",
            "Run `pgbackup verify` for every object, and take a new base backup.",
        )
    if limits.verify_schedule is None or not view.catalog.backups:
        return
    first = min(time_of(b) for b in view.catalog.backups)
    due = next_due(limits.verify_schedule, run.finished if run else first, limits.tz)
    if now > due + limits.verify_grace:
        yield Finding(
            "verify:overdue",
            Severity.WARNING,
            f"backups were last read back {_when(run.finished) if run else 'never'}; it was due {_when(due)}",
            "See the log for why the verification did not end, or run `pgbackup verify`.",
            {"overdue_seconds": round((now - due).total_seconds())},
        )


def _when(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")
