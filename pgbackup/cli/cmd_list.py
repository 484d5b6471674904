"""``pgbackup list``: the backups, and from when to when the cluster can be recovered."""

from __future__ import annotations

from contextlib import closing
from datetime import tzinfo
from typing import TYPE_CHECKING

import click

from pgbackup.cli.begun import require_begun
from pgbackup.cli.output import emit_json, json_option, say, table, time_text, window_texts
from pgbackup.core.expired_wal import expiry_may_end_at
from pgbackup.core.found_damaged import found_damage
from pgbackup.core.lsn import SegmentName
from pgbackup.core.size_text import size_text
from pgbackup.core.wal_holes import holes
from pgbackup.count_text import counted, is_or_are

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.backup import Backup
    from pgbackup.core.catalog import Catalog, Gap, RecoverableRange
    from pgbackup.core.found_damaged import Damaged

_COLUMNS = (
    "name", "started", "finished", ">PostgreSQL", ">timeline", "start LSN", "stop LSN", ">size", ">stored", "engine",
    "keep", "label", "restorable",
)  # fmt: skip
_LABEL_CHARACTERS = 200


@click.command("list")
@json_option
@click.pass_obj
def command(app: App, *, as_json: bool) -> None:
    """List backups, oldest first, then the ranges that can be recovered, and the gaps in them.

    Everything shown comes from the store at this moment: a backup is restorable when its WAL is there. What the last
    verification found damaged is said beside it. Where nothing at all is stored there is no repository, which is an
    error.
    """
    from pgbackup.repository.backup_objects import with_missing_objects
    from pgbackup.repository.catalog_reader import read_catalog
    from pgbackup.repository.key_check import key_problem
    from pgbackup.repository.verification_note import read_verification

    with closing(app.open_readonly_store(ask_server=True)) as store:
        codec = app.codec()
        catalog = with_missing_objects(store, read_catalog(store, codec))
        unreadable = key_problem(store, codec)
        run = read_verification(store)
        damaged = run.damaged if run is not None else {}
        url = store.url
        if not catalog.backups:
            require_begun(store)
    gaps = holes(catalog)
    if unreadable:
        say(f"{unreadable}: set PGBACKUP_ENCRYPTION_KEY to the repository's key; what follows misses it", err=True)
    if as_json:
        emit_json(_document(url, catalog, gaps, damaged))
        return
    zone = app.settings.tz
    _print_backups(catalog, damaged, zone)
    _print_ranges(catalog.recoverable(), zone)
    expired = expiry_may_end_at(catalog)
    for gap in gaps:
        count = (gap.end - gap.start) // catalog.segment_bytes
        why = _why_missing(catalog, gap)
        if not why and gap.start // catalog.segment_bytes in expired:
            why = " (expiry keeps none behind a permanent backup)"
        what = f"{counted(count, 'WAL segment')} of timeline {gap.timeline} {is_or_are(count)} missing"
        say(f"  gap: {what}, {gap.start} to {gap.end}{why}")


def _why_missing(catalog: Catalog, gap: Gap) -> str:
    """What the ledger says of all of a hole: one that is only in part of a gap that is known needs a look."""
    size = catalog.segment_bytes
    ends = (SegmentName.containing(gap.timeline, lsn, size) for lsn in (gap.start, gap.end - 1))
    first, last = (catalog.why_missing(segment) for segment in ends)
    return first if first == last else " (some of it is known as lost: see `pgbackup gaps`)"


def _print_backups(catalog: Catalog, damaged: Damaged, zone: tzinfo) -> None:
    if not catalog.backups:
        say("no backups")
        return
    rows = []
    for backup in _oldest_first(catalog):
        problem, damage = catalog.why_not_restorable(backup), found_damage(catalog, backup, damaged)
        is_restorable = f"no: {problem}" if problem else f"yes, but {damage.text(backup, zone)}" if damage else "yes"
        rows.append(
            (
                backup.name, time_text(backup.started, zone), time_text(backup.finished, zone), backup.pg_major or "-",
                backup.timeline, backup.start_lsn or "-", backup.stop_lsn or "-", size_text(backup.raw_bytes),
                size_text(backup.stored_bytes) if backup.stored_bytes else "-",  # WAL-E does not say it
                backup.engine, "permanent" if backup.permanent else "-",
                _short(backup.label) or "-", is_restorable,
            )
        )  # fmt: skip
    table(_COLUMNS, rows)


def _short(label: str) -> str:
    """A label for a table: that of another tool's backup may be a novel."""
    return label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 3]}..."


def _print_ranges(ranges: list[RecoverableRange], zone: tzinfo) -> None:
    say()
    say("recoverable:" if ranges else "nothing can be recovered")
    for each in ranges:
        start, end = window_texts(each.start_time, each.end_time, zone)
        until = end if each.end_time is not None else "the end of its WAL"
        say(
            f"  any moment from {start} to {until} "
            f"(timeline {each.timeline}, {each.start} to {each.end}, beginning with {each.backup})"
        )


def _document(url: str, catalog: Catalog, gaps: list[Gap], damaged: Damaged) -> dict[str, object]:
    return {
        "repository": url,
        "system_identifier": catalog.system_identifier,
        "backups": [_describe(catalog, backup, damaged) for backup in _oldest_first(catalog)],
        "recoverable": catalog.recoverable(),
        "gaps": gaps,
        "known_gaps": catalog.known_gaps,
    }


def _describe(catalog: Catalog, backup: Backup, damaged: Damaged) -> dict[str, object]:
    """What is not known (a dash in the table) is null."""
    problem = catalog.why_not_restorable(backup)
    return {
        "name": backup.name,
        "label": backup.label,
        "started": backup.started,
        "finished": backup.finished,
        "timeline": backup.timeline,
        "start_lsn": backup.start_lsn or None,
        "stop_lsn": backup.stop_lsn or None,
        "raw_bytes": backup.raw_bytes,
        "stored_bytes": backup.stored_bytes or None,
        "pg_version": backup.pg_version or None,
        "engine": backup.engine,
        "host": backup.hostname,
        "permanent": backup.permanent,
        "wal_tail": backup.wal_tail,
        "restorable": not problem,
        "problem": problem,
        "found_damaged": found_damage(catalog, backup, damaged),
        "corrupt_files": backup.corrupt_files,
        "tablespaces": backup.tablespaces,
    }


def _oldest_first(catalog: Catalog) -> list[Backup]:
    return sorted(catalog.backups, key=lambda backup: (backup.finished, backup.name))
