"""Status snapshots for tests: one that knows everything, one that knows nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.lsn import Lsn
from pgbackup.core.status import (
    BackupStatus,
    OpenFinding,
    RunStatus,
    StatusSnapshot,
    Verdict,
    WalStatus,
)
from pgbackup.core.upload_totals import UploadTotals
from pgbackup.core.worker_health import WorkerState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

NOTHING_KNOWN = StatusSnapshot(as_of=NOW, interval_seconds=60)

FINDING = Finding("gap:1/5000000", Severity.CRITICAL, "WAL is missing", "Take a base backup.", {"lsn": "1/5000000"})

FULL = StatusSnapshot(
    as_of=NOW,
    interval_seconds=60,
    verdict=Verdict.OK,
    findings=(OpenFinding(replace(FINDING, key="slot:retained", severity=Severity.WARNING), NOW - HOUR),),
    version="1.2.3",
    system_identifier=7612345678901234567,
    timeline=3,
    earliest_recoverable=NOW - 240 * HOUR,
    latest_recoverable=NOW - timedelta(seconds=5),
    rpo_seconds=5.0,
    wal=WalStatus(
        streaming=True,
        server_end=Lsn(0x5000300),
        received=Lsn(0x5000200),
        uploaded=Lsn(0x5000100),
        confirmed=Lsn(0x5000000),
        lag_bytes=0x200,
        uploads=UploadTotals(
            objects=6, segments=4, stored_bytes=4000, seconds=70.5, buckets=(1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1),
            errors={"denied": 0, "unavailable": 7, "corrupt": 0, "other": 1},
        ),
    ),
    last_backup=BackupStatus("base_000000030000000000000005", NOW - HOUR, 120.0, 10_000_000, 3_000_000),
    next_backup_due=NOW + 23 * HOUR,
    backups=7,
    slot_retained_bytes=16 << 20,
    slot_safe_bytes=4 << 30,
    wal_free_bytes=50 << 30,
    alerts_active={Severity.WARNING: 1},
    store_errors={"unavailable": 2, "denied": 1},
    last_verification=RunStatus(NOW - 3 * HOUR, ok=True),
    last_expiry=RunStatus(NOW - 2 * HOUR, ok=False, summary="the store said no"),
    workers=(WorkerState("wal", True, 2, 0, 5000.0, "KeyError: 'x'", 0.4, 300.0), WorkerState("jobs", True)),
)  # fmt: skip
