"""Options of WAL-E and WAL-G that commands of the same name accept, so that a script needs another word and no more.

Three kinds: what changes nothing here is accepted and told at debug level; what would be dangerous to pass over is a
usage error with the way to go; ``--target-storage`` is accepted where it names the one storage that there is.
WAL-G takes its options of every command behind the command as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_UNUSED = "pgbackup.options_without_effect"
_CONFIG = (
    "WAL-G's file is not read, set what it says in the environment; pgbackup's own stands before the command, "
    "`pgbackup --config FILE.toml COMMAND`"
)
_STORAGES = ("default", "all", "all_alive", "any")
_log = logging.getLogger(__name__)


def harmless(*names: str, why: str, takes_value: bool = False) -> Callable[[Command], Command]:
    """An option that is accepted and changes nothing."""

    def note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            ctx.find_root().meta.setdefault(_UNUSED, []).append((param.opts[-1], why))

    kind: dict[str, Any] = {} if takes_value else {"is_flag": True}
    return click.option(*names, expose_value=False, hidden=True, callback=note, **kind)


def refused(*names: str, why: str, takes_value: bool = True) -> Callable[[Command], Command]:
    """An option that must not be passed over in silence."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            raise click.UsageError(f"{param.opts[-1]} is not supported: {why}.", ctx)

    kind: dict[str, Any] = {} if takes_value else {"is_flag": True}
    return click.option(*names, expose_value=False, hidden=True, callback=refuse, **kind)


def options_of_every_command(command: Command) -> Command:
    """WAL-G's ``--config``, ``--turbo`` and ``--target-storage``."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and value not in _STORAGES:
            raise click.UsageError(f"--target-storage {value}: there is one storage, and it is called default.", ctx)

    command = click.option("--target-storage", expose_value=False, hidden=True, callback=check)(command)
    command = harmless("--turbo", why="PGBACKUP_BACKUP_RATE and PGBACKUP_UPLOAD_RATE are obeyed")(command)
    return refused("--config", why=_CONFIG)(command)


def tell_unused() -> None:
    """Say at debug level which options changed nothing; to be called when logging obeys the settings."""
    context = click.get_current_context().find_root()
    for option, why in context.meta.get(_UNUSED, ()):
        _log.debug("%s changes nothing: %s", option, why)
