"""What a verification records, scheduled or by hand: health judges by it wherever it is asked, and the schedule goes on
from it. Of two that end at once neither is lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.catalog import Catalog
from pgbackup.core.health_facts import LastRun
from pgbackup.core.verification_verdict import Reading, with_reading
from pgbackup.count_text import counted
from pgbackup.engines.backup.intent import store_clock
from pgbackup.engines.verify.verify import VerifyReport, choose_backup
from pgbackup.errors import StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.verification_note import read_verification, read_with_etag, replace_verification
from pgbackup.storage.base import ObjectStore

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Begun:
    """A verification that has begun: when, by the store's clock, and what was recorded by then."""

    moment: datetime
    known: LastRun | None


def begin_verification(store: ObjectStore) -> Begun:
    """To be called before anything is read, the catalog as well. Raises what the store raises."""
    return Begun(store_clock(store), read_verification(store))


def record_verification(store: ObjectStore, catalog: Catalog, report: VerifyReport, begun: Begun) -> LastRun | None:
    """Record what became of reading all of a backup and its WAL; returns what is recorded by now.

    ``catalog`` as it was read when that had begun. None when there was nothing to record (see ``with_reading``). Raises
    what the store raises.
    """
    newest = choose_backup(catalog, None).name
    reading = Reading(report.backup, report.ok, summary_of(report), begun.moment, report.backup == newest)
    there = {backup.name for backup in catalog.backups}
    for _ in range(_TRIES):
        stored, etag = read_with_etag(store)
        run = with_reading(reading, begun.known, stored, there, store_clock(store))
        if run is None or replace_verification(store, run, etag):
            return run
    raise StoreUnavailable(
        f"the verification could not be recorded: {keys.VERIFICATION} was another one at each of {_TRIES} tries",
        hint="Run it again when no other verification ends.",
    )


def is_gone(store: ObjectStore, report: VerifyReport) -> bool:
    """Whether the backup was removed while it was read, its seal first: what is missing of it then is no damage."""
    return not report.ok and store.head(keys.sentinel(report.backup)) is None


def summary_of(report: VerifyReport) -> str:
    """One line for people."""
    objects, files = counted(report.objects, "object"), counted(report.files, "file")
    read = f"{objects}, {files}, {counted(report.segments, 'WAL segment')}"
    if report.ok:
        return f"backup {report.backup} is whole ({read})"
    first = report.findings[0]
    return f"backup {report.backup}: {counted(report.findings_total, 'finding')}, first {first.object}: {first.problem}"
