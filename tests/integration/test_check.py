"""`pgbackup check` against real servers and stores: every finding, with the line that mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Server

BOUNDED = {"max_slot_wal_keep_size": "4GB"}


class Checked:
    """What `check --json` said."""

    def __init__(self, program: Program, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pgbackup", "check", "--json", *arguments],
            env=program.env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        self.exit_code, self.stderr = done.returncode, done.stderr
        assert done.returncode in (0, 1), f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.document: dict[str, Any] = json.loads(done.stdout)
        self.lines: dict[str, dict[str, str]] = {line["name"]: line for line in self.document["checks"]}

    def failures(self) -> set[str]:
        return {name for name, line in self.lines.items() if line["status"] == "failure"}

    def warnings(self) -> set[str]:
        return {name for name, line in self.lines.items() if line["status"] == "warning"}

    def expect(self, name: str, status: str, text: str, hint: str = "") -> None:
        line = self.lines[name]
        assert line["status"] == status, line
        assert text in line["text"]
        assert hint in line["hint"]
        assert self.exit_code == (1 if self.failures() else 0)


def stored_files(program: Program) -> list[Path]:
    folder = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    return [path for path in folder.rglob("*") if path.is_file() and ".pgbackup" not in path.parts[-2]]


def test_everything_is_fine(make_server: ServerFactory, make_program: MakeProgram, pg_major: int) -> None:
    program = make_program(make_server(pg_major, settings={**BOUNDED, "fsync": True}))
    checked = Checked(program)
    assert (checked.exit_code, checked.failures(), checked.warnings()) == (0, set(), set()), checked.lines
    assert checked.document["ok"] is True
    checked.expect("server version", "ok", f"PostgreSQL {pg_major}.")
    checked.expect("role", "ok", "REPLICATION and pg_monitor")
    checked.expect("cluster", "ok", "the prefix is new")
    checked.expect("encryption", "ok", "off")
    assert not stored_files(program), "the test objects are removed"


def test_what_another_tool_stored_is_no_new_prefix(make_server: ServerFactory, make_program: MakeProgram) -> None:
    program = make_program(make_server(settings=BOUNDED))
    stray = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://")) / "wal_005" / "00000002.history.lz4"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(lz4.frame.compress(b"1\t0/2000000\tno reason\n", content_checksum=True))
    Checked(program).expect("cluster", "ok", "holds what another tool stored, and no pgbackup has taken it yet")


def test_the_text_is_for_people(make_server: ServerFactory, make_program: MakeProgram) -> None:
    program = make_program(make_server(), PGBACKUP_DSN="password=hunter2-dsn")
    text = program("check", "--show-config", exit_code=1)
    assert "FAILURE  max_slot_wal_keep_size" in text
    assert "hint: As a superuser: ALTER SYSTEM SET max_slot_wal_keep_size = '16GB'; SELECT pg_reload_conf();" in text
    assert "PGBACKUP_WAL_FLUSH_INTERVAL" in text
    assert "********" in text
    assert "pgbackup: error: 1 of " in text
    assert "hunter2" not in text


def test_a_bucket_of_s3(make_server: ServerFactory, make_program: MakeProgram) -> None:
    checked = Checked(make_program(make_server(settings=BOUNDED), s3=True))
    assert not checked.failures(), checked.lines
    checked.expect("conditional put", "ok", "a second put is refused")
    checked.expect("multipart clean-up", "ok", "can be aborted")
    checked.expect("clocks", "ok", "this machine, the server, the store")


def test_a_role_without_rights(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings=BOUNDED)
    server.execute('CREATE ROLE "Weak" LOGIN; CREATE ROLE blind LOGIN REPLICATION; CREATE ROLE strong LOGIN SUPERUSER')
    program = make_program(server)
    weak = Checked(program.with_env(PGUSER="Weak"))
    weak.expect(
        "role", "failure", "may not replicate and is not a member of pg_monitor", 'ALTER ROLE "Weak" REPLICATION;'
    )
    weak.expect("pg_hba.conf", "failure", "the role may not replicate", "REPLICATION")
    blind = Checked(program.with_env(PGUSER="blind"))
    blind.expect("role", "failure", "not a member of pg_monitor", 'GRANT pg_monitor TO "blind";')
    assert blind.failures() == {"role"}
    Checked(program.with_env(PGUSER="strong")).expect("role", "warning", "superuser", "pgbackup init")


def test_no_line_in_pg_hba_conf(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings=BOUNDED)
    _write_hba(server, "local all postgres trust", "host postgres pgbackup 127.0.0.1/32 trust")
    checked = Checked(make_program(server))
    line = "host  replication  pgbackup  127.0.0.1/32  scram-sha-256"
    checked.expect("pg_hba.conf", "failure", "lets no such connection in", line)
    _write_hba(server, "local all postgres trust", "host replication pgbackup 127.0.0.1/32 trust")
    checked = Checked(make_program(server))
    checked.expect(
        "server connection", "failure", "lets no such connection in", "host  postgres  pgbackup  127.0.0.1/32"
    )


def test_the_repository_is_checked_with_the_server_down(make_server: ServerFactory, make_program: MakeProgram) -> None:
    program = make_program(make_server(start=False)).with_env(PGPORT="1")
    checked = Checked(program)
    assert checked.failures() == {"server connection"}
    checked.expect("put", "ok", "can be written")


def test_slots(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings={**BOUNDED, "max_replication_slots": 2})
    program = make_program(server)
    Checked(program).expect("slot", "ok", "`pgbackup run` creates it")
    server.execute("SELECT pg_create_physical_replication_slot('pgbackup', true)")
    Checked(program).expect("slot", "warning", "nobody streams from it", "Start `pgbackup run`")
    server.execute("SELECT pg_create_physical_replication_slot('other', true)")
    other = Checked(program.with_env(PGBACKUP_SLOT="third"))
    other.expect("max_replication_slots", "failure", "all 2 are in use")


def test_a_lost_slot(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings={"max_slot_wal_keep_size": "1MB"}, segment_mb=1)
    server.execute("SELECT pg_create_physical_replication_slot('pgbackup', true)")
    for _ in range(4):
        server.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)), pg_switch_wal()")
        server.execute("CHECKPOINT")
    checked = Checked(make_program(server))
    checked.expect("slot", "failure", "is lost", "takes a base backup at once")
    checked.expect("max_slot_wal_keep_size", "warning", "1MB: a short outage", "ALTER SYSTEM")


def test_settings_that_do_not_do(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(
        settings={"wal_level": "minimal", "max_wal_senders": 0, "archive_mode": "off", "full_page_writes": False}
    )
    checked = Checked(make_program(server))
    assert {"wal_level", "max_wal_senders", "max_slot_wal_keep_size"} <= checked.failures()
    checked.expect("durability", "warning", "full_page_writes", "ALTER SYSTEM SET fsync = on")


def test_archiving_without_a_command(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings={**BOUNDED, "archive_mode": "on"})
    Checked(make_program(server)).expect("archiving", "warning", "WAL piles up")
    server.configure(archive_command="true")
    server.reload()
    Checked(make_program(server)).expect("archiving", "ok", "as well")


def test_idle_slots_that_time_out(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(18, settings={**BOUNDED, "idle_replication_slot_timeout": "1h"})
    checked = Checked(make_program(server))
    checked.expect("idle_replication_slot_timeout", "warning", "3600s", "SET idle_replication_slot_timeout = 0")


def test_a_standby_without_a_slot(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings=BOUNDED)
    standby = make_server.standby_of(server)
    program = make_program(server)
    checked = Checked(program)
    checked.expect("standbys", "warning", "standby streams without a slot", "primary_slot_name")
    Checked(make_program(standby)).expect("server connection", "ok", "standby")
    server.configure(wal_keep_size="1GB")
    server.reload()
    Checked(program).expect("standbys", "ok", "wal_keep_size covers it")


@pytest.mark.parametrize(
    ("names", "interval", "status", "said"),
    [
        (
            "",
            "10s",
            "ok",
            "off: commits do not wait for the repository; up to 10 s and the time of an upload can be lost",
        ),
        ("", "0", "ok", "off: commits do not wait for the repository; up to the time of an upload can be lost"),
        ("pgbackup", "0", "ok", "on: commits wait for the repository"),
        ("pgbackup", "10s", "warning", "commits wait up to 10 s each"),
        ("pgbackup", "0", "warning", "synchronous_commit is off"),
        ("ANY 1 (pgbackup, other)", "0", "warning", "lets a commit return without pgbackup"),
    ],
)
def test_zero_loss(
    make_server: ServerFactory, make_program: MakeProgram, names: str, interval: str, status: str, said: str
) -> None:
    commit = "off" if "synchronous_commit is off" in said else "on"
    server = make_server(settings={**BOUNDED, "synchronous_standby_names": names, "synchronous_commit": commit})
    program = make_program(server).with_env(PGBACKUP_WAL_FLUSH_INTERVAL=interval)
    Checked(program).expect("zero loss", status, said)


def test_the_prefix_of_another_cluster(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings=BOUNDED)
    program = make_program(server)
    folder = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://")) / "pgbackup_005"
    folder.mkdir(parents=True)
    document = {"system_identifier": 42, "segment_bytes": 16 << 20, "pg_version": 160000, "format": 1}
    (folder / "cluster.json").write_text(json.dumps(document))
    own = server.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    checked = Checked(program)
    checked.expect("cluster", "failure", "its system identifier is 42", f"/{own}")
    assert str(own) in checked.lines["cluster"]["text"]


def test_encryption(make_server: ServerFactory, make_program: MakeProgram) -> None:
    program = make_program(make_server(settings=BOUNDED))
    key = "a key of thirty-two bytes or more"
    encrypted = program.with_env(PGBACKUP_ENCRYPTION_KEY=key)
    Checked(encrypted).expect("encryption", "ok", "on: the round trip works")
    _begin_repository(encrypted)
    Checked(encrypted).expect("encryption", "ok", "the key of this prefix")
    wrong = Checked(program.with_env(PGBACKUP_ENCRYPTION_KEY=key[::-1]))
    wrong.expect("encryption", "failure", "not the one", "PGBACKUP_ENCRYPTION_KEY")
    assert wrong.failures() == {"encryption"}
    Checked(program).expect("encryption", "failure", "no encryption key is configured")


def test_a_reader_may_not_write(make_server: ServerFactory, make_program: MakeProgram, s3_server: S3Server) -> None:
    program = make_program(make_server(settings=BOUNDED), s3=True)
    checked = Checked(program.with_env(**s3_server.as_reader().env("some/prefix")))
    checked.expect("put", "failure", "s3:PutObject", "s3:PutObject")
    assert "get" not in checked.lines, "nothing to read without something written"


def test_no_such_bucket(make_server: ServerFactory, make_program: MakeProgram, s3_server: S3Server) -> None:
    program = make_program(make_server(settings=BOUNDED), s3=True)
    checked = Checked(program.with_env(PGBACKUP_REPOSITORY="s3://no-such-bucket-here/x"))
    checked.expect("put", "failure", "no-such-bucket-here")


def test_a_template_is_filled_in(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings=BOUNDED)
    program = make_program(server)
    url = program.env["PGBACKUP_REPOSITORY"] + "/{pg_major}/{system_identifier}"
    own = server.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    checked = Checked(program.with_env(PGBACKUP_REPOSITORY=url))
    checked.expect("put", "ok", f"/{server.major}/{own}")


def _write_hba(server: ThrowawayServer, *lines: str) -> None:
    (server.data_directory / "pg_hba.conf").write_text("\n".join(lines) + "\n")
    os.chmod(server.data_directory / "pg_hba.conf", 0o644)  # noqa: PTH101
    server.reload()


def _begin_repository(program: Program) -> None:
    """What the first backup does."""
    from pgbackup.app import App
    from pgbackup.config.settings import load_settings
    from pgbackup.repository.key_check import check_key

    environ = {name: value for name, value in program.env.items() if name.startswith("PGBACKUP_")}
    app = App(lambda *, need_repository=True: load_settings(environ=environ))
    check_key(app.open_store(), app.codec())
