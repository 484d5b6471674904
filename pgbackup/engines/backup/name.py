"""Who may have a backup's name: it is the segment of the start LSN, so two backups can want the same one.

A primary switches segments before each backup; a standby cannot, and two backups of an idle one start at the same LSN.
"""

from __future__ import annotations

from pgbackup.core.backup import Backup
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.backup.intent import Intent, OwnIntent, read_intent, store_clock
from pgbackup.engines.backup.leftovers import clean_leftovers, is_stale, remove_backup_objects
from pgbackup.engines.backup.passing_failure import passing_failure
from pgbackup.engines.backup.seal import is_sealed
from pgbackup.engines.presence.owner import Owner
from pgbackup.errors import BackupError, PgbackupError
from pgbackup.postgres.base_backup_stream import BackupStart
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import missing_objects
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore

_AGAIN = "Start the backup again when the server has gone on to the next WAL segment."


def sealed_twin(store: ObjectStore, codec: Codec, name: str, start_lsn: Lsn) -> Backup | None:
    """The sealed backup of that name if it starts at the same LSN and is whole: then there is nothing new to back up.

    None when the name is free. Raises BackupError when the name belongs to another backup, or that one is not whole.
    """
    if not is_sealed(store, name):
        return None
    catalog = read_catalog(store, codec, with_marks=False, needs_bookkeeping=False)
    twin = catalog.backup(name)
    if twin is None:
        return None
    if twin.start_lsn != start_lsn:
        raise passing_failure(
            f"backup {name} exists and starts at {twin.start_lsn}, this one would start at {start_lsn} under its name",
            hint=_AGAIN,
        )
    problem = catalog.why_not_restorable(twin) or missing_objects(store, twin)
    if problem:
        raise BackupError(
            f"backup {name} starts at the same LSN, and is not whole",
            detail=problem,
            hint="Delete it, or let the server write something, then start the backup again.",
        )
    return twin


def claim_name(store: ObjectStore, name: str, start: BackupStart, segment_bytes: int, host: str) -> OwnIntent:
    """Claim a name for this attempt. Raises BackupError when it is taken, or its folder is not empty."""
    segment = SegmentName.containing(start.timeline, start.start_lsn, segment_bytes)
    key = keys.intent(start.timeline, segment.start)
    owner = Owner.new(host)
    intent = Intent(name, owner, start.timeline, str(start.start_lsn))
    own = OwnIntent.claim(store, key, intent)
    if own is None:
        # It may be the intent of a process that was killed just now.
        clean_leftovers(store, host)
        own = OwnIntent.claim(store, key, intent)
    if own is None:
        owner.retire()
        raise _taken(store, key, name)
    try:
        _claim_folder(store, name)
    except PgbackupError:
        own.remove()
        raise
    return own


def _claim_folder(store: ObjectStore, name: str) -> None:
    if is_sealed(store, name):
        raise passing_failure(f"backup {name} was sealed a moment ago", hint=_AGAIN)
    if any(True for _ in store.list(keys.backup_folder(name))):
        if not is_stale(store, name, store_clock(store)):
            raise passing_failure(
                f"the folder of {name} holds objects that nobody claims",
                detail="another tool may be taking a backup of that name",
                hint=_AGAIN + " After a day such objects are removed.",
            )
        remove_backup_objects(store, name)


def _taken(store: ObjectStore, key: str, name: str) -> BackupError:
    found = read_intent(store, key)
    if found is None:
        return passing_failure(f"the intent of backup {name} came and went", hint=_AGAIN)
    copied = found.intent.seal is not None
    return passing_failure(
        f"backup {name} is {'waiting to be sealed' if copied else 'being taken'} by {found.intent.owner}",
        detail=f"last seen {found.modified.isoformat(timespec='seconds')}",
        hint="Wait until it has finished; if that process is gone, its leftovers are removed after a day.",
    )
