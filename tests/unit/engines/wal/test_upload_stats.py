"""Counts of uploads: every thread's, by how long they took and how they failed."""

from __future__ import annotations

import threading

import pytest

from pgbackup.core.upload_totals import SECONDS_BOUNDS, bucket_of, error_kind
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.errors import CorruptObject, StorageError, StoreDenied, StoreUnavailable


def test_uploads_are_counted_by_kind_and_time() -> None:
    stats = UploadStats()
    stats.stored(seconds=0.01, stored_bytes=100, segment="")
    stats.stored(seconds=0.3, stored_bytes=1000, segment="000000010000000000000001")
    stats.stored(seconds=100, stored_bytes=1000, segment="000000010000000000000001")
    totals = stats.totals()
    assert (totals.objects, totals.segments, totals.stored_bytes) == (3, 2, 2100)
    assert totals.seconds == pytest.approx(100.31)
    assert (totals.buckets[0], totals.buckets[bucket_of(0.3)], totals.buckets[-1], sum(totals.buckets)) == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreDenied("x"), "denied"),
        (StoreUnavailable("x"), "unavailable"),
        (CorruptObject("key", "x"), "corrupt"),
        (StorageError("x"), "other"),
        (ValueError(), "other"),
    ],
)
def test_errors_are_counted_by_kind(error: Exception, kind: str) -> None:
    stats = UploadStats()
    stats.failed(error)
    assert stats.totals().errors == {"denied": 0, "unavailable": 0, "corrupt": 0, "other": 0} | {kind: 1}
    assert error_kind(error) == kind


def test_a_bound_belongs_to_its_bucket() -> None:
    assert [bucket_of(bound) for bound in SECONDS_BOUNDS] == list(range(len(SECONDS_BOUNDS)))
    assert bucket_of(SECONDS_BOUNDS[-1] + 1) == len(SECONDS_BOUNDS)


def test_no_count_is_lost_between_threads() -> None:
    stats = UploadStats()

    def count() -> None:
        for _ in range(500):
            stats.stored(seconds=0.1, stored_bytes=1, segment="000000010000000000000001")
            stats.failed(ValueError())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (stats.totals().segments, stats.totals().errors["other"]) == (2000, 2000)
