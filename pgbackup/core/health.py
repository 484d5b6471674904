"""Is everything recoverable? Judged from what the bucket lists and where the server stands, never from return codes.

``evaluate`` is pure. What cannot be seen is critical (hazard: unknown is never green); what a job says of itself can
only add findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, Reach
from pgbackup.core.findings import Finding, Severity, worst
from pgbackup.core.gap_findings import gap_findings
from pgbackup.core.health_backups import backup_findings, done_at
from pgbackup.core.health_facts import Health, HealthFacts, HealthLimits, RepositoryView, ServerView, Window
from pgbackup.core.health_wal import wal_findings
from pgbackup.core.jitter import jitter
from pgbackup.core.lsn import Lsn
from pgbackup.core.schedule_spec import next_due

_NAMED = 3


def evaluate(facts: HealthFacts, limits: HealthLimits, now: datetime) -> Health:
    """The verdict at ``now`` (aware)."""
    catalog = facts.repository.catalog if facts.repository else None
    foreign = _foreign_identifier(catalog, facts.server)
    # What another cluster's repository holds says nothing of this server: positions of both do not compare.
    newest = newest_restorable(catalog) if catalog and foreign is None else None
    reach = _reach(catalog, newest, facts.server)
    findings = [
        *_unseen(facts),
        *_clocks(facts, limits),
        *_resident(facts, now),
        *facts.others,
    ]
    if facts.repository:
        findings += _repository(facts.repository)
        findings += _other_cluster(foreign, facts.server)
        path = facts.repository.catalog.history(facts.server.timeline) if facts.server else None
        findings += gap_findings(facts.repository.catalog.known_gaps, facts.repository.catalog, path)
        findings += backup_findings(facts.repository, facts.backups, limits, now)
        if facts.server and foreign is None:
            findings += wal_findings(facts.repository, facts.server, newest, reach, facts, limits, now)
    verdict = worst(findings)
    return Health(
        verdict=verdict.word if verdict else "ok",
        findings=tuple(sorted(findings, key=lambda f: (-f.severity, f.key))),
        window=_window(catalog, facts) if catalog and foreign is None else None,
        rpo=facts.wal_age if facts.repository and facts.server and reach else None,
        durable=reach.end if reach else None,
        last_backup=newest.name if newest else "",
        last_backup_finished=newest.finished if newest else None,
        next_due=_next_due(newest, limits) if newest else now,
        facts=facts,
    )


def _next_due(newest: Backup, limits: HealthLimits) -> datetime:
    """When the next backup begins, as the schedule has it and this cluster delays it."""
    due = next_due(limits.schedule, done_at(newest), limits.tz)
    return due + jitter(limits.cluster, due, limits.schedule_jitter)


def newest_restorable(catalog: Catalog) -> Backup | None:
    """The restorable backup that was done last."""
    for backup in sorted(catalog.backups, key=done_at, reverse=True):
        if not catalog.why_not_restorable(backup):
            return backup
    return None


def durable_end(catalog: Catalog, timeline: int) -> Lsn | None:
    """How far WAL is in the bucket without a hole, from the newest restorable backup along the path of ``timeline``."""
    newest = newest_restorable(catalog)
    reach = catalog.reach(newest, timeline) if newest else None
    return reach.end if reach else None


def _reach(catalog: Catalog | None, newest: Backup | None, server: ServerView | None) -> Reach | None:
    if catalog is None or newest is None or server is None:
        return None
    return catalog.reach(newest, server.timeline)


def _unseen(facts: HealthFacts) -> Iterator[Finding]:
    if facts.repository is None:
        yield Finding(
            "repository:unreachable",
            Severity.CRITICAL,
            f"the repository cannot be read: {facts.repository_problem or 'no answer'}",
            "Nothing can be said about backups until it answers; `pgbackup check` shows what is refused.",
        )
    if facts.server is None:
        yield Finding(
            "server:unreachable",
            Severity.CRITICAL,
            f"the server does not answer: {facts.server_problem or 'no answer'}",
            "Start the server or mend the connection; until then nobody knows which WAL is missing.",
        )


def _clocks(facts: HealthFacts, limits: HealthLimits) -> Iterator[Finding]:
    server, repository = facts.server, facts.repository
    if server is not None:
        yield from _skew("server", server.clock, server.looked, limits)
    if repository is not None and repository.clock is not None:
        yield from _skew("store", repository.clock, repository.looked, limits)


def _skew(whose: str, theirs: datetime, ours: datetime, limits: HealthLimits) -> Iterator[Finding]:
    difference = abs(theirs - ours)
    if difference < limits.skew_warning:
        return
    seconds = round(difference / timedelta(seconds=1))
    yield Finding(
        f"clock:{whose}",
        Severity.CRITICAL if difference >= limits.skew_critical else Severity.WARNING,
        f"the clock of the {whose} and ours differ by {seconds} s",
        "Synchronise the clocks (NTP): schedules and retention rest on ours, restores to a time on the server's.",
        {"skew_seconds": seconds},
    )


def _resident(facts: HealthFacts, now: datetime) -> Iterator[Finding]:
    stream = facts.stream
    if stream is None or not stream.problem:
        return
    lasts = now - stream.since if stream.since else timedelta(0)
    if stream.permanent:
        yield Finding(
            "stream:stopped",
            Severity.CRITICAL,
            f"WAL is not being shipped: {stream.problem}",
            stream.hint or "Correct what it names: pgbackup tries again by itself.",
        )
    elif lasts >= timedelta(minutes=1):
        yield Finding(
            "stream:interrupted",
            Severity.WARNING,
            f"WAL has not been shipped since {stream.since:%Y-%m-%d %H:%M:%S%z}: {stream.problem}",
            stream.hint or "It is tried again without end; the slot keeps the WAL on the server meanwhile.",
            {"interrupted_seconds": round(lasts.total_seconds())},
        )


def _foreign_identifier(catalog: Catalog | None, server: ServerView | None) -> int | None:
    """Whose the repository is when it is not the server's: by what was claimed, else by the newest backup."""
    if catalog is None or server is None:
        return None
    newest = newest_restorable(catalog)
    whose = catalog.system_identifier or (newest.system_identifier if newest else 0)
    return whose if whose not in (0, server.system_identifier) else None


