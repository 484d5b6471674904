"""A base backup that fails in the middle: its threads end with it, soon."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from pgbackup.engines.backup import uploads as uploads_module
from pgbackup.engines.backup.pipeline import BackupPipeline
from pgbackup.engines.backup.uploads import PART_BYTES, BackupUploads
from pgbackup.engines.base import SilentProgress
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.waiting import no_thread_named, wait_for

WAIT_SECONDS = 10


@pytest.fixture
def no_collector() -> Iterator[None]:
    """As in a process that is idle: it may be hours before the collector looks at old objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_encoders_thread_ends_with_the_backup(no_collector: None) -> None:
    uploads = BackupUploads(MemoryStore(), concurrency=1, stop=threading.Event())
    codec = Codec(Compression("lz4"))
    pipeline = BackupPipeline(uploads, codec, "base_1", encoder_threads=2, progress=SilentProgress())
    cycle: list[object] = [pipeline]
    cycle.append(cycle)  # as a failure's traceback does, which leads to the pipeline
    pipeline.open_part(control=False)
    pipeline.write(bytes(3 << 20))
    uploads.close()
    pipeline.close()
    del pipeline, cycle
    wait_for(lambda: no_thread_named("encode"), WAIT_SECONDS)


def test_several_objects_are_aborted_in_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    released = threading.Event()

    def hang(operation: str, key: str) -> None:
        if operation == "put_part":
            released.wait(WAIT_SECONDS * 3)

    store.on_call = hang
    monkeypatch.setattr(uploads_module, "ABORT_SECONDS", 1.0)
    uploads = BackupUploads(store, concurrency=3, stop=threading.Event())
    for key in ("a", "b", "c"):
        uploads.open(key).write(bytes(PART_BYTES + 1))
    begin = time.monotonic()
    uploads.close()
    seconds = time.monotonic() - begin
    released.set()
    assert seconds < WAIT_SECONDS  # three times five without the common limit
