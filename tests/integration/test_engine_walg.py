"""Real WAL-G drives real servers through the whole program, where one is on PATH."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram
from tests.fix_postgres import ServerFactory
from tests.fix_tools import needs_wal_g
from tests.tool_engine import fill, rows, start_restored, stored_wal_names, wait_whole, with_tool
from tests.waiting import wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.not_for_walg("wal-g's own writing"), needs_wal_g]
KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"


@pytest.mark.parametrize("way", ["local", "remote, encrypted, S3"])
def test_backed_up_and_restored(way: str, make_server: ServerFactory, make_program: MakeProgram, wal_g: Path) -> None:
    server = make_server(14 if way == "local" else 18)
    fill(server, 0, 1000)
    settings = {}
    if way != "local":
        settings = {"PGBACKUP_ENCRYPTION_KEY": KEY, "PGBACKUP_ENCRYPTION_KEY_TRANSFORM": "hex"}
    program = with_tool(make_program, server, "wal-g", wal_g, s3=way != "local", **settings)
    if way != "local":
        program.env["PGUSER"] = "pgbackup"
        program.env["PGBACKUP_PGDATA"] = "none"
    program.run()
    backup = program.wait_backups(1)[0]
    assert backup["engine"] == "wal-g"
    fill(server, 1000, 2000)
    fill(server, 2000, 2500)
    wait_whole(program, server)
    if way == "local":
        assert all(name.endswith(".zst") for name in stored_wal_names(program))
        program("backup", "--label", "before the upgrade")
        assert program.backups()[-1]["label"] == "before the upgrade"
    major = server.major
    target = make_server.new_directory("by-pgbackup")
    program("restore", "--target", target)
    assert rows(start_restored(make_server, target, major)) == list(range(2500))
    if way == "local":
        # From S3 the restored server would need the store's credentials in its environment, which tests do not give it.
        target = make_server.new_directory("on-demand")
        program("restore", "--target", target, "--wal", "on-demand")
        assert rows(start_restored(make_server, target, major, reads_everything=True)) == list(range(2500))
    native = program.with_env(PGBACKUP_ENGINE="native")
    for name in ("PGBACKUP_TOOL", "PGBACKUP_PGDATA"):
        native.env.pop(name, None)
    target = make_server.new_directory("by-own-reader")
    native("restore", "--target", target)
    assert rows(start_restored(make_server, target, major)) == list(range(2500))


@pytest.mark.parametrize("way", ["local", "remote"])
def test_a_standby_is_backed_up(way: str, make_server: ServerFactory, make_program: MakeProgram, wal_g: Path) -> None:
    """It cannot end a segment itself: the backup is done when its primary has."""
    primary = make_server(16)
    fill(primary, 0, 1000)
    standby = make_server.standby_of(primary, slot="standby")
    program = with_tool(make_program, standby, "wal-g", wal_g)
    if way == "remote":
        program.env |= {"PGUSER": "pgbackup", "PGBACKUP_PGDATA": "none"}
    resident = program.run()
    deadline = time.monotonic() + 90
    count = 1000
    while not (backups := [b for b in program.backups() if b["restorable"]]):
        assert time.monotonic() < deadline, resident.log()
        fill(primary, count, count + 10)
        count += 10
        time.sleep(1)
    assert backups[0]["engine"] == "wal-g"
    fill(primary, count, count + 500)
    count += 500
    wait_for(lambda: standby.execute("SELECT max(n) FROM t") == [(count - 1,)])
    wait_whole(program, standby)
    target = make_server.new_directory("by-pgbackup")
    program("restore", "--target", target)
    assert rows(start_restored(make_server, target, 16)) == list(range(count))
