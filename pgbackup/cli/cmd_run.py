"""`pgbackup run`: the sidecar."""

from __future__ import annotations

import logging
import os

import click

from pgbackup.app import App
from pgbackup.cli.progress import open_progress
from pgbackup.errors import EXIT_OK
from pgbackup.supervisor.memory import bound_heaps
from pgbackup.supervisor.signals import stop_on_signals
from pgbackup.supervisor.stop_deadline import end_in_time


@click.command("run")
@click.pass_obj
def command(app: App) -> None:
    """Stream WAL to the repository and take base backups on schedule, until SIGTERM.

    Waits for the server and for the store, however long they take, and goes on where it was. SIGTERM ships what was
    received and ends within PGBACKUP_STOP_TIMEOUT; a second one ends at once.
    """
    bound_heaps()
    stop = stop_on_signals()
    end_in_time(stop, app.settings.stop_timeout.total_seconds())
    app.run(stop, open_progress)
    # A request that hangs in a thread of a library would keep the interpreter from ending; nothing is lost by leaving
    # it, because only what is durable was ever confirmed.
    logging.shutdown()
    os._exit(EXIT_OK)
