"""Findings about base backups and their verification: none, too old, damaged, failing, not verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import BackupUnderWay, HealthLimits, JobView, RepositoryView
from pgbackup.core.retention_policy import time_of
from pgbackup.core.schedule_spec import next_due
from pgbackup.count_text import counted

_CRITICAL_FAILURES = 3
_SHOWN = 3
_SIGN_OF_LIFE = timedelta(minutes=10)
"""It shows itself every half minute, while the store answers."""
_STANDS_STILL = timedelta(hours=1)


def backup_findings(
    view: RepositoryView, job: JobView | None, limits: HealthLimits, now: datetime
) -> Iterator[Finding]:
    """What is wrong with the base backups at ``now`` (aware)."""
    yield from _presence(view, job, limits, now)
    yield from _damaged(view.catalog)
    yield from _vanished(view)
    yield from _failing(job)
    yield from _verification(view, limits, now)


def done_at(backup: Backup) -> datetime:
    """When a backup was done: never later than the store knows of it, should a clock have been wrong. Otherwise one "of
    2035" would count as the newest for years, none would be missed, and no newer one be verified."""
    return min(time_of(backup), backup.modified)


def first_done(backups: Iterable[Backup], now: datetime) -> datetime:
    """From when on the schedule of what is done with backups counts until it was done once: a repository without
    backups has nothing to be late with at ``now``."""
    return min(map(done_at, backups), default=now)


def is_late(catalog: Catalog, limits: HealthLimits, now: datetime) -> bool:
    """Whether a base backup should be there and is not; unless one is just being taken, somebody has to be told."""
    due = _due(catalog, limits)
    return due is None or now > due + limits.backup_grace


def _due(catalog: Catalog, limits: HealthLimits) -> datetime | None:
    """When the next one is due after the newest that can be restored; None without one."""
    last = _last(catalog)
    return None if last is None else next_due(limits.schedule, last, limits.tz)


def _last(catalog: Catalog) -> datetime | None:
    return max((done_at(b) for b in catalog.backups if not catalog.why_not_restorable(b)), default=None)


def _presence(view: RepositoryView, job: JobView | None, limits: HealthLimits, now: datetime) -> Iterator[Finding]:
    if not is_late(view.catalog, limits, now):
        return
    yield from _standing_still(view)
    gets_on = _gets_on(view, job)
    last, due = _last(view.catalog), _due(view.catalog, limits)
    if last is None or due is None:
        yield _none(view.catalog, gets_on=gets_on and not view.had_backups)
        return
    missed_two = now > next_due(limits.schedule, due, limits.tz) + limits.backup_grace
    if gets_on and not missed_two:
        return
    yield Finding(
        "backup:overdue",
        Severity.CRITICAL if missed_two and not gets_on else Severity.WARNING,
        f"the newest restorable base backup is of {_when(last)}; the next was due {_when(due)}"
        + (", and the one that runs has taken longer than the schedule allows" if gets_on else ""),
        "Let it end; then take backups less often (PGBACKUP_SCHEDULE), or make them faster."
        if gets_on
        else "See the log for why none was finished, and start one with `pgbackup backup`.",
        {"age_seconds": round((now - last).total_seconds()), "overdue_seconds": round((now - due).total_seconds())},
    )


def is_getting_on(work: BackupUnderWay) -> bool:
    """Whether a base backup shows life, and gets on."""
    return work.silent < _SIGN_OF_LIFE and work.still < _STANDS_STILL


def _gets_on(view: RepositoryView, job: JobView | None) -> bool:
    """Whether a base backup is being taken that shows life and gets on. Another tool's shows nothing in the bucket, and
    is watched by the job that runs it."""
    if any(is_getting_on(work) for work in view.under_way):
        return True
    return job is not None and job.running and not view.under_way


def _standing_still(view: RepositoryView) -> Iterator[Finding]:
    """One that shows life and does not get on hangs: at the server, at the store, or on its way to either."""
    for work in view.under_way:
        if work.silent < _SIGN_OF_LIFE and work.still >= _STANDS_STILL:
            yield Finding(
                f"backup:stands-still:{work.name}",
                Severity.CRITICAL,
                f"base backup {work.name} runs, and has not got on for {round(work.still.total_seconds() / 60)} min",
                "See pg_stat_progress_basebackup on the server, and whether the store takes anything; a restart of "
                "pgbackup begins anew.",
                {"still_seconds": round(work.still.total_seconds())},
            )


