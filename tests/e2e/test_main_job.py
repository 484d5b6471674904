"""The whole job with the whole program: rows are written all the time, and come back to any moment."""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.workload import Commit, CounterWriter, assert_counter, read_counter

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
        server.execute("SELECT pg_create_restore_point('before the drop')")
        by_name = writer.acknowledged()
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
    assert by_name[-2].n in rows
    assert commits[-1].n not in rows
    restored.stop("fast")

    restored = restore(program, pg_major, "--immediate", "--backup", backup["name"])
    assert commits[-1].n not in read_counter(restored)
    restored.stop("fast")

    restored = restore(program, pg_major, "--latest")
    assert_counter(restored, commits)
    restored.stop("fast")


def test_no_acknowledged_commit_is_lost_when_the_host_dies(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    """kill -9 of server and pgbackup together, the data directory deleted: what was acknowledged is in the bucket."""
    server = make_server()
    program = make_program(server, s3=True, PGBACKUP_WAL_FLUSH_INTERVAL="0")
    resident = program.run()
    server.execute("CREATE TABLE filler (t text)")
    program.wait_backups(1)
    server.configure(synchronous_standby_names="pgbackup")
    server.reload()
    time.sleep(1)
    writers = [CounterWriter(server.conninfo(), table=f"counter_{n}", pause_seconds=0).start() for n in range(4)]
    for writer in writers:
        writer.wait_for(150)
    resident.process.send_signal(signal.SIGKILL)
    server.kill()
    commits: dict[str, list[Commit]] = {writer.table: writer.stop() for writer in writers}
    resident.process.wait(10)
    shutil.rmtree(server.data_directory)
    restored = restore(program, server.major, "--latest", "--no-sync-standby")
    for table, acknowledged in commits.items():
        assert_counter(restored, acknowledged, table)


def test_sigterm_ships_what_was_received(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    server = make_server()
    program = make_program(server, s3=True, PGBACKUP_WAL_FLUSH_INTERVAL="1h")
    resident = program.run()
    program.wait_backups(1)
    with CounterWriter(server.conninfo()) as writer:
        writer.wait_for(100)
        commits = writer.stop()
    time.sleep(1)
    assert resident.terminate() < 10
    restored = restore(program, server.major, "--latest")
    assert_counter(restored, commits)


def test_a_standalone_backup_is_restorable_on_its_own(
    pg_major: int, make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    server = make_server(pg_major)
    program = make_program(server)
    with CounterWriter(server.conninfo()) as writer:
        writer.wait_for(50)
        before = writer.acknowledged()
        result = program.json("backup", "--label", "by hand")
        assert result
        writer.stop()
    assert server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    program("verify")
    restored = restore(program, pg_major, "--latest")
    assert_counter(restored, before)


def test_run_takes_the_restores_settings_out_after_promotion(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    """Left-over recovery settings break the next recovery; `run` on the same machine removes them."""
    server = make_server()
    program = make_program(server)
    program("backup")
    restored = restore(program, server.major, "--latest")
    settings = restored.data_directory / "postgresql.auto.conf"
    assert "recovery_target_timeline" in settings.read_text()
    again = make_program(restored)
    resident = again.run()
    resident.wait_log("removed the settings of the restore")
    assert "pgbackup restore" not in settings.read_text()
    assert "recovery_target" not in settings.read_text()
    restored.stop("fast")
    restored.start()


def test_killed_during_the_base_backup(make_server: ServerFactory, make_program: MakeProgram) -> None:
    """No sentinel, and the next run removes what was left and takes its own backup."""
    server = make_server()
    server.execute("CREATE TABLE big AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 100000) i")
    program = make_program(server, s3=True, PGBACKUP_BACKUP_RATE="20MB/s", PGBACKUP_PART_SIZE="8MiB")
    resident = program.run()
    time.sleep(4)
    resident.kill()
    assert program.json("list")["backups"] == []
    fast = program.with_env()
    del fast.env["PGBACKUP_BACKUP_RATE"]
    fast.run()
    fast.wait_backups(1)
    fast("verify")


def test_two_residents_share_one_repository(make_server: ServerFactory, make_program: MakeProgram) -> None:
    """A second process on the same slot waits quietly, and takes over when the first one ends."""
    server = make_server()
    program = make_program(server)
    first = program.run()
    program.wait_backups(1)
    second = program.run()
    time.sleep(3)
    assert second.process.poll() is None
    first.terminate()
    second.wait_log("streaming WAL")
    with CounterWriter(server.conninfo()) as writer:
        writer.wait_for(50)
        writer.stop()
    wait_shipped(program, server)
    assert len(program.json("list")["backups"]) == 1


def test_memory_stays_small(make_server: ServerFactory, make_program: MakeProgram) -> None:
    """Idle under 120 MiB, and under 256 MiB at its peak, with a backup and a gigabyte of WAL behind it."""
    server = make_server()
    program = make_program(server, s3=True)
    resident = program.run()
    server.execute("CREATE TABLE filler (t text)")
    program.wait_backups(1)
    server.execute("INSERT INTO filler SELECT repeat(md5(i::text), 20) FROM generate_series(1, 300000) i")
    wait_shipped(program, server, timeout=120)
    deadline = time.monotonic() + 60  # free memory is given back every 15 s once the work is done
    while (kib := memory_kib(resident.process.pid))["VmRSS"] >= 120 * 1024 and time.monotonic() < deadline:
        time.sleep(1)
    assert kib["VmRSS"] < 120 * 1024
    assert kib["VmHWM"] < 256 * 1024


def memory_kib(pid: int) -> dict[str, int]:
    """The kernel's account of a process's memory, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
