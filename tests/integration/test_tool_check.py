"""What `pgbackup check` says of an engine's tool, each line once good and once not, with what mends it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram, Program
from tests.fix_gpg import RSA, Keyring
from tests.fix_postgres import ServerFactory
from tests.integration.test_check import BOUNDED, Checked
from tests.tool_engine import pretend_tool, with_tool

WAL_E_NEEDS = ("lzop", "pv", "psql")


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    return pretend_tool(tmp_path)


def programs_in(folder: Path, *names: str) -> str:
    """A PATH on which these programs are, and no others."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


def set_up(program: Program, tmp_path: Path, **changes: str) -> Program:
    return program.with_env(PRETEND_MODE=str(tmp_path / "mode"), **changes)


def test_wal_e(make_server: ServerFactory, make_program: MakeProgram, tool: Path, tmp_path: Path) -> None:
    server = make_server(14, settings={**BOUNDED, "archive_timeout": 60})
    program = set_up(with_tool(make_program, server, "wal-e", tool), tmp_path)
    program.env["PATH"] = programs_in(tmp_path / "all", *WAL_E_NEEDS)
    checked = Checked(program)
    checked.expect("engine", "ok", f"wal-e ({tool}): pretend 1.0")
    checked.expect("engine programs", "ok", "lzop, pv, psql are there")
    checked.expect("engine and server", "ok", "wal-e can back up PostgreSQL 14")
    checked.expect("engine data directory", "ok", f"{server.data_directory} is visible, and the server's")
    checked.expect("engine role", "ok", "the role may start and stop a backup")
    checked.expect("engine and WAL", "ok", "whole segments of 16 MiB; archive_timeout ends one after 60 s")

    # A role that may only what our own needs, no data directory, no programs.
    program = set_up(program, tmp_path, PGUSER="pgbackup", PATH=programs_in(tmp_path / "some", "pv"))
    checked = Checked(program)
    checked.expect("engine programs", "failure", "lzop, psql missing", "Install lzop and psql here.")
    grant = "GRANT EXECUTE ON FUNCTION pg_stop_backup() TO pgbackup;"
    checked.expect("engine role", "failure", "may not call pg_start_backup(text,boolean,boolean)", grant)
    server.execute(checked.lines["engine role"]["hint"].partition(": ")[2])
    assert Checked(program).lines["engine role"]["status"] == "ok", "the hint is what mends it"
    checked = Checked(set_up(program, tmp_path, PGBACKUP_PGDATA="none"))
    checked.expect("engine data directory", "failure", "is not visible here", "PGBACKUP_PGDATA")


def test_a_server_that_is_too_new_and_a_tool_that_does_not_run(
    make_server: ServerFactory, make_program: MakeProgram, tool: Path, tmp_path: Path
) -> None:
    server = make_server(18, settings=BOUNDED)
    program = set_up(with_tool(make_program, server, "wal-e", tool), tmp_path)
    checked = Checked(program)
    checked.expect(
        "engine and server", "failure", "cannot take base backups of PostgreSQL 18", "PGBACKUP_ENGINE=native"
    )
    checked.expect("engine and WAL", "warning", "an open one of 16 MiB holds can be lost", "archive_timeout = '60s'")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'wal-e: no module named wal_e' >&2\nexit 1\n")
    broken.chmod(0o755)
    checked = Checked(program.with_env(PGBACKUP_TOOL=str(broken)))
    checked.expect("engine", "failure", "its Python environment is not whole", "virtual environment of its own")


def test_wal_g_with_and_without_the_data_directory(
    make_server: ServerFactory, make_program: MakeProgram, tool: Path, tmp_path: Path
) -> None:
    server = make_server(18, settings=BOUNDED)
    program = set_up(with_tool(make_program, server, "wal-g", tool), tmp_path, PGUSER="pgbackup")
    checked = Checked(program)
    checked.expect("engine", "ok", f"wal-g ({tool}): pretend 1.0")
    assert "engine programs" not in checked.lines, "it needs none"
    checked.expect("engine and server", "ok", "wal-g can back up PostgreSQL 18")
    checked.expect("engine role", "failure", "may not call pg_backup_start(text,boolean)", "pg_backup_stop(boolean)")
    checked = Checked(set_up(program, tmp_path, PGBACKUP_PGDATA="none"))
    checked.expect("engine data directory", "ok", "not visible: it copies over the replication protocol")
    assert not checked.failures(), checked.lines


def test_a_key_that_gnupg_has_not_got_is_told_before_anything_starts(
    make_server: ServerFactory, make_program: MakeProgram, tool: Path, tmp_path: Path, keyring: Keyring
) -> None:
    """Real WAL-E does not notice that GnuPG has failed: it waits for what never comes, for as long as one lets it."""
    server = make_server(14, settings=BOUNDED)
    gpg = {"WALE_GPG_KEY_ID": RSA, "GNUPGHOME": str(keyring.folder)}
    good = set_up(with_tool(make_program, server, "wal-e", tool, **gpg), tmp_path)
    Checked(good).expect("engine key", "ok", f"GnuPG encrypts to {RSA}")
    (tmp_path / "mode").write_text("hang")
    bad = good.with_env(WALE_GPG_KEY_ID="nobody@example.org")
    Checked(bad).expect("engine key", "failure", "GnuPG has not got the key", "GNUPGHOME")
    begin = time.monotonic()
    said = bad("backup", exit_code=5, timeout=60)
    assert "GnuPG has not got the key" in said
    assert time.monotonic() - begin < 30
    segment = tmp_path / "pg_wal" / "000000010000000000000001"
    segment.parent.mkdir()
    segment.write_bytes((server.data_directory / "pg_wal" / segment.name).read_bytes())
    assert "GnuPG has not got the key" in bad("wal-push", segment, exit_code=5, timeout=60)
    assert not (tmp_path / "mode.calls").exists() or "push" not in (tmp_path / "mode.calls").read_text()
