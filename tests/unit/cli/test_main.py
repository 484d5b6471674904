"""The command line as a program: start-up, help, and how every kind of failure ends."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from pgbackup.cli import main as cli
from pgbackup.cli.output import emit_json
from pgbackup.config.settings import SECRETS, Settings
from pgbackup.errors import CheckFailed, ConnectionLost, NotInArchive


@pytest.fixture
def fails(monkeypatch):
    """Makes every command raise, or do, what the test says."""

    def install(action):
        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        def command(*, as_json):
            if isinstance(action, BaseException):
                raise action
            action()

        monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, ctx, name: command)

    return install


@pytest.fixture(autouse=True)
def _quiet_root_logger(monkeypatch):
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)


def test_help_names_every_command_and_exit_code(capsys):
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)
    assert "74  wal-fetch: not in the archive" in text


def test_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pgbackup ")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "--help"], ["wal-fetch", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        f"import sys; from pgbackup.cli.main import run; code = run({arguments!r}); "
        "heavy = {'boto3', 'botocore', 'pydantic', 'psycopg', 'rich', 'zstandard', 'nacl'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_exists_and_explains_itself(name, capsys):
    assert cli.run([name, "--help"]) == 0
    assert f"pgbackup {name}" in capsys.readouterr().out


def test_every_setting_but_the_secrets_is_a_flag():
    flags = {flag.replace("-", "_") for flag in cli.SETTING_FLAGS} | {"log_level"}
    assert flags == set(Settings.model_fields) - SECRETS


def test_flags_become_settings(fails):
    seen = []
    fails(lambda: seen.append(click.get_current_context().obj.settings))
    assert cli.run(["--repository", "file:///x", "--slot", "other", "--log-level", "debug", "list"]) == 0
    assert (seen[0].repository, seen[0].slot, seen[0].log_level) == ("file:///x", "other", "debug")


def test_an_error_has_message_detail_hint_and_its_exit_code(fails, capsys):
    fails(ConnectionLost("cannot connect to the server", detail="no route", hint="Check PGHOST."))
    assert cli.run(["list"]) == 4
    streams = capsys.readouterr()
    assert streams.err == "pgbackup: error: cannot connect to the server: no route\nhint: Check PGHOST.\n"
    assert streams.out == ""


def test_with_json_the_error_is_an_object_on_stdout(fails, capsys):
    fails(ConnectionLost("cannot connect to the server", detail="no route", hint="Check PGHOST."))
    assert cli.run(["list", "--json"]) == 4
    assert json.loads(capsys.readouterr().out) == {
        "error": {
            "kind": "ConnectionLost", "message": "cannot connect to the server", "detail": "no route",
            "hint": "Check PGHOST.", "retryable": True, "exit_code": 4,
        }
    }  # fmt: skip


def test_a_command_that_printed_its_json_gets_no_second_document(fails, capsys):
    def report():
        emit_json({"ok": False})
        raise CheckFailed("1 of 2 checks failed")

    fails(report)
    assert cli.run(["check", "--json"]) == 1
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"ok": False}
    assert "1 of 2 checks failed" in streams.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no such command: nonsense"),
        (["lst"], "Did you mean list?"),
        (["--slto", "x", "list"], "--slto"),
        (["list", "--oops"], "--oops"),
        ([], "Usage:"),
    ],
)
def test_usage_errors_exit_with_2(arguments, said, capsys):
    assert cli.run(arguments) == 2
    assert said in "".join(capsys.readouterr())


def test_missing_settings_exit_with_2_before_anything_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGBACKUP_SHEDULE", "x")
    assert cli.run(["list", "--json"]) == 2
    streams = capsys.readouterr()
    assert "PGBACKUP_REPOSITORY: is missing" in streams.err
    assert "PGBACKUP_SHEDULE: is not a setting; did you mean PGBACKUP_SCHEDULE?" in streams.err
    assert json.loads(streams.out)["error"]["exit_code"] == 2


def test_a_bug_shows_a_traceback_and_exits_with_70(fails, capsys):
    fails(ZeroDivisionError("oops"))
    assert cli.run(["list"]) == 70
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "bug in pgbackup" in text


def test_an_interrupt_exits_with_130(fails, capsys):
    fails(KeyboardInterrupt())
    assert cli.run(["list"]) == 130
    assert capsys.readouterr().err == "pgbackup: interrupted\n"


def test_a_reader_that_goes_away_is_no_error():
    """As with `pgbackup --help | true`."""
    code = (
        "import sys, click; from pgbackup.cli import main as m\n"
        "c = click.Command('x', callback=lambda: [click.echo('y' * 99) for _ in range(9999)])\n"
        "m.LazyGroup.get_command = lambda *a: c\n"
        "m.main(['list'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 141


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotInArchive("not there"), 74),
        (ConnectionLost("x"), 132),
        (ZeroDivisionError(), 198),
        (KeyboardInterrupt(), 130),
    ],
)
def test_wal_fetch_ends_no_recovery_early(fails, error, code):
    fails(error)
    assert cli.run(["wal-fetch"]) == code


@pytest.mark.parametrize("arguments", [["wal-fetch", "--oops"], ["--slto", "x", "wal-fetch", "a", "b"]])
def test_a_mistyped_wal_fetch_ends_no_recovery_either(arguments):
    assert cli.run(arguments) == 130


def test_secrets_of_the_environment_are_not_shown(fails, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("PGPASSWORD", "hunter2-password")
    monkeypatch.setenv("PGBACKUP_DSN", "host=x password=hunter2-dsn")
    fails(RuntimeError("hunter2-password and hunter2-dsn"))
    cli.run(["list", "--json"])
    assert "hunter2" not in "".join(capsys.readouterr())
