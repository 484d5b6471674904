"""WAL: how fast a backlog drains, how soon a full segment is durable, what a commit that waits for the bucket costs.

Run by name: ``pytest -s -m bench tests/bench/bench_wal.py``. S3 over TLS on the same machine. Prints; judges nothing.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.storage.base import ObjectStore
from tests.fix_store import S3Server, open_s3
from tests.streaming import flush_lsn, streaming

MakeServer = Callable[..., ThrowawayServer]
pytestmark = pytest.mark.timeout(900)
BACKLOG_MB = int(os.environ.get("PGBACKUP_TEST_BACKLOG_MB", "1024"))


@pytest.fixture
def tls_store(s3_tls_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    store = open_s3(s3_tls_server, monkeypatch)
    yield store
    store.close()


def say(text: str) -> None:
    print(f"\n    {text}", flush=True)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def wal_load(server: ThrowawayServer, megabytes: int) -> None:
    server.execute("CREATE TABLE IF NOT EXISTS load (t text)")
    start = flush_lsn(server)
    while flush_lsn(server) - start < megabytes << 20:
        rows = "md5(i::text) || repeat(md5((i * 7)::text), 6) FROM generate_series(1, 50000) i"
        server.execute(f"INSERT INTO load SELECT {rows}")
        server.execute("CHECKPOINT; TRUNCATE load")


def test_draining_a_backlog(make_server: MakeServer, tls_store: ObjectStore) -> None:
    server = make_server(settings={"max_wal_size": "8GB", "wal_keep_size": "4GB"})
    with streaming(server, tls_store) as wal:
        wal.wait_streaming()
    wal_load(server, BACKLOG_MB)
    end = flush_lsn(server)
    begin = time.monotonic()
    with streaming(server, tls_store, flush_seconds=10) as wal:
        start = wal.wait_streaming().confirmed
        whole = Lsn(end // (16 << 20) * (16 << 20))
        wal.wait_confirmed(whole, timeout=300)
        seconds = time.monotonic() - begin
    size = (whole - start) / 1e6
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"backlog on {machine()}: {size:.0f} MB in {seconds:.2f} s = {size / seconds:.0f} MB/s, peak RSS {rss:.0f} MiB")


def test_a_full_segment_becomes_durable(make_server: MakeServer, tls_store: ObjectStore) -> None:
    server = make_server()
    delays: list[float] = []
    with streaming(server, tls_store, flush_seconds=10) as wal:
        wal.wait_streaming()
        server.execute("CREATE TABLE load (t text)")
        done = threading.Event()

        def write() -> None:
            with server.connect() as connection:
                connection.autocommit = True
                while not done.is_set():
                    connection.execute("INSERT INTO load SELECT repeat(md5(i::text), 8) FROM generate_series(1, 999) i")
                    time.sleep(0.01)

        writer = threading.Thread(target=write)
        writer.start()
        waiting: list[tuple[Lsn, float]] = []
        known = wal.progress.get().received // (16 << 20)
        while len(delays) < 30:
            position = wal.progress.get()
            if position.received // (16 << 20) > known:
                known = position.received // (16 << 20)
                waiting.append((Lsn(known * (16 << 20)), time.monotonic()))
            while waiting and position.whole >= waiting[0][0]:
                delays.append(time.monotonic() - waiting.pop(0)[1])
            time.sleep(0.002)
        done.set()
        writer.join()
    say(f"segment durable after it is complete: median {statistics.median(delays):.3f} s, max {max(delays):.3f} s")


@pytest.mark.parametrize("clients", [1, 16])
def test_commits_that_wait_for_the_bucket(clients: int, make_server: MakeServer, tls_store: ObjectStore) -> None:
    server = make_server(settings={"fsync": "on"})
    puts = []
    for number in range(50):
        begin = time.monotonic()
        tls_store.put_if_absent(f"bench/{clients}/{number}", os.urandom(400))
        puts.append(time.monotonic() - begin)
    with streaming(server, tls_store, flush_seconds=0.0) as wal:
        wal.wait_streaming()
        server.execute("CREATE TABLE bench (n int, t text)")
        server.configure(synchronous_standby_names="pgbackup")
        server.reload()
        times: list[float] = []
        begin = time.monotonic()

        def client() -> None:
            with psycopg.connect(server.conninfo(), autocommit=True) as connection:
                for number in range(200):
                    start = time.monotonic()
                    connection.execute("INSERT INTO bench VALUES (%s, %s)", (number, "x" * 100))
                    times.append(time.monotonic() - start)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begin
        server.configure(synchronous_standby_names="")
        server.reload()
    put, commit = statistics.median(puts) * 1000, statistics.median(times) * 1000
    say(
        f"{clients} clients, every commit in the bucket: median {commit:.1f} ms, {len(times) / seconds:.0f} commits/s; "
        f"median PUT {put:.1f} ms, difference {commit - put:.1f} ms"
    )