def _other_cluster(foreign: int | None, server: ServerView | None) -> Iterator[Finding]:
    if foreign is not None and server is not None:
        yield Finding(
            "repository:other-cluster",
            Severity.CRITICAL,
            f"the repository belongs to cluster {foreign}, the server is {server.system_identifier}",
            "Give this server a prefix of its own: PGBACKUP_REPOSITORY may hold {system_identifier}.",
        )


def _repository(view: RepositoryView) -> Iterator[Finding]:
    if view.other_writer and view.other_writer_has_written:
        yield Finding(
            "lease:other-writer",
            Severity.CRITICAL,
            f"another process writes to this repository: {view.other_writer}",
            "Stop one of the two: each server needs a repository prefix of its own.",
        )
    elif view.other_writer:
        yield Finding(
            "lease:other-writer",
            Severity.WARNING,
            f"who wrote to this repository last has not said that it ended: {view.other_writer}",
            "After a power failure or a kill this is over within 3 minutes. Should that process still run, stop one of "
            "the two.",
        )
    if view.unreadable:
        yield Finding(
            "repository:unreadable",
            Severity.CRITICAL,
            f"the repository lists what it does not give: {view.unreadable}",
            "See who may read the bucket and its keys, and its lifecycle rules: an archive class holds no backups.",
        )
    if view.replaced:
        yield Finding(
            "repository:replaced",
            Severity.CRITICAL,
            f"what never changes was replaced by something else: {', '.join(view.replaced[:_NAMED])}"
            + (f" and {len(view.replaced) - _NAMED} more" if len(view.replaced) > _NAMED else ""),
            "Find out who writes to the bucket; take a base backup. It is told until `pgbackup verify --record` has "
            "found whole what was replaced (--backup NAME for an older one), or expiry has removed it.",
            {"replaced": len(view.replaced)},
        )
    if view.missing_bookkeeping:
        yield Finding(
            "repository:bookkeeping",
            Severity.CRITICAL,
            f"objects of our own are gone from the repository: {', '.join(view.missing_bookkeeping)}",
            "Find out who deleted them, and run `pgbackup verify`; a restart of `pgbackup run` writes them anew.",
        )


def _window(catalog: Catalog, facts: HealthFacts) -> Window | None:
    """The window of the server's timeline, else of the newest that has one."""
    ranges = catalog.recoverable()
    if not ranges:
        return None
    current = facts.server.timeline if facts.server else max(r.timeline for r in ranges)
    mine = [r for r in ranges if r.timeline == current]
    if not mine:
        return None
    last = max(mine, key=lambda r: r.end)
    # What a restore to a moment takes: a later one than the newest mark is not proven to be in the archive, also when
    # the server, which may be gone then, shows at this time that nothing came after it.
    latest = max(last.start_time, last.end_time or last.start_time)
    return Window(last.timeline, last.start_time, latest, last.start, last.end)
