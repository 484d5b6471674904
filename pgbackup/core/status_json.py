"""The status as JSON: every key is always there, null means unknown. Keys are only ever added.

Moments are ISO 8601 in UTC, LSNs as Postgres writes them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pgbackup.core.status import (
    BackupStatus,
    OpenFinding,
    RunStatus,
    StatusSnapshot,
    WalStatus,
    is_current,
    verdict_now,
)
from pgbackup.core.worker_health import WorkerState

JsonObject = dict[str, object]


def status_json(snapshot: StatusSnapshot | None, now: datetime) -> JsonObject:
    """An object for ``json.dumps``. Without a snapshot only the verdict is there, which is then unknown."""
    head: JsonObject = {"verdict": str(verdict_now(snapshot, now)), "current": is_current(snapshot, now)}
    if snapshot is None:
        return head
    return head | {
        "as_of": _moment(snapshot.as_of),
        "age_seconds": round((now - snapshot.as_of).total_seconds(), 3),
        "interval_seconds": snapshot.interval_seconds,
        "version": snapshot.version,
        # As text: it has more digits than JavaScript's numbers hold.
        "system_identifier": None if snapshot.system_identifier is None else str(snapshot.system_identifier),
        "timeline": snapshot.timeline,
        "findings": [_finding(found) for found in snapshot.findings],
        "recoverable": {
            **_window(snapshot.earliest_recoverable, snapshot.latest_recoverable),
            "rpo_seconds": snapshot.rpo_seconds,
        },
        "wal": _wal(snapshot.wal),
        "backups": {
            "count": snapshot.backups,
            "last": _backup(snapshot.last_backup),
            "next_due": _moment(snapshot.next_backup_due),
        },
        "slot": {"retained_bytes": snapshot.slot_retained_bytes, "safe_bytes": snapshot.slot_safe_bytes},
        "wal_free_bytes": snapshot.wal_free_bytes,
        "alerts_active": _alerts(snapshot),
        "store_errors": None if snapshot.store_errors is None else dict(snapshot.store_errors),
        "last_verification": _run(snapshot.last_verification),
        "last_expiry": _run(snapshot.last_expiry),
        "workers": [_worker(state) for state in snapshot.workers],
    }


def _window(earliest: datetime | None, latest: datetime | None) -> JsonObject:
    """Both ends rounded into what can be recovered; exact where nothing would be left, as after a first backup."""
    begin, end = _moment(earliest, up=True), _moment(latest)
    if begin is not None and end is not None and begin > end:
        begin, end = (_iso(moment, "microseconds") for moment in (earliest, latest) if moment is not None)
    return {"earliest": begin, "latest": end}


def _moment(moment: datetime | None, *, up: bool = False) -> str | None:
    """To the millisecond; ``up``: never earlier than it is, as the begin of what can be recovered must not be."""
    if moment is None:
        return None
    if up and moment.microsecond % 1000:
        moment += timedelta(milliseconds=1)
    return _iso(moment, "milliseconds")


def _iso(moment: datetime, timespec: str) -> str:
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def _finding(found: OpenFinding) -> JsonObject:
    return {
        "key": found.finding.key,
        "severity": found.finding.severity.word,
        "summary": found.finding.summary,
        "hint": found.finding.hint,
        "facts": dict(found.finding.facts),
        "since": _moment(found.since),
    }


def _wal(wal: WalStatus) -> JsonObject:
    return {
        "streaming": wal.streaming,
        "problem": wal.problem or None,
        "server_lsn": _text(wal.server_end),
        "received_lsn": _text(wal.received),
        "uploaded_lsn": _text(wal.uploaded),
        "confirmed_lsn": _text(wal.confirmed),
        "lag_bytes": wal.lag_bytes,
        "segments_uploaded": None if wal.uploads is None else wal.uploads.segments,
        "stored_bytes": None if wal.uploads is None else wal.uploads.stored_bytes,
    }


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _backup(backup: BackupStatus | None) -> JsonObject | None:
    if backup is None:
        return None
    return {
        "name": backup.name,
        "finished": _moment(backup.finished),
        "duration_seconds": backup.duration_seconds,
        "raw_bytes": backup.raw_bytes,
        "stored_bytes": backup.stored_bytes,
    }


def _alerts(snapshot: StatusSnapshot) -> JsonObject | None:
    if snapshot.alerts_active is None:
        return None
    return {severity.word: number for severity, number in snapshot.alerts_active.items()}


def _run(run: RunStatus | None) -> JsonObject | None:
    return None if run is None else {"finished": _moment(run.finished), "ok": run.ok, "summary": run.summary}


def _worker(state: WorkerState) -> JsonObject:
    return {
        "name": state.name,
        "alive": state.alive,
        "silent": state.silent,
        "idle_seconds": round(state.idle_seconds, 1),
        "crashes": state.crashes,
        "last_error": state.last_error or None,
    }
