"""The upload limit on a clock of the test: the rate holds, and WAL goes before base backups."""

from __future__ import annotations

import threading

import pytest

from pgbackup.errors import StorageError
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.limited import LimitedStore, Priority, RateLimiter, at_priority
from pgbackup.storage.memory import MemoryStore


class Clock:
    """Time that passes only while somebody waits for the limiter."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pause(self, changed: threading.Condition, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("priority", list(Priority))
def test_the_rate_holds(clock: Clock, priority: Priority) -> None:
    limiter = RateLimiter(1_000_000, clock=clock, pause=clock.pause)
    for _ in range(20):
        limiter.acquire(500_000, priority)
    # WAL pays afterwards: the last one has not.
    assert clock.now - 100 == pytest.approx(9.5 if priority is Priority.WAL else 10, abs=0.3)


def test_an_idle_uplink_saves_up_little(clock: Clock) -> None:
    limiter = RateLimiter(1_000_000, clock=clock, pause=clock.pause)
    clock.now += 3600
    limiter.acquire(10_000_000, Priority.BASE_BACKUP)
    assert clock.now - 3700 == pytest.approx(9.8, abs=0.1)


def test_wal_does_not_wait_for_a_whole_part(clock: Clock) -> None:
    """In the middle of a part of 10 s, WAL arrives: it goes after one slice, and the part after it."""
    order: list[tuple[str, float]] = []
    wal: list[threading.Thread] = []

    def pause(changed: threading.Condition, seconds: float) -> None:
        clock.now += seconds
        if not wal and clock.now > 103:
            arrived = clock.now
            wal.append(threading.Thread(target=send_wal, args=(arrived,)))
            wal[0].start()
        # Let the other thread have the lock, as a real wait does.
        changed.wait(0.001)

    limiter = RateLimiter(1_000_000, clock=clock, pause=pause)

    def send_wal(arrived: float) -> None:
        limiter.acquire(2_000_000, Priority.WAL)
        order.append(("wal", clock.now - arrived))

    limiter.acquire(10_000_000, Priority.BASE_BACKUP)
    order.append(("part", clock.now))
    wal[0].join()
    assert [name for name, _ in order] == ["wal", "part"]
    assert order[0][1] < 0.5
    assert order[1][1] - 100 == pytest.approx(12, abs=0.5)


def test_close_wakes_who_waits() -> None:
    store = LimitedStore(MemoryStore(), RateLimiter(1))
    store.put("k", bytes(1000))
    failures: list[StorageError] = []

    def wait() -> None:
        try:
            store.put("l", b"x")
        except StorageError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    store.close()
    thread.join(5)
    assert "was closed" in str(failures[0])


def test_a_rate_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        RateLimiter(0)


def test_priority_of_stores() -> None:
    plain: ObjectStore = MemoryStore()
    assert at_priority(plain, Priority.BASE_BACKUP) is plain
    limited = LimitedStore(plain, RateLimiter(1000))
    other = at_priority(limited, Priority.BASE_BACKUP)
    assert isinstance(other, LimitedStore)
    assert other.url == plain.url


def test_parts_count(clock: Clock) -> None:
    store = LimitedStore(MemoryStore(), RateLimiter(1000, clock=clock, pause=clock.pause), Priority.BASE_BACKUP)
    upload = store.start_upload("k")
    upload.put_part(1, bytes(5000))
    assert upload.complete()
    assert clock.now - 100 == pytest.approx(5, abs=0.3)
    assert store.get("k") == bytes(5000)
