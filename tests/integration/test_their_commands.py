"""Scripts that were written for wal-e and wal-g, with the word `pgbackup` in the place of theirs, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram, Program
from tests.server_commands import archive, words


def stderr_of(program: Program, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pgbackup", *map(str, arguments)],
        env=program.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "logs and notes go to stderr, as wal-g's do"
    return done.stderr


@pytest.mark.parametrize("dialect", ["wal-g", "wal-e"])
def test_a_whole_migration_is_another_word(dialect: str, make_server, make_program: MakeProgram) -> None:
    """archive_command, backup-push, backup-list, backup-fetch, restore_command, delete: rows compared at the end."""
    settings = {"archive_mode": "on", "archive_command": "exit 1", "wal_keep_size": "64MB"}
    made = make_server(settings=settings, start=False)
    server = make_server.over(made.data_directory, made.major, reads_everything=True)
    program = make_program(server)
    # Who runs as the server writes with the server's archive_command, so the place is the server's.
    place = make_server.new_directory("repository")
    prefix = (
        {"WALG_FILE_PREFIX": str(place)} if dialect == "wal-g" else {"WALE_FILE_PREFIX": f"file://localhost{place}"}
    )
    program = program.with_env(**prefix, PGBACKUP_REPOSITORY="", PGUSER="postgres", PGBACKUP_WAL_FLUSH_INTERVAL="10s")
    push = words(program, "wal-push", "%p")
    server.execute("ALTER SYSTEM SET archive_command = " + "'" + push.replace("'", "''") + "'")
    server.execute("SELECT pg_reload_conf()")
    server.execute("CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 1000) g")
    archive(server)
    flags = ["--full", "--verify"] if dialect == "wal-g" else ["-p", "4", "--cluster-read-rate-limit", "500000000"]
    said = stderr_of(program, "backup-push", *flags, server.data_directory)
    server.execute("INSERT INTO t SELECT g FROM generate_series(1001, 2000) g")
    archive(server)
    first = json.loads(program("backup-list", "--json"))[-1]["backup_name"]
    assert f"Wrote backup with name {first}" in said
    server.execute("INSERT INTO t SELECT g FROM generate_series(2001, 2500) g")
    archive(server)
    assert "Wrote backup" in stderr_of(program, "backup-push", server.data_directory)

    target = make_server.new_directory("fetched")
    assert "Fetched" in stderr_of(program, "backup-fetch", target, first)
    assert not (target / "recovery.signal").exists()
    assert not list((target / "pg_wal").glob("0*"))
    assert (target / "backup_label").exists()
    fetch = words(program, "wal-fetch", *(["--prefetch", "0"] if dialect == "wal-e" else []), "%f", "%p")
    with (target / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = '{fetch.replace(chr(39), chr(39) * 2)}'\narchive_mode = off\n")
    (target / "recovery.signal").touch()
    make_server.account.own(target / "recovery.signal")
    restored = make_server.over(target, server.major, settings={"fsync": "off"}, reads_everything=True)
    restored.wait_promoted()
    assert restored.execute("SELECT count(*), sum(n) FROM t") == server.execute("SELECT count(*), sum(n) FROM t")

    confirm = ["retain", "1", "--confirm"] if dialect == "wal-g" else ["--confirm", "retain", "1"]
    program("delete", *confirm)
    names = [each["backup_name"] for each in json.loads(program("backup-list", "--json"))]
    assert len(names) == 1
    assert first not in names


def test_another_servers_directory_is_refused(make_server, make_program: MakeProgram) -> None:
    server, other = make_server(), make_server(fresh=True)
    program = make_program(server)
    assert "belongs to cluster" in program("backup-push", other.data_directory, exit_code=2)
    said = program("backup-push", "/var/lib/nowhere", exit_code=2)
    assert f"the server says {server.data_directory}" in said
    assert "start it" in program("backup-push", "--while-offline", server.data_directory, exit_code=2)
    assert "user data" in program("backup-push", "--add-user-data", "{}", exit_code=2)
    assert json.loads(program("backup-list", "--json")) == []


def test_permanent_and_options_without_effect(make_server, make_program: MakeProgram) -> None:
    """-p is WAL-G's where no number follows; what changes nothing is told at debug level."""
    server = make_server()
    program = make_program(server, PGBACKUP_LOG_LEVEL="debug")
    said = stderr_of(program, "backup-push", "-p", "-f", "-r", "--delta-from-name", "base_X", server.data_directory)
    assert "--full changes nothing: base backups are full ones" in said
    assert "--delta-from-name changes nothing" in said
    assert json.loads(program("backup-list", "--detail", "--json"))[0]["is_permanent"] is True


def test_backup_fetch_refuses_what_it_cannot_do(make_server, make_program: MakeProgram, tmp_path: Path) -> None:
    program = make_program(make_server())
    assert "there is no backup" in program("backup-fetch", tmp_path / "x", "LATEST", exit_code=6)
    program("backup-push")
    assert "there is no backup base_X" in program("backup-fetch", tmp_path / "x", "base_X", exit_code=6)
    assert "does not start" in program("backup-fetch", tmp_path / "x", "LATEST", "--mask", "base/*", exit_code=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "not empty" in program("backup-fetch", tmp_path / "full", "LATEST", exit_code=6)
    spec = tmp_path / "spec.json"
    spec.write_text('{"tablespaces": [16384], "16384": {"loc": "relative"}}')
    assert "has no absolute loc" in program(
        "backup-fetch", tmp_path / "x", "LATEST", "--restore-spec", spec, exit_code=2
    )
    assert not (tmp_path / "x").exists()
    assert program("backup-fetch", tmp_path / "x", "LATEST", "--reverse-unpack", "--pool-size", "4") == ""
    assert (tmp_path / "x" / "global" / "pg_control").exists()


def test_a_restore_spec_moves_a_tablespace(make_server, make_program: MakeProgram) -> None:
    server = make_server()
    place, elsewhere = make_server.new_directory("space"), make_server.workspace / "elsewhere"
    server.execute(f"CREATE TABLESPACE space LOCATION '{place}'")
    server.execute("CREATE TABLE t TABLESPACE space AS SELECT 1 AS n")
    oid = str(server.execute("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")[0][0])
    program = make_program(server)
    program("backup-push")
    spec = make_server.workspace / "spec.json"
    entry = {"loc": f"{elsewhere}/", "link": f"pg_tblspc/{oid}"}
    spec.write_text(json.dumps({"base_prefix": "/x", "tablespaces": [oid], oid: entry}))
    target = make_server.new_directory("fetched")
    program("backup-fetch", target, "LATEST", "--restore-spec", spec)
    assert (target / "pg_tblspc" / oid).readlink() == elsewhere
    assert str(elsewhere) in (target / "tablespace_map").read_text()
    assert any(elsewhere.iterdir())
