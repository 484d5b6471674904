"""The twin's faults: before an effect, after it, and another writer in between."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgbackup.errors import StoreDenied, StoreUnavailable
from pgbackup.storage.memory import MemoryStore


def test_a_call_fails_before_its_effect_so_many_times() -> None:
    store = MemoryStore()
    store.fail_next("put", StoreUnavailable("down"), 2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.put("k", b"x")
        assert store.head("k") is None
    store.put("k", b"x")
    assert store.get("k") == b"x"
    assert store.calls["put"] == 3


def test_a_lost_answer() -> None:
    store = MemoryStore()
    store.fail_next("put_if_absent", StoreUnavailable("answer lost"), after=True)
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("k", b"x")
    assert store.get("k") == b"x"
    assert store.put_if_absent("k", b"x") is False


def test_a_read_breaks_in_the_middle() -> None:
    store = MemoryStore()
    store.put("k", b"0123456789")
    with store.open_read("k") as stream:
        assert stream.read(4) == b"0123"
        store.fail_next("read", StoreDenied("no more"))
        with pytest.raises(StoreDenied):
            stream.read(4)


def test_another_writer_comes_first() -> None:
    store = MemoryStore()

    def other(operation: str, key: str) -> None:
        if operation == "complete":
            store.on_call = None
            store.put(key, b"other")

    upload = store.start_upload("k")
    upload.put_part(1, b"ours")
    store.on_call = other
    assert upload.complete() is False
    assert store.get("k") == b"other"


def test_its_clock_is_the_tests() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = MemoryStore(now=lambda: now)
    store.put("k", b"")
    info = store.head("k")
    assert info is not None
    assert info.modified == now
    assert store.clock() == now
