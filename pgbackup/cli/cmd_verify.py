"""``pgbackup verify``: reads a backup and its WAL back from the store, and names what is damaged or missing."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import emit_json, json_option
from pgbackup.core.size_text import size_text
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.engines.verify.verify import VerifyReport, WalScope

_SHOWN = 50


@click.command("verify")
@click.option("--backup", "name", metavar="NAME", help="The backup to read; by default the newest.")
@click.option(
    "--wal",
    type=click.Choice(["all", "needed", "none"]),
    default="all",
    show_default=True,
    help="WAL to read: all that goes on from the backup, what makes it consistent, or none.",
)
@json_option
@click.pass_obj
def command(app: App, *, name: str | None, wal: WalScope, as_json: bool) -> None:
    """Read a backup and its WAL back from the store and check everything in them.

    Every file is compared with the checksums that Postgres wrote into the backup's manifest, every WAL segment with
    its place, its size and its cluster, on every timeline that goes on from the backup. Writes nothing. Exit 1 when
    anything is damaged or missing.
    """
    from pgbackup.cli.progress import open_progress
    from pgbackup.engines.verify.verify import choose_backup, verify_backup
    from pgbackup.repository.catalog_reader import read_catalog

    codec = app.codec()
    with closing(app.open_readonly_store(ask_server=True)) as store:
        catalog = read_catalog(store, codec, with_marks=False)
        backup = choose_backup(catalog, name)
        report = verify_backup(store, codec, catalog, backup, progress=open_progress(), wal=wal)
    if as_json:
        emit_json(report)
    else:
        _print_report(report)
    if not report.ok:
        raise CheckFailed(f"backup {report.backup} is not whole: {report.findings_total} findings")


def _print_report(report: VerifyReport) -> None:
    click.echo(
        f"backup {report.backup}: {report.objects} objects, {report.files} files and {report.segments} WAL segments, "
        f"{size_text(report.raw_bytes)} read"
    )
    for row in report.wal:
        click.echo(f"  WAL of timeline {row.timeline}: {row.start} to {row.end}")
    for note in report.notes:
        click.echo(f"  note: {note}")
    for finding in report.findings[:_SHOWN]:
        click.echo(f"{click.style(f'{finding.kind:<10}', fg='red')} {finding.object}: {finding.problem}")
    if report.findings_total > _SHOWN:
        click.echo(f"and {report.findings_total - _SHOWN} more; --json shows up to {len(report.findings)}")
    if report.unchecked_files:
        click.echo(f"{report.unchecked_files} files were not checked, because the objects that hold them are damaged")
    click.echo("everything is there and whole" if report.ok else f"{report.findings_total} findings")
