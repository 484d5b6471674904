"""``pgbackup wal-push``: what archive_command calls, once for each WAL file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgbackup.cli.their_options import harmless, options_of_every_command, tell_unused

if TYPE_CHECKING:
    from pgbackup.app import App


@click.command("wal-push")
@click.argument("path", type=click.Path(path_type=Path))
@harmless("-p", "--pool-size", why="Postgres names each segment by itself", takes_value=True)
@options_of_every_command
@click.pass_obj
def command(app: App, path: Path) -> None:
    """Ship the WAL file at PATH to the repository; exit 0 only when it is durable there.

    For archive_command = 'pgbackup wal-push %p'. The same content there already is success, other content is an error:
    nothing is ever overwritten. Where `pgbackup run` streams, no archive_command is needed.
    """
    from pgbackup.engines.wal.push import WalFileToPush, push_wal_file

    file = WalFileToPush.look_at(path)
    if file.page is not None and file.page.pg_major is not None:
        app.know_cluster(system_identifier=file.page.system_identifier, pg_major=file.page.pg_major)
    with closing(app.open_store()) as store:
        tell_unused()
        if app.settings.engine == "native":
            push_wal_file(store, app.codec(), file)
        else:
            app.engine().push_file(store, file)
