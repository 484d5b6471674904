"""The status as Prometheus metrics, in a registry of its own.

A metric whose value nobody knows is absent, not 0. When the snapshot is too old, only ``pgbackup_up 0`` and what does
not come from it are left. Names follow Prometheus' conventions: base units, ``_total`` for counters; LSNs are byte
positions, so that they can be subtracted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pgbackup.core.findings import Severity
from pgbackup.core.status import BackupStatus, RunStatus, StatusSnapshot, Verdict, WalStatus, is_current, verdict_now
from pgbackup.core.upload_totals import SECONDS_BOUNDS, UploadTotals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


Family = Metric | None


class ReadStatus(Protocol):
    """Gives the newest snapshot, None before the first. Called from any thread; never blocks for long."""

    def __call__(self) -> StatusSnapshot | None: ...


class Metrics:
    """Renders the metrics of the newest snapshot."""

    def __init__(self, read: ReadStatus, now: Callable[[], datetime], *, version: str) -> None:
        self._read = read
        self._now = now
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise collect once to find the names, and they depend on what is known."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families that are known; what the registry calls."""
        return (family for family in self._families() if family is not None)

    def _families(self) -> Iterator[Family]:
        snapshot, now = self._read(), self._now()
        build = GaugeMetricFamily("pgbackup_build_info", "The version that runs; always 1.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        current = snapshot if is_current(snapshot, now) else None
        verdict = verdict_now(snapshot, now)
        yield _gauge("up", "1 when a current health check has come to a verdict.", float(verdict != Verdict.UNKNOWN))
        verdicts = GaugeMetricFamily("pgbackup_verdict", "1 for the verdict of now, 0 for others.", labels=["verdict"])
        for each in Verdict:
            verdicts.add_metric([str(each)], float(each == verdict))
        yield verdicts
        if snapshot is not None:
            yield _gauge("status_timestamp_seconds", "When the last health check was.", snapshot.as_of.timestamp())
        if current is not None:
            yield from _of_snapshot(current)


def _gauge(name: str, text: str, value: float | None) -> Family:
    """A gauge without labels, or None when the value is unknown."""
    return None if value is None else GaugeMetricFamily(f"pgbackup_{name}", text, value=value)


def _moment(name: str, text: str, moment: datetime | None) -> Family:
    return _gauge(f"{name}_timestamp_seconds", text, None if moment is None else moment.timestamp())


def _of_snapshot(status: StatusSnapshot) -> Iterator[Family]:
    if status.system_identifier is not None:
        info = GaugeMetricFamily("pgbackup_cluster_info", "The cluster; always 1.", labels=["system_identifier"])
        info.add_metric([str(status.system_identifier)], 1)
        yield info
    yield _gauge("timeline", "The server's timeline.", status.timeline)
    yield _findings(status)
    yield _moment("recoverable_earliest", "The earliest moment that can be restored.", status.earliest_recoverable)
    yield _moment("recoverable_latest", "The latest moment that can be restored.", status.latest_recoverable)
    yield _gauge("rpo_seconds", "How much time would be lost if the host died now.", status.rpo_seconds)
    yield from _wal(status.wal)
    yield _gauge("backups", "Base backups that can be restored.", status.backups)
    yield from _backup(status.last_backup)
    yield _moment("next_backup", "When the next base backup is due.", status.next_backup_due)
    yield _gauge("slot_retained_bytes", "WAL that the server keeps for the slot.", status.slot_retained_bytes)
    yield _gauge("slot_safe_bytes", "WAL that may be written before the slot is in danger.", status.slot_safe_bytes)
    yield _gauge("wal_free_bytes", "Free space where the server keeps its WAL.", status.wal_free_bytes)
    if status.alerts_active is not None:
        alerts = GaugeMetricFamily("pgbackup_alerts_active", "Alerts that are active.", labels=["severity"])
        for severity in Severity:
            alerts.add_metric([severity.word], status.alerts_active.get(severity, 0))
        yield alerts
    if status.store_errors is not None:
        errors = CounterMetricFamily("pgbackup_store_errors", "Requests that the store failed.", labels=["kind"])
        for kind, number in sorted(status.store_errors.items()):
            errors.add_metric([kind], number)
        yield errors
    yield from _run("verification", status.last_verification)
    yield from _run("expiry", status.last_expiry)
    yield from _workers(status)


def _findings(status: StatusSnapshot) -> Metric:
    """By kind, the first word of the key: what follows names an object, and there can be any number of these."""
    family = GaugeMetricFamily("pgbackup_findings", "What is wrong now, by kind.", labels=["kind", "severity"])
    found = Counter((open_.finding.key.partition(":")[0], open_.finding.severity) for open_ in status.findings)
    for (kind, severity), number in sorted(found.items()):
        family.add_metric([kind, severity.word], number)
    return family


def _wal(wal: WalStatus) -> Iterator[Family]:
    streaming = None if wal.streaming is None else float(wal.streaming)
    yield _gauge("wal_streaming", "1 while WAL is streamed from the server.", streaming)
    yield _gauge("wal_server_lsn_bytes", "The end of the server's WAL, as a byte position.", wal.server_end)
    yield _gauge("wal_received_lsn_bytes", "WAL received from the server, as a byte position.", wal.received)
    yield _gauge("wal_uploaded_lsn_bytes", "WAL that is durable in the repository, as a byte position.", wal.uploaded)
    yield _gauge("wal_confirmed_lsn_bytes", "WAL confirmed to the server, as a byte position.", wal.confirmed)
    yield _gauge("wal_lag_bytes", "WAL that the server has written and that is not durable yet.", wal.lag_bytes)
    if wal.uploads is not None:
        yield from _uploads(wal.uploads)


def _uploads(totals: UploadTotals) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "pgbackup_wal_segments_uploaded", "Whole WAL segments stored since the process began.", value=totals.segments
    )
    yield CounterMetricFamily(
        "pgbackup_wal_uploaded_bytes", "Bytes of WAL as stored since the process began.", value=totals.stored_bytes
    )
    errors = CounterMetricFamily("pgbackup_wal_upload_errors", "Uploads of WAL that failed.", labels=["kind"])
    for kind, number in sorted(totals.errors.items()):
        errors.add_metric([kind], number)
    yield errors
    reached, buckets = 0, []
    for bound, number in zip([*map(str, SECONDS_BOUNDS), "+Inf"], totals.buckets, strict=True):
        reached += number
        buckets.append((bound, reached))
    yield HistogramMetricFamily(
        "pgbackup_wal_upload_seconds", "How long uploads of WAL took.", buckets=buckets, sum_value=totals.seconds
    )


