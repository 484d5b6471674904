"""``pgbackup demo``: shows on this machine, in a minute, what pgbackup does, with servers that it starts itself."""

from __future__ import annotations

import signal
from types import FrameType

import click

from pgbackup.cli.output import say
from pgbackup.demo.account import Account
from pgbackup.demo.story import tell_story
from pgbackup.errors import PgbackupError

EXIT_INTERRUPTED = 130


@click.command("demo")
@click.option("--s3", is_flag=True, help="Keep the backups in a real S3 server, started here, instead of a directory.")
def command(*, s3: bool) -> None:
    """Back up, break and restore a throw-away database.

    Starts a PostgreSQL server of its own, keeps it backed up with `pgbackup run` while rows are written, drops a
    table, loses the machine, restores to the moment before the drop and compares. Needs nothing but the extra
    `pgbackup[demo]`, reads no setting and leaves nothing behind.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    account = Account(say)
    try:
        tell_story(account, s3=s3)
    except KeyboardInterrupt:
        say("interrupted; everything is stopped and removed", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except PgbackupError:
        account.tell("FAILED; everything is stopped and removed. What went wrong:")
        raise
    account.title(f"The demo succeeded in {account.seconds:.0f} seconds.")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C and SIGTERM clean up; a second one must not cut that short."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
