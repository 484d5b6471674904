"""What a base backup takes for stored WAL: what a restore would find."""

from __future__ import annotations

import threading

import pytest

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.wal.bucket_wal import BucketWal
from pgbackup.errors import BackupError
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore

SEGMENT = SegmentName(1, 3)


def wait(store: MemoryStore, end: Lsn, *, tail_counts: bool) -> bool:
    wal = BucketWal(store, stalled_seconds=0.0)
    wal.begin(1, SEGMENT.start, SEGMENT.segment_bytes)
    return wal.wait_for(1, end, SEGMENT.segment_bytes, threading.Event(), tail_counts=tail_counts)


def test_an_empty_object_is_no_segment() -> None:
    """A store that keeps the beginning of a broken request shows one; every listing of ours passes it over."""
    store = MemoryStore()
    store.put(keys.wal(str(SEGMENT), "zst"), b"")
    with pytest.raises(BackupError, match="did not arrive"):
        wait(store, SEGMENT.end, tail_counts=False)
    store.put(keys.wal(str(SEGMENT), "zst"), b"x")
    assert wait(store, SEGMENT.end, tail_counts=False) is False


def test_an_empty_object_is_no_piece() -> None:
    store = MemoryStore()
    store.put(keys.piece(str(SEGMENT), 0, 100, "zst"), b"")
    with pytest.raises(BackupError, match="did not arrive"):
        wait(store, Lsn(SEGMENT.start + 100), tail_counts=True)
    store.put(keys.piece(str(SEGMENT), 0, 100, "zst"), b"x")
    assert wait(store, Lsn(SEGMENT.start + 100), tail_counts=True) is True
