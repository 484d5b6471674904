"""What interrupted base backups left behind: objects without a seal, unfinished uploads, intents without a process.

Removed is what an abandoned intent names (ours, when its process is gone; any, when it has not shown itself for a day),
and folders of a backup, ours or another tool's, without a sentinel and without an intent in which nothing has changed
for a day. A sealed backup is never touched.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime

from pgbackup.engines.backup.intent import (
    STALE_AFTER,
    OwnIntent,
    StoredIntent,
    read_intents,
    store_clock,
)
from pgbackup.engines.backup.seal import is_sealed
from pgbackup.engines.presence.owner import Owner
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.tidying import tidy

_FOLDER = re.compile(r"^basebackups_005/(base_[0-9A-F]{24}(?:_D_[0-9A-F]{24})?(?:_[0-9A-F]{8})?)/")
_log = logging.getLogger(__name__)


def clean_leftovers(store: ObjectStore, host: str) -> list[str]:
    """Remove what earlier processes left. Returns the names of the backups of which something was removed.

    A copy that only waits for its seal is left alone until its intent is a day old: see resume_seals.
    """
    now = store_clock(store)
    intents = list(read_intents(store))
    claimed = {found.intent.backup for found in intents}
    cleaned = [found.intent.backup for found in intents if _clean_intent(store, found, host, now)]
    return cleaned + _clean_unclaimed(store, claimed, now)


def remove_backup_objects(store: ObjectStore, backup: str, upload_ids: list[list[str]] | None = None) -> bool:
    """Abort the uploads and remove the objects of an unsealed backup; False when the store keeps some of them.

    Raises what the store raises.
    """
    folder = keys.backup_folder(backup)
    uploads = {(key, upload_id) for key, upload_id in upload_ids or [] if key.startswith(folder)}
    uploads |= {(upload.key, upload.upload_id) for upload in store.list_uploads(folder)}
    for key, upload_id in uploads:
        store.abort_upload(key, upload_id)
    return tidy(store, [info.key for info in store.list(folder)])


def _clean_intent(store: ObjectStore, found: StoredIntent, host: str, now: datetime) -> bool:
    if found.life(host, now) != "abandoned":
        return False
    sealed = is_sealed(store, found.intent.backup)
    if found.intent.seal is not None and not sealed and now - found.modified < STALE_AFTER:
        return False
    owner = Owner.new(host)
    intent = OwnIntent.take_over(store, found, owner)
    if intent is None:
        owner.retire()
        return False
    try:
        removed = not sealed and remove_backup_objects(store, found.intent.backup, found.intent.uploads)
        if removed:
            _log.info("removed what %s left of backup %s", found.intent.owner, found.intent.backup)
        intent.remove()
    finally:
        intent.leave()
    return removed


def _clean_unclaimed(store: ObjectStore, claimed: set[str], now: datetime) -> list[str]:
    """Folders and uploads that nobody claims and that are a day old."""
    _, folders = store.list_level(keys.BASEBACKUPS)
    names = {match[1] for folder in folders if (match := _FOLDER.match(folder))}
    for upload in store.list_uploads(keys.BASEBACKUPS):
        if match := _FOLDER.match(upload.key):
            names.add(match[1])
    cleaned = []
    for name in sorted(names - claimed):
        if is_sealed(store, name) or not is_stale(store, name, now):
            continue
        if remove_backup_objects(store, name):
            _log.info("removed objects of backup %s, which was never sealed", name)
            cleaned.append(name)
    return cleaned


def is_stale(store: ObjectStore, backup: str, now: datetime) -> bool:
    """Whether nothing below a backup's folder has changed for a day."""
    folder = keys.backup_folder(backup)
    moments = [info.modified for info in store.list(folder)]
    moments += [upload.started for upload in store.list_uploads(folder)]
    return now - max(moments, default=now) > STALE_AFTER
