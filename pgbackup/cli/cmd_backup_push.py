"""``pgbackup backup-push``: `pgbackup backup` in the words of WAL-E and WAL-G.

The one option that both spell alike and mean differently is ``-p``: WAL-G's is permanent, WAL-E's takes a number of
workers. A number right behind it tells them apart, for a data directory is an absolute path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgbackup.cli.cmd_backup import warn_of_damage
from pgbackup.cli.output import say
from pgbackup.cli.their_options import harmless, options_of_every_command, refused, tell_unused
from pgbackup.errors import ConfigError

if TYPE_CHECKING:
    from pgbackup.app import App

_NUMBER = re.compile(r"[0-9]+")
_POOL_SIZE = re.compile(r"-p([0-9]+)")
_FULL = "base backups are full ones"
_COMPOSED = "how files are spread over the parts makes no difference to a restore"
_NO_USER_DATA = "user data is not kept with a backup; `pgbackup backup --label` keeps a text"


class _BothDialects(click.Command):
    """Reads WAL-E's ``-p N`` and ``-pN`` as its long form, before or behind PGDATA."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_spelt_out(args)))


def _spelt_out(args: Sequence[str]) -> Iterator[str]:
    rest = iter(args)
    for word in rest:
        if word == "--":
            yield from (word, *rest)
        elif joined := _POOL_SIZE.fullmatch(word):
            yield f"--pool-size={joined[1]}"
        elif word == "-p" and (following := next(rest, None)) is not None:
            yield from (f"--pool-size={following}",) if _NUMBER.fullmatch(following) else ("-p", following)
        else:
            yield word


@click.command("backup-push", cls=_BothDialects)
@click.argument("words", nargs=-1, metavar="[PGDATA]")
@click.option("-p", "--permanent", is_flag=True, help="Never expire it, nor the WAL that it needs.")
@click.option("--cluster-read-rate-limit", "rate", type=click.IntRange(1), metavar="BYTES", help="Bytes per second.")
@harmless("-f", "--full", why=_FULL)
@harmless("-v", "--verify", why="the server verifies page checksums in every base backup")
@harmless("-s", "--store-all-corrupt", why="the blocks found damaged are recorded anyway")
@harmless("-r", "--rating-composer", why=_COMPOSED)
@harmless("-c", "--copy-composer", why=_COMPOSED)
@harmless("-b", "--database-composer", why=_COMPOSED)
@harmless("--without-files-metadata", why="files_metadata.json is written as a stream, whatever its size")
@harmless("--delta-from-name", why=_FULL, takes_value=True)
@harmless("--delta-from-user-data", why=_FULL, takes_value=True)
@harmless("--pool-size", why="PGBACKUP_UPLOAD_CONCURRENCY says how many uploads there are", takes_value=True)
@refused("--add-user-data", why=_NO_USER_DATA)
@refused("--while-offline", why="the backup comes from the running server: start it", takes_value=False)
@options_of_every_command
@click.pass_obj
def command(app: App, *, words: Sequence[str], permanent: bool, rate: int | None) -> None:
    """Take one base backup through the server's own replication protocol.

    PGDATA is not read. Where it is given it must be the data directory of the server that is connected to.
    """
    from pgbackup.cli.progress import open_progress

    if len(words) > 1:
        raise click.UsageError(f"more than one data directory: {' '.join(words)}.")
    if words:
        _check_pgdata(app, Path(words[0]))
    tell_unused()
    result = app.take_backup(label="", permanent=permanent, progress=open_progress(), max_rate=rate)
    word = "Wrote backup with name" if result.new else "Nothing new to back up since"
    say(f"{word} {result.name}", err=True)
    warn_of_damage(result)


def _check_pgdata(app: App, pgdata: Path) -> None:
    """Raise ConfigError unless it is the directory of the server that answers: its control file says so, or its path
    where the directory cannot be seen from here."""
    from pgbackup.errors import PostgresError
    from pgbackup.postgres.pg_control import read_control_file

    facts = app.server_facts()
    try:
        found = read_control_file(pgdata).system_identifier
    except PostgresError:
        if facts.data_directory and str(pgdata.resolve()) == str(Path(facts.data_directory).resolve()):
            return
        raise ConfigError(
            f"{pgdata} is not the data directory of the server",
            detail=f"the server says {facts.data_directory or 'nothing'}, and no control file can be read there",
            hint="Leave PGDATA out: the backup comes through the server's replication protocol.",
        ) from None
    if found != facts.system_identifier:
        raise ConfigError(
            f"{pgdata} belongs to cluster {found}, and the server that answers to {facts.system_identifier}",
            hint="See PGHOST and PGPORT: another server would be backed up.",
        )
