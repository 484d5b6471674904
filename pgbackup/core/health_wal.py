"""Findings about WAL: how far the bucket is behind the server, holes, branches that do not fit, a silent standby."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.branches import branch_problems
from pgbackup.core.catalog import Catalog, Reach
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import HealthFacts, HealthLimits, RepositoryView, ServerView, StreamView
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.retention_choice import choose
from pgbackup.core.wal_holes import next_stored


def wal_findings(
    view: RepositoryView,
    server: ServerView,
    newest: Backup | None,
    reach: Reach | None,
    facts: HealthFacts,
    limits: HealthLimits,
    now: datetime,
) -> Iterator[Finding]:
    """What is wrong with the WAL after the newest restorable backup, as bucket and server show it."""
    yield from _standby(server, limits)
    yield from _branches(view.catalog, server, newest)
    if newest is None:
        return
    if reach is None:
        yield _other_branch(newest, server)
        return
    yield from _behind(server, reach, facts, limits)
    yield from _hole(view.catalog, server, reach, facts.stream)
    yield from _vanished(view.catalog, server, reach, facts.stream)
    yield from _holes_before(view, server, newest, limits, now)
    if not server.in_recovery and reach.end > server.position_after:
        yield _server_behind(server, reach.end)


def _behind(server: ServerView, reach: Reach, facts: HealthFacts, limits: HealthLimits) -> Iterator[Finding]:
    """RPO: the age of the oldest WAL byte that is not in the bucket."""
    if reach.end >= server.position:
        return
    age = facts.wal_age
    lag = server.position - reach.end
    if age is None:
        # Nothing says since when it is missing: only its amount is known, and since when we see it.
        long = facts.behind_for is not None and facts.behind_for >= limits.rpo_critical
        yield Finding(
            "wal:not-durable",
            Severity.CRITICAL if long else Severity.WARNING,
            f"{lag} bytes of WAL are not in the repository, for an unknown time",
            "Is `pgbackup run` alive? It ships WAL without end; its log says what stops it.",
            {"lag_bytes": lag, "durable_lsn": str(reach.end), "server_lsn": str(server.position)},
        )
    elif age >= limits.rpo_warning:
        seconds = round(age.total_seconds())
        yield Finding(
            "wal:not-durable",
            Severity.CRITICAL if age >= limits.rpo_critical else Severity.WARNING,
            f"WAL of the last {seconds} s ({lag} bytes) is not in the repository",
            "Is `pgbackup run` alive? It ships WAL without end; its log says what stops it.",
            {
                "rpo_seconds": seconds,
                "lag_bytes": lag,
                "durable_lsn": str(reach.end),
                "server_lsn": str(server.position),
            },
        )


def _hole(catalog: Catalog, server: ServerView, reach: Reach, stream: StreamView | None) -> Iterator[Finding]:
    """WAL that is stored beyond the first missing segment: what lies after a hole cannot be replayed.

    Segments are uploaded several at a time, so one that we have not confirmed may still be under way; its age is told.
    """
    blocked = reach.blocked_by
    if blocked is None or not _has_whole_behind(catalog, server, blocked):
        return
    if stream is not None and stream.streaming and stream.confirmed is not None and stream.confirmed < blocked.end:
        return
    if _is_told_as_gap(catalog, server, blocked):
        return
    yield Finding(
        f"wal:hole:{blocked.timeline}/{blocked.start}",
        Severity.CRITICAL,
        f"WAL segment {blocked} is missing from the repository, and WAL after it is there",
        "No moment after it can be recovered until a new base backup is finished: run `pgbackup backup`.",
        {"timeline": blocked.timeline, "lsn": str(blocked.start), "server_timeline": server.timeline},
    )


def _has_whole_behind(catalog: Catalog, server: ServerView, missing: SegmentName) -> bool:
    """Whether a whole segment is stored behind a missing one on the server's path, perhaps beyond a fork. Pieces of the
    open segment may be there before the one that is being uploaded."""
    history = catalog.history(server.timeline)
    return next_stored(catalog, history, missing.number, open_too=False) is not None


def _is_told_as_gap(catalog: Catalog, server: ServerView, missing: SegmentName) -> bool:
    """Whether a missing segment is of a gap in the ledger that keeps what the server writes now from being recovered.

    One that ends on another branch does not, though it may begin on an ancestor of both: of our path it says nothing.
    """
    gap = catalog.known_gap(missing)
    return gap is not None and catalog.history(server.timeline).holds(gap.timeline, gap.end)


def _vanished(catalog: Catalog, server: ServerView, reach: Reach, stream: StreamView | None) -> Iterator[Finding]:
    """The end of the stored WAL is gone: it was there, so it was confirmed to the server, which need not keep it.

    Where WAL comes after what is missing that is a hole, and what is missing may be a gap that is known.
    """
    if stream is None or stream.stored is None or stream.timeline != server.timeline or reach.end >= stream.stored:
        return
    blocked = reach.blocked_by
    if blocked is not None and (
        _has_whole_behind(catalog, server, blocked) or _is_told_as_gap(catalog, server, blocked)
    ):
        return
    yield Finding(
        "wal:vanished",
        Severity.CRITICAL,
        f"WAL was stored to {stream.stored}, and now the repository ends at {reach.end}",
        "Find out who deleted it. It is shipped again if the server still has it; otherwise take a base backup.",
        {"durable_lsn": str(reach.end), "stored_lsn": str(stream.stored), "timeline": server.timeline},
    )


def _holes_before(
    view: RepositoryView, server: ServerView, newest: Backup, limits: HealthLimits, now: datetime
) -> Iterator[Finding]:
    """WAL that is missing between an older backup and the next: moments that the retention promises are lost.

    It promises those after each backup that its policy wants; behind the others (permanent, or only built on) expiry
    keeps no more WAL than makes them consistent. What expiry wrote down that it removed was not promised when it did,
    though one of these backups may be wanted again. Nor is it a loss between a cluster and the upgraded one.
    """
    catalog = view.catalog
    promised = _promised(view, limits, now)
    behind = [b for b in catalog.backups if b.name in promised and b.start_lsn < newest.start_lsn]
    behind = [b for b in behind if not newest.system_identifier or b.system_identifier in (0, newest.system_identifier)]
    told = set()
    for backup in behind:
        reach = None if catalog.why_not_restorable(backup) else catalog.reach(backup, server.timeline)
        blocked = reach.blocked_by if reach is not None and reach.end < newest.start_lsn else None
        if blocked is None or blocked in told or _is_told_as_gap(catalog, server, blocked):
            continue
        if view.removed_wal.holds(blocked):
            continue
        told.add(blocked)
        yield Finding(
            f"wal:hole:{blocked.timeline}/{blocked.start}",
            Severity.WARNING,
            f"WAL segment {blocked} is missing from the repository; what came after the next base backup can be "
            "recovered",
            "No moment between it and that backup can be recovered. Find out who deleted it: somebody, or an expiry of "
            f"another retention than today's. It is told until the retention no longer wants {backup.name}.",
            {"timeline": blocked.timeline, "lsn": str(blocked.start), "backup": backup.name},
        )


def _promised(view: RepositoryView, limits: HealthLimits, now: datetime) -> frozenset[str]:
    """The backups after which expiry keeps all WAL, judged as it does: by the store's clock, and what was found damaged
    takes the place of none."""
    damaged = frozenset(view.verification.damaged if view.verification is not None else ())
    return choose(view.catalog, limits.retention, view.clock or now, limits.tz, damaged=damaged).onward


def _server_behind(server: ServerView, end: Lsn) -> Finding:
    return Finding(
        "wal:server-behind-repository",
        Severity.CRITICAL,
        f"the repository holds WAL to {end}, the server ends at {server.position_after}: it was set back to an older "
        "state, or another server wrote there",
        "Do not let both go on: promote the restored server to a new timeline, or give it a repository prefix of its "
        "own.",
        {"durable_lsn": str(end), "server_lsn": str(server.position_after), "timeline": server.timeline},
    )


def _other_branch(newest: Backup, server: ServerView) -> Finding:
    return Finding(
        "backup:other-branch",
        Severity.CRITICAL,
        f"the newest restorable base backup, {newest.name} of timeline {newest.timeline}, is not on the path of "
        f"timeline {server.timeline}, where the server is: nothing it writes can be recovered",
        "A new timeline's history file is missing, or the server was restored from elsewhere; take a base backup.",
        {"backup": newest.name, "timeline": server.timeline},
    )


def _branches(catalog: Catalog, server: ServerView, newest: Backup | None) -> Iterator[Finding]:
    """WAL left behind on an ancestor is told until a base backup of the new timeline is there: it stays restorable.

    Where a recovery target was set, leaving it is what somebody wanted, and what the new timeline writes is recovered
    from the older backups as well: no emergency, but not green before that backup, which starts at once.
    """
    history = server.history or catalog.history(server.timeline)
    for problem in branch_problems(catalog, history, server.position):
        if problem.left_behind and newest is not None and newest.timeline == server.timeline:
            continue
        kind = "left-behind" if problem.left_behind else "promoted-elsewhere"
        yield Finding(
            f"branch:{kind}:{problem.timeline}",
            Severity.WARNING if problem.chosen else Severity.CRITICAL,
            problem.text,
            f"If that was meant, wait for the base backup that was started; --timeline {problem.timeline} restores the "
            "other branch."
            if problem.chosen
            else "Make sure which server is the primary; commits on the other branch stay restorable with --timeline.",
            {"timeline": server.timeline, "other_timeline": problem.timeline, "server_lsn": str(server.position)},
        )


def _standby(server: ServerView, limits: HealthLimits) -> Iterator[Finding]:
    if not server.in_recovery or server.silent_seconds < limits.silence_critical.total_seconds():
        return
    yield Finding(
        "server:standby-silent",
        Severity.CRITICAL,
        "the standby we follow receives no WAL from its primary, so it does not show what is missing",
        "Mend its WAL receiver, or point pgbackup to the primary (several hosts and target_session_attrs in the DSN).",
        {"silent_seconds": min(round(server.silent_seconds), 10**9) if server.silent_seconds < 10**9 else None},
    )
