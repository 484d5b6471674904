"""Catalogs, backups and evidence made by hand, for tests of plans: one segment is one MiB, minutes count from noon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.recovery_evidence import Evidence, StopRecord
from pgbackup.core.recovery_plan import RecoveryPlan, plan_restore
from pgbackup.core.timeline import parse_history
from pgbackup.errors import RestoreError

MIB = 1 << 20
SIZE = MIB
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def at(segment: float) -> Lsn:
    """The LSN that many segments from 0/0."""
    return Lsn(int(segment * SIZE))


def backup(start: float, stop: float, *, timeline: int = 1, minute: float = 0, **more) -> Backup:
    name = f"base_{SegmentName.containing(timeline, at(start), SIZE)}"
    done = minutes(minute)
    return Backup(
        name=name, timeline=timeline, start_lsn=at(start), stop_lsn=at(stop), started=done - timedelta(seconds=30),
        finished=done, modified=done, system_identifier=1, pg_version=180001, raw_bytes=100 * MIB,
        stored_bytes=20 * MIB, engine="pgbackup", **more,
    )  # fmt: skip


def catalog(backups, segments, tails=None, forks=(), marks=()) -> Catalog:
    """``forks``: (timeline, text). ``tails``: {(timeline, number): fraction}. ``marks``: (minute, timeline, at)."""
    return Catalog(
        segment_bytes=SIZE,
        backups=tuple(backups),
        segments={timeline: list(numbers) for timeline, numbers in segments.items()},
        tails={SegmentName(t, n, SIZE): int(part * SIZE) for (t, n), part in (tails or {}).items()},
        histories={timeline: parse_history(timeline, text) for timeline, text in forks},
        marks=tuple(TimeMark(minutes(minute), timeline, at(where)) for minute, timeline, where in marks),
    )


def simple(**more) -> Catalog:
    """Two backups on timeline 1, whole segments 3 to 20, half of 21 as a tail."""
    backups = [backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)]
    return catalog(backups, {1: range(3, 21)}, {(1, 21): 0.5}, **more)


def files(plan: RecoveryPlan) -> list[tuple[int, int, str]]:
    return [(f.segment.timeline, f.segment.number, f.source) for f in plan.wal]


def numbers(plan: RecoveryPlan) -> list[int]:
    return [f.segment.number for f in plan.wal]


def stop_at(where: float, *, minute: float | None = None) -> Evidence:
    return Evidence(StopRecord(at(where), Lsn(at(where) + 100), minutes(minute) if minute is not None else None))


def nothing_found(last_record: float, *, minute: float | None = None) -> Evidence:
    return Evidence(None, at(last_record), minutes(minute) if minute is not None else None)


def refused(*args, **more) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        plan_restore(*args, **more)
    assert caught.value.hint.endswith(".")
    return caught.value
