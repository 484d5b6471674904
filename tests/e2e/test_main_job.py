"""The whole job with the whole program: rows are written all the time, and come back to any moment."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.workload import Commit, CounterWriter, assert_counter

pytestmark = pytest.mark.timeout(400)


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
    assert program.backups() == []
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
    """Idle under 120 MiB, and under 256 MiB at its peak, with a backup and some hundred MiB of WAL behind it."""
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
