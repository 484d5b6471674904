"""From a verdict and what the process counts to the one value that the pages show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgbackup import __version__
from pgbackup.core.alert_book import Alert
from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.health_facts import Health, LastRun
from pgbackup.core.slot_forecast import SlotSample
from pgbackup.core.status import BackupStatus, OpenFinding, RunStatus, StatusSnapshot, Verdict, WalStatus
from pgbackup.core.upload_totals import UploadTotals
from pgbackup.core.worker_health import WorkerState
from pgbackup.engines.wal.progress import WalPosition


@dataclass(frozen=True, slots=True)
class ProcessView:
    """What the resident process knows beside the verdict; None where there is no process."""

    position: WalPosition
    uploads: UploadTotals
    alerts: Sequence[Alert]
    workers: Sequence[WorkerState]


def make_snapshot(
    health: Health,
    now: datetime,
    *,
    interval_seconds: float,
    process: ProcessView | None = None,
    slot: SlotSample | None = None,
    expiry: LastRun | None = None,
    since: Mapping[str, datetime] | None = None,
) -> StatusSnapshot:
    """The snapshot of a health check that ended at ``now``; ``since``: from when on a finding is known, by its key."""
    facts = health.facts
    assert facts is not None
    catalog = facts.repository.catalog if facts.repository else None
    server = facts.server
    if process:
        since = {alert.finding.key: alert.since for alert in process.alerts}
    since = since or {}
    window = health.window
    return StatusSnapshot(
        as_of=now,
        interval_seconds=interval_seconds,
        verdict=Verdict(health.verdict),
        findings=tuple(OpenFinding(f, since.get(f.key, now)) for f in health.findings),
        version=__version__,
        system_identifier=server.system_identifier if server else catalog.system_identifier if catalog else None,
        timeline=server.timeline if server else None,
        earliest_recoverable=window.earliest if window else None,
        latest_recoverable=window.latest if window else None,
        rpo_seconds=health.rpo.total_seconds() if health.rpo is not None else None,
        wal=_wal(health, process),
        last_backup=_last_backup(catalog, health.last_backup) if catalog else None,
        next_backup_due=health.next_due,
        backups=_restorable(catalog) if catalog else None,
        slot_retained_bytes=slot.retained_bytes if slot and slot.exists else None,
        slot_safe_bytes=slot.safe_bytes if slot else None,
        wal_free_bytes=slot.free_bytes if slot else None,
        alerts_active=Counter(a.finding.severity for a in process.alerts) if process else None,
        store_errors=dict(process.uploads.errors) if process else None,
        last_verification=_run(facts.repository.verification) if facts.repository else None,
        last_expiry=_run(expiry),
        workers=tuple(process.workers) if process else (),
    )


def _wal(health: Health, process: ProcessView | None) -> WalStatus:
    facts = health.facts
    server = facts.server if facts else None
    lag = max(0, server.position - health.durable) if server and health.durable is not None else None
    if process is None:
        return WalStatus(server_end=server.position if server else None, uploaded=health.durable, lag_bytes=lag)
    position = process.position
    return WalStatus(
        streaming=position.streaming,
        server_end=server.position if server else position.server_end or None,
        received=position.received or None,
        uploaded=health.durable,
        confirmed=position.confirmed or None,
        lag_bytes=lag,
        uploads=process.uploads,
        problem="" if position.streaming else position.problem,
    )


def _last_backup(catalog: Catalog, name: str) -> BackupStatus | None:
    found: Backup | None = catalog.backup(name) if name else None
    if found is None:
        return None
    return BackupStatus(
        name=found.name,
        finished=found.finished,
        duration_seconds=(found.finished - found.started).total_seconds(),
        raw_bytes=found.raw_bytes,
        stored_bytes=found.stored_bytes,
    )


def _restorable(catalog: Catalog) -> int:
    return sum(not catalog.why_not_restorable(backup) for backup in catalog.backups)


def _run(run: LastRun | None) -> RunStatus | None:
    return RunStatus(run.finished, run.ok, run.summary) if run else None
