"""pg_wal that grows for another reason than our slot: the cause is named, and what fits is no finding."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.growth import GrowthSeries
from pgbackup.core.pg_wal import OtherSlot, PgWalSample, pg_wal_findings
from tests.made_catalog import minutes

MIB, GIB = 1 << 20, 1 << 30
QUIET = PgWalSample(minutes(0), wal_bytes=GIB, free_bytes=50 * GIB, own_bytes=16 * MIB, max_bytes=GIB)
STANDBY = OtherSlot("standby_1", False, 3 * GIB)


def told(sample: PgWalSample, rate: float = 0.0) -> list[tuple[str, Severity]]:
    return [(finding.key, finding.severity) for finding in pg_wal_findings(sample, rate)]


def only(sample: PgWalSample, rate: float = 0.0) -> Finding:
    (finding,) = pg_wal_findings(sample, rate)
    assert finding.hint.endswith(".")
    return finding


def test_a_quiet_server() -> None:
    assert told(QUIET) == []
    assert told(QUIET, rate=100 * MIB) == [], "it grows to max_wal_size, and no further"


def test_what_our_slot_holds_is_told_by_who_watches_that() -> None:
    sample = replace(QUIET, wal_bytes=9 * GIB, own_bytes=8 * GIB, free_bytes=GIB, slots=(STANDBY,))
    assert told(sample, rate=100 * MIB) == []


def test_another_slot_fills_the_disk_in_41_minutes() -> None:
    series = GrowthSeries()
    for minute in range(10):
        rate = series.add(minutes(minute), minute * GIB)
    sample = replace(QUIET, wal_bytes=9 * GIB, free_bytes=41 * GIB, slots=(replace(STANDBY, retained_bytes=9 * GIB),))
    finding = only(sample, rate)
    assert (finding.key, finding.severity) == ("pg-wal:slot:standby_1", Severity.CRITICAL)
    assert finding.summary == (
        "pg_wal holds 9.0 GiB, because nobody streams from replication slot standby_1, which keeps 9.0 GiB: the disk "
        "is full in 41 min at this rate"
    )
    assert "pg_drop_replication_slot('standby_1')" in finding.hint


@pytest.mark.parametrize(
    ("held", "free", "expected"),
    [
        (3 * GIB, 4 * GIB, None),
        (3 * GIB, 3 * GIB, Severity.WARNING),
        (8 * GIB, 2 * GIB, Severity.CRITICAL),
        (17 * GIB, 500 * GIB, Severity.WARNING),
        (17 * GIB, None, Severity.WARNING),
        (65 * GIB, None, Severity.CRITICAL),
        (200 * MIB, 300 * MIB, None),
        (200 * MIB, 100 * MIB, Severity.WARNING),
    ],
)
def test_another_slot_by_its_share_and_size(held: int, free: int | None, expected: Severity | None) -> None:
    sample = replace(
        QUIET, wal_bytes=held, free_bytes=free, slots=(replace(STANDBY, active=True, retained_bytes=held),)
    )
    assert told(sample) == ([("pg-wal:slot:standby_1", expected)] if expected else [])


def test_the_slot_that_holds_most_is_named() -> None:
    slots = (STANDBY, OtherSlot("logical", True, 20 * GIB))
    finding = only(replace(QUIET, wal_bytes=20 * GIB, slots=slots))
    assert "somebody is too slow with replication slot logical" in finding.summary


def test_an_archive_command_that_fails() -> None:
    sample = replace(QUIET, waiting_bytes=300 * MIB, failed_wal="000000010000000000000007")
    finding = only(sample)
    assert (finding.key, finding.severity) == ("pg-wal:archiving", Severity.WARNING)
    assert "archive_command fails at 000000010000000000000007: 300 MiB wait to be archived" in finding.summary
    assert "archive_command = '/bin/true'" in finding.hint
    assert only(sample, rate=10 * MIB).severity is Severity.CRITICAL, "50 GiB are gone in less than two hours"
    assert told(replace(sample, waiting_bytes=200 * MIB)) == []
    assert told(replace(sample, failed_wal="")) == [], "what is only slow counts when it gets much"
    nothing = only(replace(sample, failed_wal="", without_command=True))
    assert (nothing.severity, "on without an archive_command" in nothing.summary) == (Severity.WARNING, True)
    assert "does not keep up" in only(replace(sample, failed_wal="", waiting_bytes=20 * GIB)).summary


def test_wal_keep_size_is_what_somebody_wanted_unless_it_does_not_fit() -> None:
    sample = replace(QUIET, wal_bytes=10 * GIB, keep_bytes=40 * GIB, free_bytes=50 * GIB)
    assert told(sample, rate=100 * MIB) == []
    finding = only(replace(sample, free_bytes=20 * GIB), rate=MIB)
    assert (finding.key, finding.severity) == ("pg-wal:keep-size", Severity.WARNING)
    assert "wal_keep_size is 40.0 GiB: the disk is full in 5 h at this rate" in finding.summary
    assert told(replace(sample, free_bytes=None), rate=100 * MIB) == []


def test_checkpoints_that_do_not_get_done() -> None:
    sample = replace(QUIET, wal_bytes=30 * GIB, free_bytes=10 * GIB)
    assert told(sample) == [("pg-wal:checkpoints", Severity.WARNING)]
    assert told(replace(sample, wal_bytes=2 * GIB), rate=MIB) == [("pg-wal:checkpoints", Severity.WARNING)]


def test_growth_is_counted_from_the_lowest_point() -> None:
    series = GrowthSeries()
    rates = [series.add(minutes(minute), size) for minute, size in enumerate((60, 600, 0, 60, 120))]
    assert rates == [0.0, 9.0, 0.0, 1.0, 1.0]
    assert series.add(minutes(0), 999) == 0.0, "a clock that was set back begins anew"
    assert series.add(minutes(60), 999) == 0.0
    assert series.add(minutes(0) + timedelta(minutes=61), 1059) == 1.0
