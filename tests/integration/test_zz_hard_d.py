import os, pytest
from tests.bench.bench_base_backup import read_and_compress, back_up, say, database_mb

pytestmark = [pytest.mark.timeout(900)]


def test_hard(make_server, s3_env):
    server = make_server(15, settings={"max_wal_size": "8GB", "shared_buffers": "256MB", "autovacuum": False})
    server.execute("CREATE UNLOGGED TABLE x (i int)")
    server.execute(
        "CREATE TABLE big AS SELECT encode(sha512(i::text::bytea), 'hex') || encode(sha512((-i)::text::bytea), 'hex') || repeat('abc def ', 20) AS t FROM generate_series(1, 2500000) i; CHECKPOINT"
    )
    say(f"{database_mb(server):.0f} MB")
    read_and_compress(server)
    for _ in range(2):
        b = read_and_compress(server)
        seconds, peak, raw, stored = back_up(server, s3_env(tls=True))
        say(
            f"hard: baseline {b:.2f}s {raw / b:.0f} MB/s, ours {seconds:.2f}s {raw / seconds:.0f} MB/s stored {stored:.0f} peak {peak:.0f} ratio {b / seconds:.2f}"
        )
