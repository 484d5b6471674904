"""The store alone: how fast one large object goes up and comes down, and what small requests cost.

Run by name: ``pytest -s -m bench tests/bench/bench_store.py``. SeaweedFS on the same machine. Prints; judges nothing.
"""

from __future__ import annotations

import os
import platform
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from pgbackup.storage.stream_writer import ObjectWriter
from tests.fix_store import S3Server, open_s3

pytestmark = pytest.mark.timeout(900)
STREAM_MB = 500
ROUNDS = 200


@pytest.fixture(params=["tls", "http", "file"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    if request.param == "file":
        yield FileStore(request.getfixturevalue("tmp_path") / "repository")
        return
    server: S3Server = request.getfixturevalue("s3_tls_server" if request.param == "tls" else "s3_server")
    store = open_s3(server, monkeypatch)
    yield store
    store.close()


def say(text: str) -> None:
    print(f"\n    {text}", flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("parallel", [1, 4])
def test_one_large_object(store: ObjectStore, parallel: int) -> None:
    say(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {store.url}")
    piece = random.Random(1).randbytes(1 << 20)
    before, cpu_before = peak_mb(), time.process_time()
    with ThreadPoolExecutor(parallel) as pool:
        begin = time.monotonic()
        writer = ObjectWriter(store, "large", submit=pool.submit, parallel=parallel)
        for _ in range(STREAM_MB):
            writer.write(piece)
        assert writer.finish()
        up = time.monotonic() - begin
    rate = STREAM_MB * 1.048576 / up
    cpu = time.process_time() - cpu_before
    say(f"up, {parallel} at a time: {rate:.0f} MB/s; our CPU {cpu:.1f} s, memory +{peak_mb() - before:.0f} MiB")
    begin = time.monotonic()
    size = 0
    with store.open_read("large") as stream:
        while data := stream.read(1 << 20):
            size += len(data)
    down = time.monotonic() - begin
    assert size == STREAM_MB << 20
    say(f"down, one stream: {STREAM_MB * 1.048576 / down:.0f} MB/s")
    store.delete(["large"])


def test_small_requests(store: ObjectStore) -> None:
    data = random.Random(2).randbytes(4096)
    store.put_if_absent("warm", b"")
    for number in range(10):
        store.put(f"listed/{number}", b"")
    # Each call has numbers of its own, so that none finds an object of another.
    calls: dict[str, Callable[[int], object]] = {
        "put_if_absent of 4 KiB": lambda number: store.put_if_absent(f"small/{number}", data),
        "get of 4 KiB": lambda number: store.get(f"small/{number}"),
        "head": lambda number: store.head(f"small/{number}"),
        "list of 10 objects": lambda number: list(store.list("listed/")),
        "delete": lambda number: store.delete([f"small/{number}"]),
    }
    for name, call in calls.items():
        seconds = []
        for number in range(ROUNDS):
            begin = time.monotonic()
            call(number)
            seconds.append(time.monotonic() - begin)
        say(f"{name}: median {statistics.median(seconds) * 1000:.1f} ms, slowest {max(seconds) * 1000:.0f} ms")
