"""What health is judged from: one look at the bucket, one at the server, and what the resident knows of itself.

A part that could not be looked at is None with the reason beside it; it is never filled in from an older look, because
unknown is never green. Times are aware; ``looked`` is of our clock, ``clock`` of the other's at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from pgbackup.core.catalog import Catalog
from pgbackup.core.findings import Finding
from pgbackup.core.lsn import Lsn
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.retention_policy import RetentionPolicy
from pgbackup.core.schedule_spec import ScheduleSpec
from pgbackup.core.timeline import TimelineHistory

SKEW_CRITICAL = timedelta(minutes=10)
"""Two clocks that differ by so much: what one of them has dated cannot be relied on."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest recorded run of a scheduled check (verification, expiry): when it ended, and what was wrong.

    Of a verification: when it ``began``; the backups that were found ``damaged`` when they were last read, with the
    moment at which that reading ended (None: not known), and those that were found ``whole``, with the moment at which
    that reading began. Its times are the store's, where it has a clock.
    """

    finished: datetime
    ok: bool
    summary: str = ""
    damaged: Mapping[str, datetime | None] = field(default_factory=dict)
    began: datetime | None = None
    whole: Mapping[str, datetime] = field(default_factory=dict)

    def is_past(self, now: datetime, doubt: timedelta = SKEW_CRITICAL) -> bool:
        """Whether it ended before ``now``: of a time to come is what a wrong clock has recorded, and nobody knows when
        that was."""
        return self.finished <= now + doubt


@dataclass(frozen=True, slots=True)
class Noticed:
    """When something was noticed that only a verification ends, and what was ``recorded`` by then.

    A verification reads for hours: what it had read before that moment says nothing, whenever it ends. And what was
    recorded by then says nothing whatever its times are, of which a clock may have been wrong.
    """

    moment: datetime
    recorded: LastRun | None

    def is_ended_by(self, run: LastRun | None) -> bool:
        """Whether all that is left was found whole since."""
        before = self.recorded.began if self.recorded is not None else None
        return run is not None and run.ok and run.began != before and self._is_later(run.began)

    def whole_since(self, run: LastRun | None) -> tuple[str, ...]:
        """The backups that were read since, and found whole."""
        before = self.recorded.whole if self.recorded is not None else {}
        whole = run.whole if run is not None else {}
        return tuple(name for name, began in whole.items() if began != before.get(name) and self._is_later(began))

    def _is_later(self, began: datetime | None) -> bool:
        return began is not None and began > self.moment


@dataclass(frozen=True, slots=True)
class BackupUnderWay:
    """A base backup that is not sealed yet, as its own note in the bucket shows it: for how long it has shown no life
    (``silent``), and for how long it has not got on (``still``)."""

    name: str
    silent: timedelta
    still: timedelta


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """One look at the bucket. ``other_writer`` names the live holder of the lease when it is not the one asked for,
    which may have died lately unless it ``has_written`` since we look; ``missing_bookkeeping`` the objects of ours that
    should be there, ``replaced`` backups and objects that are not what they were, ``unreadable`` what became of reading
    an object that is listed."""

    catalog: Catalog
    looked: datetime
    clock: datetime | None = None
    other_writer: str = ""
    other_writer_has_written: bool = False
    missing_bookkeeping: tuple[str, ...] = ()
    verification: LastRun | None = None
    verification_unreadable: str = ""
    """Why it is not known what verifications have recorded; ``verification`` is what was known before, if anything."""
    replaced: tuple[str, ...] = ()
    unreadable: str = ""
    removed_wal: RemovedWal = field(default_factory=RemovedWal)
    """What expiries have written down that they removed."""
    had_backups: bool = False
    """Whether there were backups at an earlier look."""
    vanished: tuple[str, ...] = ()
    """Backups that were there at an earlier look, and that no expiry removed."""
    under_way: tuple[BackupUnderWay, ...] = ()
    """Base backups that somebody is taking; only looked for when one is late."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """One look at the server: its WAL ends at ``position``, and at ``position_after`` once the bucket had been listed.

    ``silent_seconds``: a standby whose WAL receiver is dead (infinite) or has said nothing for that long.
    """

    system_identifier: int
    timeline: int
    history: TimelineHistory | None
    in_recovery: bool
    position: Lsn
    position_after: Lsn
    looked: datetime
    clock: datetime
    silent_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamView:
    """What the WAL stream says of itself; ``problem`` since ``since`` (aware), permanent when only people can mend it.

    It can make health worse, never better; but WAL after ``confirmed``, which several uploads make durable at once, may
    lie in the bucket with holes in it while it streams. ``stored``: to where WAL of ``timeline`` was in the bucket
    before the look at it began.
    """

    streaming: bool
    problem: str = ""
    hint: str = ""
    permanent: bool = False
    since: datetime | None = None
    confirmed: Lsn | None = None
    timeline: int = 0
    stored: Lsn | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """What a scheduled job says of itself: how often it failed in a row, and why."""

    running: bool = False
    failures: int = 0
    error: str = ""
    next_due: datetime | None = None


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """Everything ``evaluate`` looks at. ``stream`` and ``backups`` are None where no resident process is asked.

    ``wal_age``: how old the oldest WAL byte that is not durable may be (None: unknown), ``behind_for`` how old it is at
    least; ``durable_moment``: the newest moment all of whose WAL is durable. They come from a WalClock and the
    catalog's time marks.
    """

    repository: RepositoryView | None
    server: ServerView | None
    repository_problem: str = ""
    server_problem: str = ""
    wal_age: timedelta | None = None
    behind_for: timedelta | None = None
    durable_moment: datetime | None = None
    stream: StreamView | None = None
    backups: JobView | None = None
    others: tuple[Finding, ...] = ()
    """Findings of those that watch something themselves: the slot, the gap ledger, workers, alert channels."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """When something is worth a finding. The schedules and their time zone say when work is overdue; by up to
    ``schedule_jitter`` this ``cluster`` delays it. ``retention`` says which moments are promised."""

    schedule: ScheduleSpec
    tz: tzinfo
    verify_schedule: ScheduleSpec | None = None
    rpo_warning: timedelta = timedelta(minutes=5)
    rpo_critical: timedelta = timedelta(minutes=30)
    backup_grace: timedelta = timedelta(hours=2)
    verify_grace: timedelta = timedelta(days=1)
    skew_warning: timedelta = timedelta(seconds=30)
    skew_critical: timedelta = SKEW_CRITICAL
    silence_critical: timedelta = timedelta(minutes=2)
    cluster: str = ""
    schedule_jitter: timedelta = timedelta(0)
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)


@dataclass(frozen=True, slots=True)
class Window:
    """The moments that can be recovered without a hole, on one timeline's path; ``latest`` None: not known in time."""

    timeline: int
    earliest: datetime
    latest: datetime | None
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict: ``ok``, ``warning`` or ``critical``, with everything that speaks against ``ok``, worst first."""

    verdict: str
    findings: tuple[Finding, ...]
    window: Window | None = None
    rpo: timedelta | None = None
    durable: Lsn | None = None
    last_backup: str = ""
    last_backup_finished: datetime | None = None
    next_due: datetime | None = None
    facts: HealthFacts | None = field(default=None, repr=False)
