"""A base backup to S3 over TLS, against pg_basebackup that only reads and compresses, on the same machine in turn.

Run by name: ``pytest -s -m bench tests/bench/bench_base_backup.py``. The database is pgbench's, of about
PGBACKUP_TEST_DATABASE_MB: 5200, so that start and end do not count. Prints; judges nothing. Memory is the peak of the
process that backs up. The server is PGBACKUP_TEST_MAJOR (15, Debian's); its pg_basebackup must have been built with
zstd. The store is SeaweedFS, which takes a good part of the processor for itself; PGBACKUP_TEST_STORE_ENV names a file
with the environment for another one: NAME=value lines, PGBACKUP_REPOSITORY and boto3's variables.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgbackup.postgres.server_settings import SettingValue
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Env, new_prefix

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
DATABASE_MB = int(os.environ.get("PGBACKUP_TEST_DATABASE_MB", "5200"))
MAJOR = int(os.environ.get("PGBACKUP_TEST_MAJOR", "15"))
OTHER_STORE = os.environ.get("PGBACKUP_TEST_STORE_ENV", "")
ROUNDS = int(os.environ.get("PGBACKUP_TEST_ROUNDS", "5"))
_MB_PER_SCALE = 15


@pytest.fixture
def pgbench_server(make_server: ServerFactory) -> ThrowawayServer:
    settings: dict[str, SettingValue] = {"max_wal_size": "8GB", "shared_buffers": "256MB", "autovacuum": False}
    server = make_server(MAJOR, settings=settings)
    pgbench = server.installation.tool("pgbench")
    scale = str(max(1, DATABASE_MB // _MB_PER_SCALE))
    server.account.run([pgbench, "--quiet", "-i", "-I", "dtGvp", "-s", scale, server.conninfo(local=True)], timeout=900)
    server.execute("CHECKPOINT")
    return server


def say(text: str) -> None:
    print(f"\n    {text}", flush=True)


def database_mb(server: ThrowawayServer) -> float:
    return float(server.execute("SELECT sum(pg_database_size(oid)) FROM pg_database")[0][0]) / 1e6


def read_and_compress(server: ThrowawayServer) -> float:
    """Seconds of pg_basebackup with zstd in the client and nothing written."""
    command: list[str | Path] = [
        server.installation.tool("pg_basebackup"), "--dbname", server.conninfo(), "--compress",
        "client-zstd:level=1,workers=2", "-Ft", "-X", "none", "--checkpoint", "fast", "-D", "-",
    ]  # fmt: skip
    begin = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def back_up(server: ThrowawayServer, env: dict[str, str], *arguments: str) -> tuple[float, float, float, float]:
    """(seconds, peak RSS in MiB, raw MB, stored MB) of one backup in a process of its own."""
    command = [sys.executable, "-m", "tests.measured_backup", server.conninfo(user="pgbackup"), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    peak, _, seconds, raw, stored = map(float, done.stdout.split())
    return seconds, peak, raw / 1e6, stored / 1e6


def store_env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment for a new prefix of SeaweedFS over TLS, or of the store that was named."""
    if OTHER_STORE:
        lines = Path(OTHER_STORE).read_text(encoding="utf-8").splitlines()
        env = dict(line.split("=", 1) for line in lines if line)
        return env | {"PGBACKUP_REPOSITORY": f"{env['PGBACKUP_REPOSITORY'].rstrip('/')}/{new_prefix()}"}
    s3_env: S3Env = request.getfixturevalue("s3_env")
    return s3_env(tls=True)


def test_against_pg_basebackup(pgbench_server: ThrowawayServer, request: pytest.FixtureRequest) -> None:
    server = pgbench_server
    say(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"PostgreSQL {server.installation.version}, {database_mb(server):.0f} MB, "
        f"{'another store' if OTHER_STORE else 'SeaweedFS over TLS on the same machine'}"
    )
    # What both sides find for the first time is no part of it: the database comes into the page cache, the store gets
    # its memory, and what was just written goes to the disk.
    os.sync()
    read_and_compress(server)
    back_up(server, store_env(request))
    os.sync()
    ratios = []
    for _ in range(ROUNDS):
        baseline = read_and_compress(server)
        seconds, peak, raw, stored = back_up(server, store_env(request))
        ratios.append(baseline / seconds)
        say(
            f"pg_basebackup to /dev/null {baseline:.2f} s = {raw / baseline:.0f} MB/s; to S3 {seconds:.2f} s = "
            f"{raw / seconds:.0f} MB/s, stored {stored:.0f} MB, peak RSS {peak:.0f} MiB; ratio {ratios[-1]:.2f}"
        )
    say(f"median ratio {statistics.median(ratios):.2f}")


@pytest.mark.parametrize("compression", ["zstd:3", "zstd:9", "zstd:19", "lz4", "none"])
def test_memory_of_every_compression(compression: str, make_server: ServerFactory, s3_env: S3Env) -> None:
    server = make_server()
    server.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS t FROM generate_series(1, 300000) i; CHECKPOINT")
    seconds, peak, raw, stored = back_up(server, s3_env(tls=True), "--compression", compression)
    say(f"{compression}: {raw:.0f} MB in {seconds:.2f} s, stored {stored:.0f} MB, peak RSS {peak:.0f} MiB")
