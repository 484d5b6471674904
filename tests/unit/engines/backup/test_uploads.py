"""What a base backup keeps in memory for its uploads, however many there are."""

from __future__ import annotations

import threading

import pytest

from pgbackup.engines.backup.uploads import BUFFER_BYTES, PART_BYTES, BackupUploads, part_bytes
from pgbackup.errors import BackupError
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.s3_upload import MIN_PART_BYTES
from tests.waiting import stands_still_at

MIB = 1 << 20


@pytest.mark.parametrize("concurrency", range(1, 21))
def test_parts_are_as_large_as_s3_wants_them(concurrency: int) -> None:
    assert MIN_PART_BYTES <= part_bytes(concurrency) <= PART_BYTES


@pytest.mark.parametrize("concurrency", [1, 4, 20])
def test_a_store_that_hangs_holds_a_bounded_number_of_bytes(concurrency: int) -> None:
    store = MemoryStore()
    released = threading.Event()
    store.on_call = lambda operation, key: released.wait(30) if operation == "put_part" else None
    stop = threading.Event()
    uploads = BackupUploads(store, concurrency=concurrency, stop=stop)
    written = [0]

    def write() -> None:
        block = bytes(MIB)
        writer = uploads.open("object")
        try:
            while written[0] < 2 * BUFFER_BYTES:
                writer.write(block)
                written[0] += len(block)
        except BackupError:
            return

    thread = threading.Thread(target=write)
    thread.start()
    before = stands_still_at(lambda: written[0], 0.3)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()  # although the store hangs
    released.set()
    uploads.close()
    assert concurrency * MIN_PART_BYTES <= before <= BUFFER_BYTES
