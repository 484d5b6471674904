"""Rows are written all the time, and come back to every kind of target, with every major version."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.workload import CounterWriter, assert_counter, read_counter

pytestmark = pytest.mark.timeout(400)


def new_key() -> str:
    return secrets.token_hex(32)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_restored_to_every_kind_of_target(
    encrypted: bool,
    pg_major: int,
    make_server: ServerFactory,
    make_program: MakeProgram,
    restore: Restore,
) -> None:
    if encrypted and pg_major not in (14, 18):
        pytest.skip("encryption does not depend on the version: the oldest and the newest are enough")
    server = make_server(pg_major)
    settings = {"PGBACKUP_ENCRYPTION_KEY": new_key(), "PGBACKUP_ENCRYPTION_KEY_TRANSFORM": "hex"} if encrypted else {}
    program = make_program(server, s3=True, **settings)
    program.run()
    with CounterWriter(server.conninfo()) as writer:
        backup = program.wait_backups(1)[0]
        writer.wait_more(50)
        by_time = writer.last()
        time.sleep(1.1)
        moment = datetime.now(UTC)
        time.sleep(1.1)
        writer.wait_more(20)
        by_lsn = writer.last()
        xid = server.execute("INSERT INTO counter (n) VALUES (1000000) RETURNING pg_current_xact_id()::text")[0][0]
        writer.wait_more(20)
        by_name = writer.last()
        server.execute("SELECT pg_create_restore_point('before the drop')")
        writer.wait_more(20)
        commits = writer.stop()
    wait_shipped(program, server)
    restored = restore(program, pg_major, "--to", moment.isoformat())
    rows = read_counter(restored)
    assert by_time.n in rows
    assert 1000000 not in rows
    assert all(c.n in rows for c in commits if c.acknowledged < moment - timedelta(seconds=0.5))
    assert not any(c.n in rows for c in commits if c.acknowledged > moment + timedelta(seconds=0.5))
    restored.stop("fast")

    restored = restore(program, pg_major, "--to-lsn", str(by_lsn.lsn))
    rows = read_counter(restored)
    assert by_lsn.n in rows
    assert 1000000 not in rows
    restored.stop("fast")

    restored = restore(program, pg_major, "--to-xid", str(xid))
    assert 1000000 in read_counter(restored)
    restored.stop("fast")

    restored = restore(program, pg_major, "--to-name", "before the drop")
    rows = read_counter(restored)
    assert by_name.n in rows
    assert commits[-1].n not in rows
    restored.stop("fast")

    restored = restore(program, pg_major, "--immediate", "--backup", backup["name"])
    assert commits[-1].n not in read_counter(restored)
    restored.stop("fast")

    restored = restore(program, pg_major, "--latest")
    assert_counter(restored, commits)
    restored.stop("fast")