def _backup(backup: BackupStatus | None) -> Iterator[Family]:
    if backup is None:
        return
    yield _moment("last_backup", "When the newest base backup was finished.", backup.finished)
    yield _gauge("last_backup_duration_seconds", "How long the newest base backup took.", backup.duration_seconds)
    yield _gauge("last_backup_raw_bytes", "The size of what the newest base backup holds.", backup.raw_bytes)
    yield _gauge("last_backup_stored_bytes", "The size of the newest base backup as stored.", backup.stored_bytes)


def _run(name: str, run: RunStatus | None) -> Iterator[Family]:
    if run is None:
        return
    yield _moment(f"last_{name}", f"When the last {name} ended.", run.finished)
    yield _gauge(f"last_{name}_ok", f"1 when the last {name} found everything in order.", float(run.ok))


def _workers(status: StatusSnapshot) -> Iterator[Family]:
    up = GaugeMetricFamily("pgbackup_worker_up", "1 when the worker lives and does not hang.", labels=["worker"])
    idle = GaugeMetricFamily("pgbackup_worker_idle_seconds", "Time since the last heartbeat.", labels=["worker"])
    crashes = CounterMetricFamily("pgbackup_worker_crashes", "Crashes since the process began.", labels=["worker"])
    for state in status.workers:
        up.add_metric([state.name], float(not state.silent))
        idle.add_metric([state.name], state.idle_seconds)
        crashes.add_metric([state.name], state.crashes)
    yield from (up, idle, crashes) if status.workers else ()
