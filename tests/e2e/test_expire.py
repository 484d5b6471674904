"""Expiry as people call it: the plan first, then what it says; what is left restores."""

from __future__ import annotations

from tests.fix_app import MakeProgram, Restore
from tests.fix_postgres import ServerFactory
from tests.workload import CounterWriter, assert_counter


def test_old_backups_and_their_wal_go_and_the_rest_restores(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    server = make_server()
    program = make_program(
        server, s3=True, PGBACKUP_RETENTION_BACKUPS="1", PGBACKUP_RETENTION_WINDOW="0", PGBACKUP_HEALTH_INTERVAL="5s"
    )
    resident = program.run()
    program.wait_backups(1)
    with CounterWriter(server.conninfo()) as writer:
        for number in range(2):
            writer.wait_more(30)
            server.execute("SELECT pg_switch_wal()")
            program("backup", *(["--permanent"] if number == 0 else []))
        commits = writer.stop()
    first, permanent, newest = (backup["name"] for backup in program.json("list")["backups"])
    assert "nothing was removed; --apply removes" in program("expire")
    assert first in str(program.json("expire"))
    assert len(program.json("list")["backups"]) == 3
    program("expire", "--apply")
    left = program.json("list")["backups"]
    assert [backup["name"] for backup in left] == [permanent, newest]
    assert all(backup["restorable"] for backup in left)
    program("verify")
    program("verify", "--backup", permanent, "--wal", "needed")
    assert "removed: 0 backups, 0 objects" in program("expire", "--apply")
    resident.terminate()
    assert_counter(restore(program, server.major, "--latest"), commits)
