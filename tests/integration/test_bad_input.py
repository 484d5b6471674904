"""What is wrong with the input is named, with the way out, before anything is started or written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Server

_HERE = str(Path(__file__).parents[2])
COMMANDS = (["list"], ["backup"], ["run"], ["verify"], ["check"], ["restore", "--target", "somewhere"])


@pytest.fixture
def bare(tmp_path: Path) -> Program:
    """pgbackup without a single setting, in an empty folder."""
    return Program({"PATH": "/usr/bin:/bin"}, tmp_path)


def refused(program: Program, *arguments: str | bytes, exit_code: int = 2) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pgbackup", *arguments],
        env=program.env | {"PYTHONPATH": _HERE}, cwd=program.folder,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == exit_code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_names_all_problems_and_exits_with_2(bare: Program, command: list[str]) -> None:
    text = refused(
        bare.with_env(
            PGBACKUP_REPOSTORY="s3://bucket",
            PGBACKUP_WAL_FLUSH_INTERVAL="often",
            PGBACKUP_UPLOAD_CONCURRENCY="many",
            PGBACKUP_ENCRYPTION_KEY="hunter2",
            PGBACKUP_DSN_FILE="/does/not/exist",
        ),
        *command,
    )
    assert "PGBACKUP_REPOSTORY: is not a setting; did you mean PGBACKUP_REPOSITORY?" in text
    assert "PGBACKUP_REPOSITORY: is missing" in text
    assert "PGBACKUP_WAL_FLUSH_INTERVAL: not a duration" in text
    assert "(got 'often')" in text
    assert "PGBACKUP_UPLOAD_CONCURRENCY: expected a whole number" in text
    assert "PGBACKUP_DSN_FILE: cannot be read: No such file or directory (got '/does/not/exist')" in text
    assert "hunter2" not in text


def test_a_label_that_is_no_text(bare: Program) -> None:
    program = bare.with_env(PGBACKUP_REPOSITORY="file:///x")
    assert "the label is not UTF-8" in refused(program, "backup", "--label", b"before \xff")


def test_a_key_that_cannot_be_used_is_named(bare: Program) -> None:
    program = bare.with_env(PGBACKUP_REPOSITORY="file:///x", PGBACKUP_ENCRYPTION_KEY="hunter2")
    text = refused(program, "list")
    assert "PGBACKUP_ENCRYPTION_KEY: cannot be used: a key needs at least 25 bytes, this one has 7" in text
    program = program.with_env(PGBACKUP_ENCRYPTION_KEY_TRANSFORM="hex")
    assert "PGBACKUP_ENCRYPTION_KEY: cannot be used: the key is not hex" in refused(program, "list")


@pytest.mark.parametrize("url", ["bucket/prefix", "http://bucket", "s3://", "file://x", "s3://k:hunter2@bucket/x"])
def test_bad_urls(bare: Program, url: str) -> None:
    text = refused(bare.with_env(PGBACKUP_REPOSITORY=url), "list")
    assert "PGBACKUP_REPOSITORY: " in text
    assert "hunter2" not in text


def test_a_file_of_settings_that_is_not_there(bare: Program) -> None:
    assert "absent.toml: the configuration file cannot be read" in refused(bare, "--config", "absent.toml", "list")
    assert "/absent.toml" in refused(bare.with_env(PGBACKUP_CONFIG="/absent.toml"), "list")


def test_a_dsn_that_libpq_does_not_read(bare: Program) -> None:
    program = bare.with_env(PGBACKUP_REPOSITORY="file:///tmp/x", PGBACKUP_DSN="host=x nonsense_option=hunter2")
    text = refused(program, "init")
    assert "PGBACKUP_DSN is not a connection string that libpq reads" in text
    assert "hunter2" not in text


def test_a_wrong_password(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(host_auth="scram-sha-256")
    program = make_program(server, PGPASSWORD="hunter2 is wrong", PGBACKUP_REPOSITORY="file:///tmp/{system_identifier}")
    text = refused(program, "list")
    assert 'Set PGPASSWORD (or PGPASSFILE) to the password of role "pgbackup".' in text
    assert "hunter2" not in text
    text = refused(program, "init", "--apply", exit_code=4)
    assert "hint: Set PGPASSWORD" in text


def test_a_password_that_is_missing(make_server: ServerFactory, make_program: MakeProgram) -> None:
    program = make_program(make_server(host_auth="scram-sha-256"))
    assert "Set PGPASSWORD or PGPASSFILE." in refused(program, "init", "--apply", exit_code=4)


def test_a_role_that_is_missing(make_server: ServerFactory, make_program: MakeProgram) -> None:
    program = make_program(make_server()).with_env(PGUSER="nobody here")
    text = refused(program, "init", "--apply", exit_code=4)
    assert 'role "nobody here" does not exist' in text
    assert "pgbackup init --apply" in text


def test_a_role_without_rights_is_named_with_the_sql(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server()
    server.execute('CREATE ROLE "a role" LOGIN')
    program = make_program(server, PGUSER="a role")
    assert 'GRANT pg_monitor TO "a role";' in refused(program, "backup", exit_code=4)
    server.execute('GRANT pg_monitor TO "a role"')
    assert 'ALTER ROLE "a role" REPLICATION;' in refused(program, "backup", exit_code=4)


def test_no_server(bare: Program) -> None:
    program = bare.with_env(PGHOST="127.0.0.1", PGPORT="1")
    text = refused(program, "init", "--apply", exit_code=4)
    assert "cannot connect to the server" in text
    assert "Check PGHOST, PGPORT and that it runs." in text


def test_no_bucket_and_no_permission(bare: Program, s3_server: S3Server) -> None:
    program = bare.with_env(**s3_server.env("x") | {"PGBACKUP_REPOSITORY": "s3://no-such-bucket/x"})
    text = refused(program, "list", exit_code=3)
    assert "bucket no-such-bucket does not exist" in text
    strange = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "hunter2-secret"}
    text = refused(bare.with_env(**s3_server.env("x") | strange), "list", exit_code=3)
    assert "AWS_ACCESS_KEY_ID" in text
    assert "hunter2" not in text


def test_a_template_without_a_server_says_what_to_write(bare: Program) -> None:
    program = bare.with_env(PGBACKUP_REPOSITORY="s3://bucket/{system_identifier}")
    text = refused(program, "restore", "--target", str(bare.folder / "new"))
    assert "placeholders" in text
    assert "Write the prefix of the cluster out in full" in text


def test_errors_are_json_when_json_is_wanted(bare: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgbackup", "list", "--json"],
        env=bare.env | {"PYTHONPATH": _HERE},
        cwd=bare.folder,
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["error"]["kind"] == "ConfigError"
