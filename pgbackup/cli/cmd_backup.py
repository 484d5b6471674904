"""``pgbackup backup``: one base backup, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pgbackup.cli.output import duration_text, emit_json, json_option, say
from pgbackup.core.size_text import size_text
from pgbackup.count_text import counted
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.engines.backup.base_backup import BackupResult

_SHOWN = 10


@click.command("backup")
@click.option("--label", default="", metavar="TEXT", help="A text to recognise the backup by.")
@click.option("--permanent", is_flag=True, help="Never expire it, nor the WAL that it needs.")
@json_option
@click.pass_obj
def command(app: App, *, label: str, permanent: bool, as_json: bool) -> None:
    """Take one base backup. It is done when its WAL is in the repository too.

    Where no `pgbackup run` streams from the server, the backup ships the WAL that it needs itself, so it can be
    restored on its own. Exit 1 when it is sealed but the server found pages with wrong checksums in it.
    """
    from pgbackup.cli.progress import open_progress

    try:
        label.encode()
    except UnicodeEncodeError:
        raise click.UsageError(
            "the label is not UTF-8: write it in the characters of this terminal's locale."
        ) from None
    result = app.take_backup(label=label, permanent=permanent, progress=open_progress())
    if as_json:
        emit_json(_document(result))
    else:
        _print(result)
    warn_of_damage(result)


def warn_of_damage(result: BackupResult) -> None:
    """Raise CheckFailed for a backup that is sealed, but in which the server found damaged pages."""
    if result.corrupt_files:
        raise CheckFailed(
            f"backup {result.name} has damaged pages",
            detail=", ".join(sorted(result.corrupt_files)[:_SHOWN]),
            hint="Keep the backups before it, find out what the server's storage does, and repair those relations.",
        )


def _print(result: BackupResult) -> None:
    if not result.new:
        say(f"nothing new to back up: {result.name} starts at the same LSN, {result.start_lsn}")
        return
    kept = ", permanent" if result.permanent else ""
    say(f"{result.name}: {result.start_lsn} to {result.stop_lsn} on timeline {result.timeline}{kept}")
    rate = size_text(round(result.raw_bytes / max(result.seconds, 0.001)))
    files = f" in {counted(result.files, 'file')}" if result.files is not None else ""
    say(
        f"{size_text(result.raw_bytes)}{files}, stored as {size_text(result.stored_bytes)}, "
        f"copied in {duration_text(result.seconds)} ({rate}/s)"
    )


def _document(result: BackupResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "new": result.new,
        "label": result.label,
        "permanent": result.permanent,
        "timeline": result.timeline,
        "start_lsn": result.start_lsn,
        "stop_lsn": result.stop_lsn,
        "started": result.started,
        "finished": result.finished,
        "seconds": result.seconds,
        "files": result.files,
        "raw_bytes": result.raw_bytes,
        "stored_bytes": result.stored_bytes,
        "wal_tail": result.wal_tail,
        "corrupt_files": result.corrupt_files,
    }
