"""What is known about the whole at one moment: the one value that metrics, the status page and JSON are made of.

Everything may be None, which means that nobody knows; it is then shown as unknown or not at all, never as zero and
never as good. A snapshot that is too old says nothing about now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.lsn import Lsn
from pgbackup.core.upload_totals import UploadTotals
from pgbackup.core.worker_health import WorkerState

STALE_INTERVALS = 3


class Verdict(StrEnum):
    """The answer to "can this server be recovered, and will it be tomorrow?"."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OpenFinding:
    """A finding and since when it has been seen."""

    finding: Finding
    since: datetime


@dataclass(frozen=True, slots=True)
class WalStatus:
    """Positions of the WAL stream: what the server has written, what we received, what is durable, what was confirmed
    to the server. ``lag_bytes``: written by the server and not durable. ``problem``: why nothing streams."""

    streaming: bool | None = None
    server_end: Lsn | None = None
    received: Lsn | None = None
    uploaded: Lsn | None = None
    confirmed: Lsn | None = None
    lag_bytes: int | None = None
    uploads: UploadTotals | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """A base backup that can be restored."""

    name: str
    finished: datetime
    duration_seconds: float | None = None
    raw_bytes: int | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The last verification, or the last expiry: when it ended, and whether it found everything in order."""

    finished: datetime
    ok: bool
    summary: str = ""


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """One look at everything, made by the health check at ``as_of``; it makes the next after ``interval_seconds``."""

    as_of: datetime
    interval_seconds: float
    verdict: Verdict = Verdict.UNKNOWN
    findings: tuple[OpenFinding, ...] = ()
    version: str = ""
    system_identifier: int | None = None
    timeline: int | None = None
    earliest_recoverable: datetime | None = None
    latest_recoverable: datetime | None = None
    rpo_seconds: float | None = None
    wal: WalStatus = field(default_factory=WalStatus)
    last_backup: BackupStatus | None = None
    next_backup_due: datetime | None = None
    backups: int | None = None
    slot_retained_bytes: int | None = None
    slot_safe_bytes: int | None = None
    wal_free_bytes: int | None = None
    alerts_active: Mapping[Severity, int] | None = None
    store_errors: Mapping[str, int] | None = None
    last_verification: RunStatus | None = None
    last_expiry: RunStatus | None = None
    workers: tuple[WorkerState, ...] = ()

    def __post_init__(self) -> None:
        moments = [self.as_of, self.earliest_recoverable, self.latest_recoverable, self.next_backup_due]
        if any(moment is not None and moment.tzinfo is None for moment in moments):
            raise ValueError("a moment of the status has no time zone")


def is_current(snapshot: StatusSnapshot | None, now: datetime) -> bool:
    """Whether a snapshot says something about now. One from the future does not either: the clock was moved."""
    if snapshot is None:
        return False
    most = timedelta(seconds=STALE_INTERVALS * snapshot.interval_seconds)
    return -most <= now - snapshot.as_of <= most


def verdict_now(snapshot: StatusSnapshot | None, now: datetime) -> Verdict:
    """The snapshot's verdict, UNKNOWN when there is none that is current."""
    return snapshot.verdict if snapshot is not None and is_current(snapshot, now) else Verdict.UNKNOWN
