"""``pgbackup_005/status.json``: how far WAL has been confirmed to the server, for whoever restores.

Stored by conditional put, so that two that write at once, or one whose request arrives late, cannot undo each other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime

from pgbackup.core.confirmed_note import ConfirmedNote
from pgbackup.core.lsn import Lsn
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.json_object import JsonObject
from pgbackup.storage.base import ObjectStore

_TRIES = 3
_log = logging.getLogger(__name__)


def read_note(store: ObjectStore) -> ConfirmedNote | None:
    """The note, or None where there is none, or one that cannot be understood (which is logged)."""
    return _read(store)[0]


def write_note(
    store: ObjectStore, note: ConfirmedNote, *, writer: str, server_time: datetime | None, leads: Callable[[], bool]
) -> bool:
    """Store the note if it holds against what is stored. Returns whether it was. Raises what the store raises.

    ``leads`` is only asked when it matters: whether the writer holds the lease.
    """
    document = json.dumps(
        {
            "format": 1,
            "writer": writer,
            "timeline": note.timeline,
            "confirmed": str(note.confirmed),
            "server_time": server_time.isoformat() if server_time else None,
            "written": note.written.isoformat() if note.written else None,
        }
    ).encode()
    for _ in range(_TRIES):
        stored, etag = _read(store)
        is_older = stored is not None and note.timeline < stored.timeline
        if not note.holds_against(stored, leads=is_older and leads()):
            return False
        if store.put_if_absent(keys.STATUS, document) if etag is None else store.replace(keys.STATUS, document, etag):
            return True
    return False


def _read(store: ObjectStore) -> tuple[ConfirmedNote | None, str | None]:
    """The note, and the etag of what is stored, understood or not."""
    try:
        data, etag = store.get_with_etag(keys.STATUS)
    except ObjectMissing:
        return None, None
    try:
        fields = JsonObject.parse(keys.STATUS, data)
        timeline, confirmed = fields.integer("timeline"), Lsn.parse(fields.text("confirmed"))
        if timeline is None:
            raise ValueError("it names no timeline")
        return ConfirmedNote(timeline, confirmed, fields.moment("written")), etag
    except (CorruptObject, ValueError) as exc:
        _log.warning("%s cannot be understood: %s", keys.STATUS, exc)
        return None, etag
