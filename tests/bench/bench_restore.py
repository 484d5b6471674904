"""Restore: raw MB/s with everything flushed to the disk, and the memory that it takes.

Run by name: ``pytest -s -m bench tests/bench/bench_restore.py``. S3 over TLS on the same machine, ``pgbackup restore``
as its own process. Prints; judges nothing.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.storage.base import ObjectStore
from tests.base_backups import take
from tests.fix_store import S3Server, open_s3

MakeServer = Callable[..., ThrowawayServer]
pytestmark = pytest.mark.timeout(1800)
MEGABYTES = int(os.environ.get("PGBACKUP_TEST_BENCH_MB", "2500"))
SMALL_TABLES = int(os.environ.get("PGBACKUP_TEST_BENCH_TABLES", "300"))


def say(text: str) -> None:
    print(f"\n    {text}", flush=True)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def load(server: ThrowawayServer) -> None:
    """Tables of a compressibility as pgbench's, and a number of small ones."""
    server.execute("CREATE TABLE big (a int, b int, filler char(84))")
    while True:
        size = server.execute("SELECT sum(pg_database_size(oid)) FROM pg_database")[0][0]
        if size > MEGABYTES << 20:
            break
        server.execute("INSERT INTO big SELECT i, i * 7, md5(i::text) FROM generate_series(1, 1000000) i")
    for number in range(SMALL_TABLES):
        server.execute(f"CREATE TABLE small_{number} AS SELECT i FROM generate_series(1, 100) i")


def peak_rss_mib(process: subprocess.Popen[str]) -> float:
    """Highest resident memory of a process, until it ends."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.05)
    return peak / 1024


@pytest.fixture
def filled_server(make_server: MakeServer) -> ThrowawayServer:
    server = make_server(settings={"max_wal_size": "4GB", "wal_level": "replica", "shared_buffers": "256MB"})
    load(server)
    server.execute("CHECKPOINT")
    return server


@pytest.mark.parametrize("jobs", [2, 4])
def test_restore_from_s3(
    filled_server: ThrowawayServer,
    s3_tls_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    workspace: Path,
    jobs: int,
) -> None:
    store: ObjectStore = open_s3(s3_tls_server, monkeypatch)
    begin = time.monotonic()
    switcher = _switch_wal(filled_server)
    result = take(filled_server, store)
    switcher.set()
    seconds = time.monotonic() - begin
    say(f"base backup on {machine()}: {result.raw_bytes / 1e6:.0f} MB in {seconds:.1f} s")
    filled_server.stop("immediate")
    os.sync()
    command = [
        sys.executable, "-m", "pgbackup", "--repository", store.url, "restore", "--target", str(workspace / "restored"),
        "--immediate", "--jobs", str(jobs), "--json",
    ]  # fmt: skip
    environ = {**os.environ, **s3_tls_server.env("x"), "PYTHONPATH": str(Path(__file__).parents[2])}
    environ.pop("PGBACKUP_REPOSITORY", None)
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        peak = peak_rss_mib(process)
        output, errors = process.communicate()
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert process.returncode == 0, errors
    done = json.loads(output)
    assert done["verified"]
    written = sum(p.stat().st_size for p in (workspace / "restored").rglob("*") if p.is_file())
    rate = written / 1e6 / seconds
    say(
        f"restore with {jobs} jobs on {machine()}, S3 over TLS: {written / 1e6:.0f} MB in {seconds:.1f} s with fsync = "
        f"{rate:.0f} MB/s; {cpu:.1f} s of CPU; peak RSS {peak:.0f} MiB; load average {os.getloadavg()[0]:.1f}"
    )
    shutil.rmtree(workspace / "restored")
    store.close()


def _switch_wal(server: ThrowawayServer) -> threading.Event:
    """Nothing streams here, so the last segment of the backup must be ended by hand."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(2):
            server.execute("SELECT pg_switch_wal()")

    threading.Thread(target=run, daemon=True).start()
    return done
