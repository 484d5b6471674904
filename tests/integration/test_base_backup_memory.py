"""What a base backup costs in memory: bounded, whatever it copies. Each is measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Env

LIMIT_MIB = 256


@pytest.fixture
def many_relations(make_server: ServerFactory) -> ThrowawayServer:
    """A server with 10,000 tables, an index each."""
    server = make_server(settings={"max_locks_per_transaction": 1000, "shared_buffers": "128MB"})
    for part in range(10):
        server.execute(
            f"DO $$ BEGIN FOR i IN 1..1000 LOOP "
            f"EXECUTE format('CREATE TABLE t_%s_%s (i int PRIMARY KEY)', {part}, i); END LOOP; END $$"
        )
    return server


def take_measured(server: ThrowawayServer, env: dict[str, str], *arguments: str) -> tuple[float, int, float]:
    """Take a backup in another process; returns its peak RSS in MiB, the files, and the seconds of the copy."""
    command = [sys.executable, "-m", "tests.measured_backup", server.conninfo(user="pgbackup"), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=170, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    words = done.stdout.split()
    return float(words[0]), int(words[1]), float(words[2])


def test_ten_thousand_relations(many_relations: ThrowawayServer, s3_env: S3Env) -> None:
    peak, files, _ = take_measured(many_relations, s3_env(tls=True))
    assert files > 20_000
    assert peak < LIMIT_MIB, f"{peak:.0f} MiB"


def test_the_table_of_checksums_on_disk(many_relations: ThrowawayServer, s3_env: S3Env) -> None:
    peak, files, _ = take_measured(many_relations, s3_env(), "--spill-files", "1000")
    assert files > 20_000
    assert peak < LIMIT_MIB, f"{peak:.0f} MiB"


def test_a_large_table_and_a_slow_store(make_server: ServerFactory, s3_env: S3Env) -> None:
    """The store takes less than the server sends: the queue and the uploads stay bounded."""
    server = make_server()
    server.execute(
        "CREATE TABLE big AS SELECT encode(sha512(i::text::bytea), 'base64') || encode(sha512((-i)::text::bytea), "
        "'base64') AS t FROM generate_series(1, 2500000) i"
    )
    peak, _, _ = take_measured(server, s3_env(), "--put-seconds", "0.3")
    assert peak < LIMIT_MIB, f"{peak:.0f} MiB"
