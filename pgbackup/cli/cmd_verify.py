"""``pgbackup verify``: reads a backup and its WAL back from the store, and names what is damaged or missing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields
from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import emit_json, json_option, say
from pgbackup.core.size_text import size_text
from pgbackup.count_text import counted
from pgbackup.errors import CheckFailed, ConfigError, PgbackupError

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.catalog import Catalog
    from pgbackup.engines.verify.verify import VerifyReport, WalScope
    from pgbackup.storage.base import ObjectStore
    from pgbackup.supervisor.verification_record import Begun

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
@click.option("--record", is_flag=True, help="Write the verdict into the repository, for health to judge by.")
@json_option
@click.pass_obj
def command(app: App, *, name: str | None, wal: WalScope, record: bool, as_json: bool) -> None:
    """Read a backup and its WAL back from the store and check everything in them.

    Every file is compared with the checksums that Postgres wrote into the backup's manifest, every WAL segment with
    its place, its size and its cluster, on every timeline that goes on from the backup. Exit 1 when anything is damaged
    or missing.

    Writes nothing, so health goes on telling what an earlier verification found. With --record the verdict is written
    down like that of a scheduled one, and ends what waits for it; that it could not be is an error beside the report.
    """
    from pgbackup.cli.progress import open_progress
    from pgbackup.engines.verify.verify import choose_backup, verify_backup
    from pgbackup.repository.catalog_reader import read_catalog
    from pgbackup.repository.key_check import key_problem
    from pgbackup.supervisor.verification_by_hand import check_may_record
    from pgbackup.supervisor.verification_record import begin_verification

    if record and wal != "all":
        raise ConfigError("only a whole verification is recorded", hint="Leave out --wal, or --record.")
    codec = app.codec()
    with closing(_open(app, record=record)) as store:
        begun = begin_verification(store) if record else None
        catalog = read_catalog(store, codec, with_marks=False)
        backup = choose_backup(catalog, name)
        if begun is not None:
            check_may_record(store, codec, catalog, backup, begun)
        report = verify_backup(store, codec, catalog, backup, progress=open_progress(), wal=wal)
        unreadable = "" if report.ok else key_problem(store, codec)
        problem = _try_to_record(store, catalog, report, begun) if begun is not None else None
    is_recorded = record and problem is None
    if as_json:
        found = {field.name: getattr(report, field.name) for field in fields(report)}
        emit_json(found | {"recorded": is_recorded})
    else:
        _print_report(report)
    if is_recorded:
        say("the verdict is recorded; a running pgbackup sees it at one of its next looks", err=True)
    if problem is not None and report.ok:
        raise problem
    if not report.ok:
        text = f"backup {report.backup} is not whole: {counted(report.findings_total, 'finding')}"
        hint = f"{unreadable}: set PGBACKUP_ENCRYPTION_KEY to the repository's key." if unreadable else ""
        raise CheckFailed(text, detail=str(problem or ""), hint=problem.hint if problem is not None else hint)


def _open(app: App, *, record: bool) -> ObjectStore:
    if not record:
        return app.open_readonly_store(ask_server=True)
    app.repository_url(ask_server=True)
    return app.open_store()


def _try_to_record(store: ObjectStore, catalog: Catalog, report: VerifyReport, begun: Begun) -> PgbackupError | None:
    """Why it is not recorded: what was found in hours of reading is said all the same."""
    from pgbackup.supervisor.verification_by_hand import record_by_hand

    try:
        record_by_hand(store, catalog, report, begun)
    except PgbackupError as exc:
        return exc
    return None


def _print_report(report: VerifyReport) -> None:
    say(
        f"backup {report.backup}: {counted(report.objects, 'object')}, {counted(report.files, 'file')} and "
        f"{counted(report.segments, 'WAL segment')}, {size_text(report.raw_bytes)} read"
    )
    for row in report.wal:
        say(f"  WAL of timeline {row.timeline}: {row.start} to {row.end}")
    for note in report.notes:
        say(f"  note: {note}")
    for finding in report.findings[:_SHOWN]:
        say(f" {finding.object}: {finding.problem}", mark=f"{finding.kind:<10}", color="red")
    if report.findings_total > _SHOWN:
        say(f"and {report.findings_total - _SHOWN} more; --json shows up to {len(report.findings)}")
    if report.unchecked_files:
        say(f"not checked, because objects are damaged: {counted(report.unchecked_files, 'file')}")
    say("everything is there and whole" if report.ok else counted(report.findings_total, "finding"))
