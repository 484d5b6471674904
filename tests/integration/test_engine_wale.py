"""Real WAL-E drives a real PostgreSQL 14 through the whole program: shipped, backed up, restored by both, expired."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram
from tests.fix_postgres import ServerFactory
from tests.fix_tools import needs_lzo
from tests.tool_engine import (
    fill,
    repository_folder,
    rows,
    start_restored,
    stored_wal_names,
    wait_whole,
    with_tool,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.not_for_walg("WAL-E's own layout"), needs_lzo]


def test_backed_up_by_wal_e_and_restored_by_wal_e_and_by_pgbackup(
    make_server: ServerFactory, make_program: MakeProgram, wal_e: Path
) -> None:
    server = make_server(14)
    fill(server, 0, 1000)
    program = with_tool(make_program, server, "wal-e", wal_e)
    program.run()
    backup = program.wait_backups(1, timeout=200)[0]
    fill(server, 1000, 2000)
    fill(server, 2000, 2500)
    wait_whole(program, server)
    names = stored_wal_names(program)
    assert len(names) >= 3
    assert all(name.endswith(".lzo") for name in names), "everything is WAL-E's"
    assert backup["engine"] == "wal-e"

    # By pgbackup, which lets WAL-E fetch files and WAL.
    target = make_server.new_directory("by-pgbackup")
    program("restore", "--target", target)
    assert rows(start_restored(make_server, target, 14)) == list(range(2500))

    # The same, WAL fetched during recovery.
    target = make_server.new_directory("on-demand")
    program("restore", "--target", target, "--wal", "on-demand")
    assert rows(start_restored(make_server, target, 14, reads_everything=True)) == list(range(2500))

    # By pgbackup's own reader, without the tool.
    native = program.with_env(PGBACKUP_ENGINE="native")
    del native.env["PGBACKUP_TOOL"]
    target = make_server.new_directory("by-own-reader")
    native("restore", "--target", target)
    assert rows(start_restored(make_server, target, 14)) == list(range(2500))

    # By WAL-E alone.
    target = make_server.new_directory("by-wal-e")
    env = {"PATH": program.env["PATH"], "WALE_FILE_PREFIX": f"file://localhost{repository_folder(program)}"}
    subprocess.run([wal_e, "backup-fetch", target, "LATEST"], env=env, check=True, capture_output=True)
    subprocess.run(["chown", "-R", f"--reference={target}", *target.iterdir()], check=True)
    words = ["env", *(f"{name}={value}" for name, value in env.items()), str(wal_e), "wal-fetch"]
    command = f"{shlex.join(words)} %f %p".replace("'", "''")
    (target / "postgresql.conf").write_text(f"restore_command = '{command}'\nrecovery_target_timeline = 'latest'\n")
    (target / "recovery.signal").touch()
    assert rows(start_restored(make_server, target, 14, reads_everything=True)) == list(range(2500))
