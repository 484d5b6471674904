"""ObjectWriter: whole objects or none, in bounded memory, and no failure forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.errors import StorageError, StoreUnavailable
from pgbackup.storage import stream_writer
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.stream_writer import ObjectWriter


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@given(st.lists(st.binary(max_size=25), max_size=30), st.integers(1, 12), st.booleans())
def test_what_is_written_is_stored(pieces: list[bytes], part_bytes: int, threaded: bool) -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(3) as pool:
        submit: Callable[[Callable[[], None]], Future[None]] | None = pool.submit if threaded else None
        writer = ObjectWriter(store, "k", part_bytes=part_bytes, submit=submit)
        for piece in pieces:
            writer.write(piece)
        assert writer.finish() is True
    whole = b"".join(pieces)
    assert store.get("k") == whole
    assert writer.stored_bytes == len(whole)
    assert store.list_uploads() == []
    assert store.calls["put_if_absent"] == (1 if len(whole) <= part_bytes else 0)
    assert store.calls["put_part"] == (0 if len(whole) <= part_bytes else -(-len(whole) // part_bytes))


def test_nothing_written_is_an_empty_object() -> None:
    store = MemoryStore()
    assert ObjectWriter(store, "k").finish() is True
    assert store.get("k") == b""


@pytest.mark.parametrize("size", [5, 50])
def test_an_object_that_is_there_stays(size: int) -> None:
    store = MemoryStore()
    store.put("k", b"before")
    writer = ObjectWriter(store, "k", part_bytes=10)
    writer.write(bytes(size))
    assert writer.finish() is False
    assert store.get("k") == b"before"
    assert store.list_uploads() == []


def test_a_buffer_may_be_used_again() -> None:
    store = MemoryStore()
    writer = ObjectWriter(store, "k", part_bytes=8)
    buffer = bytearray(b"aaaaa")
    writer.write(buffer)
    buffer[:] = b"bbbbb"
    writer.write(memoryview(buffer))
    buffer[:] = b"ccccc"
    assert writer.finish()
    assert store.get("k") == b"aaaaabbbbb"


def test_parts_under_way_are_bounded(pool: ThreadPoolExecutor) -> None:
    """With room for two parts, the third waits until one of them is done."""
    store = MemoryStore()
    go_on = threading.Event()
    started = threading.Semaphore(0)

    def hold(operation: str, key: str) -> None:
        if operation == "put_part":
            started.release()
            assert go_on.wait(10)

    store.on_call = hold
    writer = ObjectWriter(store, "k", part_bytes=10, submit=pool.submit, parallel=2)
    writing = threading.Thread(target=writer.write, args=(bytes(100),))
    writing.start()
    assert started.acquire(timeout=10)
    assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.1)
    assert writing.is_alive()
    go_on.set()
    writing.join(10)
    assert writer.finish()
    assert store.head("k") is not None


def held_at_the_start(go_on: threading.Event) -> Callable[[str, str], None]:
    def hold(operation: str, key: str) -> None:
        if operation == "start_upload":
            assert go_on.wait(10)

    return hold


def test_an_upload_that_is_slow_to_begin_holds_nobody_up(pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    go_on = threading.Event()
    store.on_call = held_at_the_start(go_on)
    writer = ObjectWriter(store, "k", part_bytes=10, submit=pool.submit)
    writer.write(bytes(35))
    assert not go_on.is_set()
    assert writer.upload_id is None
    go_on.set()
    assert writer.finish()
    assert store.get("k") == bytes(35)


def test_an_upload_that_begins_after_the_abort_is_aborted_all_the_same(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_writer, "ABORT_SECONDS", 0.1)
    store = MemoryStore()
    go_on = threading.Event()
    store.on_call = held_at_the_start(go_on)
    writer = ObjectWriter(store, "k", part_bytes=10, submit=pool.submit)
    writer.write(bytes(25))
    writer.abort()
    go_on.set()
    pool.shutdown()
    assert store.calls["start_upload"] == 1
    assert store.list_uploads() == []


def test_a_failed_part_fails_the_next_call_and_all_after_it(pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    store.fail_next("put_part", StoreUnavailable("no answer"))
    writer = ObjectWriter(store, "k", part_bytes=10, submit=pool.submit)
    writer.write(bytes(11))
    pool.shutdown()
    with pytest.raises(StoreUnavailable):
        writer.write(b"more")
    with pytest.raises(StoreUnavailable):
        writer.finish()
    assert store.head("k") is None
    writer.abort()
    assert store.list_uploads() == []


@pytest.mark.parametrize("operation", ["start_upload", "put_part", "complete"])
def test_a_failure_leaves_no_object_and_no_upload(operation: str) -> None:
    store = MemoryStore()
    store.fail_next(operation, StoreUnavailable("no answer"))

    def write() -> None:
        with ObjectWriter(store, "k", part_bytes=10) as writer:
            writer.write(bytes(35))
            writer.finish()

    with pytest.raises(StoreUnavailable):
        write()
    assert store.head("k") is None
    assert store.list_uploads() == []


def test_a_failed_put_cannot_become_an_empty_object() -> None:
    store = MemoryStore()
    store.fail_next("put_if_absent", StoreUnavailable("no answer"))
    writer = ObjectWriter(store, "k")
    writer.write(b"data")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            writer.finish()
    assert store.head("k") is None


def test_an_abort_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    writer = ObjectWriter(store, "k", part_bytes=10)
    writer.write(bytes(25))
    upload_id = writer.upload_id
    store.fail_next("abort_upload", StoreUnavailable("no answer"))
    writer.abort()
    assert "could not abort" in caplog.text
    assert [one.upload_id for one in store.list_uploads()] == [upload_id]
    with pytest.raises(StorageError, match="finished or aborted"):
        writer.write(b"x")


def test_a_pool_that_was_shut_down(pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    cancelled: Future[None] = Future()
    cancelled.cancel()
    cancelled.set_running_or_notify_cancel()
    writer = ObjectWriter(store, "k", part_bytes=10, submit=lambda task: cancelled)
    writer.write(bytes(11))
    with pytest.raises(StorageError, match="cancelled"):
        writer.finish()


def test_a_part_does_not_wait_for_a_first_one_that_was_cancelled() -> None:
    """A pool that ends cancels its queue one by one, and a thread of it may take the second part after the first one
    was cancelled. It would wait for ever, and the end of the process with it."""
    store = MemoryStore()
    tasks: list[Callable[[], None]] = []
    futures: list[Future[None]] = []

    def submit(task: Callable[[], None]) -> Future[None]:
        tasks.append(task)
        futures.append(Future())
        return futures[-1]

    writer = ObjectWriter(store, "k", part_bytes=10, submit=submit)
    writer.write(bytes(25))
    assert futures[0].cancel()
    ended = threading.Event()

    def second() -> None:
        with suppress(CancelledError):
            tasks[1]()
        ended.set()

    threading.Thread(target=second, daemon=True).start()
    assert ended.wait(10)
    writer.abort()
    assert writer.upload_id is None
    assert store.calls["start_upload"] == 0


def test_parts_are_as_large_as_the_store_wants() -> None:
    store = MemoryStore(min_part_bytes=100)
    writer = ObjectWriter(store, "k", part_bytes=10)
    writer.write(bytes(250))
    assert writer.finish()
    assert store.calls["put_part"] == 3


def test_an_abort_while_it_is_finished_never_leaves_a_shorter_object() -> None:
    """The end of a session aborts what is not durable, while another thread may be finishing it."""
    store = MemoryStore()
    first: Future[None] = Future()
    first.set_running_or_notify_cancel()

    def submit(task: Callable[[], None]) -> Future[None]:
        task()
        if not first.done():
            return first
        other: Future[None] = Future()
        other.set_result(None)
        return other

    writer = ObjectWriter(store, "k", part_bytes=10, submit=submit, parallel=1)
    writer.write(b"x" * 15)
    with ThreadPoolExecutor(2) as threads:
        finished = threads.submit(writer.finish)
        deadline = time.monotonic() + 5
        while not finished.running():
            assert time.monotonic() < deadline
        time.sleep(0.05)
        aborted = threads.submit(writer.abort)
        time.sleep(0.05)
        first.set_result(None)
        aborted.result(10)
        with suppress(StorageError):
            finished.result(10)
    there = store.head("k")
    assert there is None or there.size_bytes == 15
