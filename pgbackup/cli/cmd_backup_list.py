"""``pgbackup backup-list``: the backups as WAL-G prints them, for scripts that were written for it.

The dialect is WAL-G's (3.x), for WAL-E is not kept up any more and its list has neither times nor LSNs of a backup. The
name is the first column in both. `pgbackup list` shows more, restorability among it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pgbackup.cli.output import say, say_document
from pgbackup.cli.their_options import options_of_every_command, tell_unused
from pgbackup.printable import printable

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.engines.backup.listing import ListedBackup

_COLUMNS = ("backup_name", "modified", "wal_file_name", "storage_name")
_DETAILS = (
    "start_time", "finish_time", "hostname", "data_dir", "pg_version", "start_lsn", "finish_lsn", "is_permanent",
)  # fmt: skip
_PRETTY = (
    "#", "BACKUP NAME", "MODIFIED", "WAL FILE NAME", "STORAGE NAME", "START TIME", "FINISH TIME", "HOSTNAME", "DATADIR",
    "PG VERSION", "START LSN", "FINISH LSN", "PERMANENT",
)  # fmt: skip
_RFC_3339, _RFC_850 = "%Y-%m-%dT%H:%M:%SZ", "%A, %d-%b-%y %H:%M:%S UTC"


@click.command("backup-list")
@click.argument("name", default="")
@click.option("--detail", is_flag=True, help="Show what is known of each backup.")
@click.option("--pretty", is_flag=True, help="A table with lines; with --json, indented.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead.")
@options_of_every_command
@click.pass_obj
def command(app: App, *, name: str, detail: bool, pretty: bool, as_json: bool) -> None:
    """List the backups as `wal-g backup-list` does: columns, JSON and order are the same.

    NAME or LATEST shows that one only, as with WAL-E. `pgbackup list` says more.
    """
    from pgbackup.engines.backup.listing import list_backups, to_json

    with closing(app.open_readonly_store(ask_server=True)) as store:
        tell_unused()
        backups = list_backups(store, details=detail, only=name)
    if as_json:
        say_document(to_json(backups, indent=4 if pretty else None))
    elif not backups:
        say("No backups found", err=True)
    elif pretty:
        _print_lined([(str(number), *_row(each, _RFC_850)) for number, each in enumerate(backups)])
    else:
        _print_padded([_COLUMNS + (_DETAILS if detail else ()), *(_row(each, _RFC_3339) for each in backups)])


def _row(backup: ListedBackup, times: str) -> tuple[str, ...]:
    row = (printable(backup.name), backup.modified.astimezone(UTC).strftime(times), backup.segment, "default")
    if backup.details is None:
        return row
    return (*row, *(_cell(field, backup.details.get(field), times) for field in _DETAILS))


def _cell(field: str, value: Any, times: str) -> str:
    if field.endswith("_time"):
        try:
            moment = datetime.fromisoformat(str(value)).astimezone(UTC)
        except (ValueError, OverflowError):
            return "-"
        return moment.strftime(times) if moment.year > 1 else "-"  # Go's zero time
    if field.endswith("_lsn"):
        return f"{value >> 32:X}/{value & 0xFFFFFFFF:X}" if isinstance(value, int) else "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(str(value)) if value not in (None, "") else "-"


def _print_padded(rows: Sequence[Sequence[str]]) -> None:
    """Columns padded with spaces, one more than the longest cell; the last one not."""
    widths = [max(len(row[column]) for row in rows) + 1 for column in range(len(rows[0]) - 1)]
    for row in rows:
        say("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1])


def _print_lined(rows: Sequence[Sequence[str]]) -> None:
    header = _PRETTY[: len(rows[0])]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    say(rule)
    for row in (header, *rows):
        numbered = row[0].rjust(widths[0])
        rest = (cell.ljust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        say("| " + " | ".join((numbered, *rest)) + " |")
        if row is header:
            say(rule)
    say(rule)
