"""Fetching ahead of recovery: what is kept ready, what makes room, and when it ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.recovery_path import WalFile
from pgbackup.core.timeline import TimelineHistory
from pgbackup.engines.restore import wal_prefetch
from pgbackup.engines.restore.wal import FetchPlan
from pgbackup.engines.restore.wal_prefetch import Prefetcher, note_position, only_one, take
from pgbackup.engines.wal.read import WalReader
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.made_wal import SYSTEM, MadeWal

CODEC = Codec(Compression("zstd", 1))


def segment(number: int) -> SegmentName:
    return SegmentName(1, number, MIB)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    wal = MadeWal(5)
    for number in range(5, 40):
        wal.filler(100)
        wal.switch()
        store.put(keys.wal(str(segment(number)), "zst"), CODEC.encode(wal.segment(number)))
    return store


class Running:
    """A prefetcher in a thread, with a clock that can be moved."""

    def __init__(self, store: MemoryStore, folder: Path, plan: FetchPlan | None = None) -> None:
        self.folder = folder
        self.moved = 0.0
        reader = WalReader(store, CODEC, system_identifier=SYSTEM)
        prefetcher = Prefetcher(
            reader,
            folder,
            segment(6),
            plan,
            clock=lambda: time.monotonic() + self.moved,
            sleep=lambda _: time.sleep(0.001),
        )
        self.thread = threading.Thread(target=prefetcher.run, daemon=True)
        self.thread.start()

    def there(self) -> list[int]:
        return [n for n in range(5, 45) if (self.folder / str(segment(n))).exists()]

    def wait(self, expected: list[int]) -> None:
        deadline = time.monotonic() + 10
        while self.there() != expected:
            assert time.monotonic() < deadline, f"{self.there()} instead of {expected}"
            time.sleep(0.002)

    def take(self, number: int) -> None:
        assert take(self.folder, str(segment(number)), self.folder.parent / "RECOVERYXLOG", MIB)
        (self.folder.parent / "RECOVERYXLOG").unlink()

    def end(self) -> None:
        self.moved = 1000.0
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "ahead").mkdir()
    return tmp_path / "ahead"


def test_a_bounded_number_is_kept_ready_and_refilled(store, folder, monkeypatch):
    monkeypatch.setattr(wal_prefetch, "MAX_AHEAD", 4)
    running = Running(store, folder)
    running.wait([6, 7, 8, 9])
    running.take(6)
    running.take(7)
    running.wait([8, 9, 10, 11])
    running.end()
    assert running.there() == []


def test_what_postgres_got_otherwise_makes_room(store, folder, monkeypatch):
    monkeypatch.setattr(wal_prefetch, "MAX_AHEAD", 4)
    running = Running(store, folder)
    running.wait([6, 7, 8, 9])
    note_position(folder, str(segment(8)))
    running.wait([9, 10, 11, 12])
    running.end()


def test_it_ends_with_the_archive(store, folder, monkeypatch):
    monkeypatch.setattr(wal_prefetch, "MAX_AHEAD", 40)
    running = Running(store, folder)
    running.wait(list(range(6, 40)))
    for number in range(6, 40):
        running.take(number)
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_it_ends_when_the_folder_is_gone(store, folder):
    running = Running(store, folder)
    running.wait(list(range(6, 6 + wal_prefetch.MAX_AHEAD)))
    folder.rename(folder.with_name("gone"))
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_a_plan_bounds_it_and_its_tail_is_left_to_wal_fetch(store, folder):
    tail = WalFile(segment(9), "tail", 5000)
    running = Running(store, folder, FetchPlan(TimelineHistory(1), MIB, SYSTEM, Lsn(9 * MIB + 5000), tail))
    running.wait([6, 7, 8])
    time.sleep(0.05)
    assert running.there() == [6, 7, 8]
    running.end()


def test_damage_ends_it_and_leaves_nothing(store, folder):
    store.put(keys.wal(str(segment(6)), "zst"), b"damaged")
    running = Running(store, folder)
    running.end()
    assert not list(folder.iterdir())


def test_a_file_of_another_size_is_not_taken(folder, tmp_path):
    (folder / "x").write_bytes(b"short")
    assert not take(folder, "x", tmp_path / "y", MIB)
    assert not take(folder, "missing", tmp_path / "y")
    assert take(folder, "x", tmp_path / "y")


def test_only_one_process_fetches_ahead(folder):
    with only_one(folder) as first, only_one(folder) as second:
        assert first
        assert not second
    with only_one(folder) as again:
        assert again