def _none(catalog: Catalog, *, gets_on: bool) -> Finding:
    if not catalog.backups and gets_on:
        return Finding(
            "backup:none",
            Severity.WARNING,
            "there is no base backup yet, so nothing can be restored; the first one is running",
            "Wait for it to end.",
        )
    count = len(catalog.backups)
    held = f"none of {counted(count, 'base backup')} can be restored" if count else "no base backup"
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
    newest = max(catalog.backups, key=done_at)
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
            f"{counted(len(others), 'older base backup')} cannot be restored: {', '.join(others[:_SHOWN])}",
            "Moments that only they lead to are lost; `pgbackup list` says what is wrong with each.",
            {"backups": len(others)},
        )


def _vanished(view: RepositoryView) -> Iterator[Finding]:
    if not view.vanished:
        return
    more = f" and {len(view.vanished) - _SHOWN} more" if len(view.vanished) > _SHOWN else ""
    yield Finding(
        "backup:vanished",
        Severity.WARNING,
        f"base backups are gone that expiry did not remove: {', '.join(view.vanished[:_SHOWN])}{more}",
        "Find out who removed them: moments that only they lead to are lost. It is told until a verification, by the "
        "schedule or `pgbackup verify --record`, has found whole what is left, or `pgbackup run`, having told it, is "
        "started anew.",
        {"backups": len(view.vanished)},
    )


def _failing(job: JobView | None) -> Iterator[Finding]:
    if job is None or not job.failures:
        return
    yield Finding(
        "backup:failing",
        Severity.CRITICAL if job.failures >= _CRITICAL_FAILURES else Severity.WARNING,
        f"the base backup failed {counted(job.failures, 'time')} in a row: {job.error}",
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
            "`pgbackup verify` names every object. Take a new base backup; it is over when the newest is found whole, "
            "by the schedule or `pgbackup verify --record`.",
        )
    yield from _found_damaged(view)
    if view.verification_unreadable and view.catalog.backups:
        yield Finding(
            "verify:unreadable",
            Severity.CRITICAL,
            f"what verifications have found cannot be read: {view.verification_unreadable}",
            "The newest base backup may have been found damaged, and expiry removes nothing. The next verification, by "
            "the schedule or `pgbackup verify --record`, writes it anew; `pgbackup verify --record --backup NAME` then "
            "reads an older backup.",
        )
    if limits.verify_schedule is None or not view.catalog.backups:
        return
    is_known = run is not None and run.is_past(now, limits.skew_critical)
    since = run.finished if run is not None and is_known else first_done(view.catalog.backups, now)
    due = next_due(limits.verify_schedule, since, limits.tz)
    if now > due + limits.verify_grace:
        yield Finding(
            "verify:overdue",
            Severity.WARNING,
            f"backups were last read back {_when(run.finished) if run else 'never'}; it was due {_when(due)}",
            "See the log for why the verification did not end, or run `pgbackup verify --record`.",
            {"overdue_seconds": round((now - due).total_seconds())},
        )


def _found_damaged(view: RepositoryView) -> Iterator[Finding]:
    """Those that are still there: that the newest is whole mends no other."""
    run = view.verification
    if run is None or not run.ok:
        return
    damaged = [name for name in run.damaged if view.catalog.backup(name)]
    newest = max(view.catalog.backups, key=done_at, default=None)
    if newest is not None and newest.name in damaged:
        # The one that is whole has gone since, or somebody has read this one as an older one.
        damaged.remove(newest.name)
        yield Finding(
            "verify:newest-damaged",
            Severity.CRITICAL,
            f"the newest base backup, {newest.name}, was damaged when it was last read",
            "Take a new base backup. `pgbackup verify` names the damaged objects, and --record ends this when it finds "
            "none.",
        )
    if damaged:
        yield Finding(
            "verify:older-damaged",
            Severity.WARNING,
            f"older base backups were damaged when they were last read: {', '.join(damaged[:_SHOWN])}"
            + (f" and {len(damaged) - _SHOWN} more" if len(damaged) > _SHOWN else ""),
            "Moments that only they lead to may be lost: `pgbackup verify --backup NAME` names the damaged objects. "
            "It is over when they are found whole, by the schedule or with --record, or expiry has removed them.",
            {"backups": len(damaged)},
        )


def _when(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")
