"""What verifications leave in the repository, scheduled or by hand: health judges by it wherever it is asked, and the
schedule goes on from it.

It is one small object, replaced only as it was read: of two verifications that end at once neither is lost.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbackup.core.catalog import Catalog
from pgbackup.core.health_facts import LastRun
from pgbackup.core.verification_verdict import Reading, with_reading
from pgbackup.engines.backup.intent import store_clock
from pgbackup.engines.verify.verify import VerifyReport, choose_backup
from pgbackup.errors import CorruptObject, ObjectMissing, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.json_object import parse_object
from pgbackup.storage.base import ObjectStore

_TRIES = 10
_log = logging.getLogger(__name__)


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
        stored, etag = _read(store)
        run = with_reading(reading, begun.known, stored, there, store_clock(store))
        if run is None or _write(store, run, etag):
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
    read = f"{report.objects} objects, {report.files} files, {report.segments} WAL segments"
    if report.ok:
        return f"backup {report.backup} is whole ({read})"
    first = report.findings[0]
    return f"backup {report.backup}: {report.findings_total} findings, first {first.object}: {first.problem}"


def read_verification(store: ObjectStore) -> LastRun | None:
    """What is recorded; None when nothing is, or it cannot be read (which is logged). Raises what the store raises."""
    return _read(store)[0]


def write_verification(store: ObjectStore, run: LastRun) -> None:
    """Record a run, whatever is recorded. Raises what the store raises."""
    store.put(keys.VERIFICATION, _encode(run))


def _read(store: ObjectStore) -> tuple[LastRun | None, str]:
    """The same, and the etag of what is there; empty when nothing is."""
    key = keys.VERIFICATION
    try:
        data, etag = store.get_with_etag(key)
    except ObjectMissing:
        return None, ""
    try:
        return _decode(key, data), etag
    except (CorruptObject, ValueError, KeyError, TypeError, OverflowError, AttributeError) as exc:
        _log.warning("object %s is damaged: %s", key, exc)
        return None, etag


def _write(store: ObjectStore, run: LastRun, etag: str) -> bool:
    """False when what was read is not there any more."""
    data = _encode(run)
    return store.replace(keys.VERIFICATION, data, etag) if etag else store.put_if_absent(keys.VERIFICATION, data)


def _decode(key: str, data: bytes) -> LastRun:
    fields = parse_object(key, data)
    return LastRun(
        finished=_moment(fields["finished"]),
        ok=fields["ok"] is True,
        summary=str(fields.get("summary", ""))[:500],
        damaged=tuple(str(name)[:500] for name in fields.get("damaged", ())),
        began=_moment(fields["began"]) if fields.get("began") is not None else None,
        whole={str(name)[:500]: _moment(text) for name, text in fields.get("whole", {}).items()},
    )


def _encode(run: LastRun) -> bytes:
    document = {
        "format": 1,
        "finished": run.finished.isoformat(),
        "ok": run.ok,
        "summary": run.summary,
        "damaged": list(run.damaged),
        "began": run.began.isoformat() if run.began is not None else None,
        "whole": {name: began.isoformat() for name, began in run.whole.items()},
    }
    return json.dumps(document).encode()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
