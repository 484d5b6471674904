"""Which plans `delete before BACKUP` expresses: exactly those whose outcome is the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.retention import ExpiryPlan, Verdict
from pgbackup.core.retention_wal import WalRange
from pgbackup.core.tool_delete import oldest_to_keep

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZE = 16 * MIB


def backup(number: int, **fields: object) -> Backup:
    start = Lsn(number * SIZE + 40)
    when = NOW + timedelta(hours=number)
    name = f"base_{SegmentName(1, number, SIZE)}"
    made = Backup(name, 1, start, Lsn(start + 100), when, when, when, 1, 140000, 1, 1, "wal-g")
    return replace(made, **fields)  # type: ignore[arg-type]


def wal(begin: int, end: int) -> WalRange:
    return WalRange(1, begin, end, begin, end - 1, end - begin, 0, "")


def plan(removed: list[Backup], kept: list[Backup], *ranges: WalRange, **fields: object) -> ExpiryPlan:
    verdicts = [Verdict(b, False, ()) for b in removed] + [Verdict(b, True, ()) for b in kept]
    return replace(ExpiryPlan(tuple(verdicts), ranges), **fields)  # type: ignore[arg-type]


def catalog(first: int = 2, last: int = 9, **segments: object) -> Catalog:
    return Catalog(SIZE, segments={1: list(range(first, last + 1)), **segments})  # type: ignore[dict-item]


def test_everything_before_the_oldest_kept() -> None:
    found = oldest_to_keep(plan([backup(2), backup(4)], [backup(6), backup(8)], wal(2, 6)), catalog())
    assert found is not None
    assert found.name == backup(6).name


def test_without_wal_before_it() -> None:
    assert oldest_to_keep(plan([backup(2)], [backup(6)]), catalog(first=6)) is not None


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("nothing to remove", plan([], [backup(6)], wal(2, 6))),
        ("nothing kept", plan([backup(2)], [])),
        ("refused", plan([backup(2)], [backup(6)], wal(2, 6), refusal="no")),
        ("an older one stays", plan([backup(4)], [backup(2), backup(6)], wal(2, 6))),
        ("a permanent one", plan([backup(2)], [backup(6), backup(8, permanent=True)], wal(2, 6))),
        ("a delta", plan([backup(2)], [backup(6, delta_of="base_x")], wal(2, 6))),
        ("more WAL is kept", plan([backup(2)], [backup(6)], wal(2, 4))),
        ("WAL is kept", plan([backup(2)], [backup(6)])),
        ("WAL in two ranges", plan([backup(2)], [backup(6)], wal(2, 3), wal(4, 6))),
        ("WAL behind it goes", plan([backup(2)], [backup(6)], wal(2, 8))),
        ("a history goes", plan([backup(2)], [backup(6)], wal(2, 6), histories=(2,))),
        ("in the same segment", plan([backup(6)], [backup(6)], wal(2, 6))),
    ],
)
def test_what_it_cannot_express(what: str, given: ExpiryPlan) -> None:
    assert oldest_to_keep(given, catalog()) is None, what


def test_two_timelines_are_for_us() -> None:
    two = Catalog(SIZE, segments={1: [2, 3, 4, 5, 6], 2: [6, 7]})
    assert oldest_to_keep(plan([backup(2)], [backup(6)], wal(2, 6)), two) is None
