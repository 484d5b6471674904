"""The entry point: commands that are imported when called, and the one place where errors become exit codes.

`pgbackup --help` and `pgbackup wal-fetch` must start fast, so this module imports click and errors only.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from pgbackup import __version__
from pgbackup.cli import failures

if TYPE_CHECKING:
    from pgbackup.app import SettingsLoader
    from pgbackup.config.settings import Settings

PROGRAM = "pgbackup"
Command = TypeVar("Command", bound=Callable[..., Any])

COMMANDS = {
    "run": "Stream WAL and take base backups, for as long as it runs: the sidecar.",
    "backup": "Take one base backup now.",
    "status": "Say whether everything can be recovered, and what is wrong.",
    "list": "List backups, and the ranges of time that can be recovered.",
    "restore": "Restore into a directory, to any recoverable moment.",
    "verify": "Read backups and WAL back from the store and check them.",
    "check": "Check server, repository and settings before relying on them.",
    "gaps": "List WAL that is lost, and acknowledge it.",
    "expire": "Show or remove what the retention no longer keeps.",
    "alerts": "Try the channels that alerts are sent through.",
    "livez": "Ask the pgbackup that runs here whether it lives: for health checks.",
    "init": "Print or run the SQL that makes the role.",
    "wal-fetch": "What restore_command calls.",
    "wal-push": "What archive_command may call.",
    "backup-push": "Take one base backup, as wal-g and wal-e are told to.",
    "backup-fetch": "Fetch a base backup's files, as wal-g and wal-e do.",
    "backup-list": "List backups as wal-g prints them.",
    "delete": "Remove backups, as wal-g and wal-e are told to.",
    "demo": "Show a backup and a restore on this machine, with servers of its own.",
}

SETTING_FLAGS = (
    "repository", "engine", "tool", "pgdata", "compression", "encryption-key-transform", "part-size",
    "upload-concurrency",
    "wal-upload-concurrency", "upload-rate", "download-concurrency", "slot", "slot-max-retained", "application-name",
    "wal-flush-interval",
    "backup-rate", "page-checksums", "schedule", "schedule-jitter", "verify-schedule", "timezone", "stop-timeout",
    "expire-schedule", "retention-backups", "retention-window", "retention-daily", "retention-weekly",
    "retention-monthly", "retention-yearly", "retention-min-restorable",
    "accept-unencrypted", "accept-gnupg",
    "adopt", "host", "log-format", "health-interval", "rpo-warning", "rpo-critical", "http", "cluster", "alert-repeat",
)  # fmt: skip
"""Every setting but the secrets: those would be seen in a list of processes."""

_EXIT_CODES = """\
  0   done                        6   a restore cannot succeed
  1   a check is not green        7   a base backup failed
  2   settings or usage           70  a bug in pgbackup
  3   the object store failed     74  wal-fetch: not in the archive
  4   the server failed           130 interrupted
  5   another program failed
wal-fetch adds 128 to every other code, so that Postgres stops instead of ending recovery early."""


class LazyGroup(click.Group):
    """Knows the commands by name and imports ``cli/cmd_<name>.py`` when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pgbackup.cli.cmd_{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]}. {failures.did_you_mean(args[0], COMMANDS)}".strip())
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings"):
            formatter.write_text(
                "Environment variables PGBACKUP_<NAME>, or a TOML file, or --<name> VALUE before the command: "
                "PGBACKUP_SLOT=x, slot = 'x' and --slot x mean the same. Secrets never go on the command line."
            )
        with formatter.section("Exit codes"):
            for line in _EXIT_CODES.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line.removeprefix('  ')}\n")


def _setting_flags(command: Command) -> Command:
    for name in reversed(SETTING_FLAGS):
        command = click.option(f"--{name}", metavar="VALUE", hidden=True)(command)
    return command


@click.group(cls=LazyGroup, invoke_without_command=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Read this TOML file.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name=PROGRAM)
@_setting_flags
@click.pass_context
def group(ctx: click.Context, /, config_file: Path | None, **flags: str | None) -> None:
    """Keep a PostgreSQL server recoverable from an object store, and restore it to any moment."""
    from pgbackup import logs
    from pgbackup.app import App

    level = flags.get("log_level") or "info"
    logs.configure(level=level if level in logs.LEVELS else "info", secrets=failures.secrets_of(os.environ))
    overrides = {name: value for name, value in flags.items() if value is not None}
    ctx.obj = App(_loader(config_file, overrides))


def _loader(given: Path | None, overrides: dict[str, str]) -> SettingsLoader:
    """Reads the settings once the command asks for them, and sets up logging as they say."""

    def load(*, need_repository: bool = True) -> Settings:
        from pgbackup import logs
        from pgbackup.config.settings import load_settings
        from pgbackup.config.sources import config_file

        settings = load_settings(
            environ=os.environ,
            toml=config_file(os.environ, given),
            overrides=overrides,
            check_key=_check_key,
            need_repository=need_repository,
        )
        logs.configure(level=settings.log_level, log_format=settings.log_format, secrets=settings.secret_values())
        return settings

    return load


def _check_key(text: str, transform: str) -> object:
    from pgbackup.repository.codec import read_key

    return read_key(text, transform)


def run(args: Sequence[str]) -> int:
    """Run one command line and return the exit code. Only SystemExit gets out of here."""
    context: click.Context | None = None
    try:
        with group.make_context(PROGRAM, list(args)) as context:
            group.invoke(context)
        sys.stdout.flush()
        code = 0
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except BaseException as exc:  # noqa: BLE001 - the border: everything becomes a message and a code here
        code = failures.report(exc, args, context)
    return failures.final_code(code, args)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files are bytes: one that is no text here must not end in a traceback when it is printed.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:] if args is None else args))
