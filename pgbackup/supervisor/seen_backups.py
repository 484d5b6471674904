"""Which base backups `pgbackup run` last saw, ``pgbackup_005/backups.json``.

So its next start, or `pgbackup status` while it is down, notices one that has vanished meanwhile.

Only whoever holds the lease writes it: a process that was pointed at another cluster's prefix must not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import CorruptObject, ObjectMissing, PgbackupError
from pgbackup.repository import keys
from pgbackup.repository.json_object import JsonObject
from pgbackup.storage.base import ObjectStore

_log = logging.getLogger(__name__)


class SeenBackups:
    """The document, and what is known to be in it. ``lease``: None where nothing may be written."""

    def __init__(self, store: ObjectStore, lease: Lease | None) -> None:
        self._store = store
        self._lease = lease
        self._stored: tuple[str, ...] = ()

    def read(self) -> tuple[str, ...]:
        """The names, oldest first; none where nothing was written yet. Raises what the store raises."""
        try:
            data = self._store.get(keys.SEEN_BACKUPS)
            self._stored = tuple(JsonObject.parse(keys.SEEN_BACKUPS, data).texts("backups"))
        except ObjectMissing:
            self._stored = ()
        except CorruptObject as exc:
            _log.warning("%s: a base backup that vanished before this start is not noticed", exc)
            self._stored = ()
        return self._stored

    def write(self, names: Iterable[str]) -> None:
        """Store the names, should they be others than before; what fails is tried again at the next look."""
        seen = tuple(names)
        if self._lease is None or seen == self._stored:
            return
        try:
            lease = self._lease.read()
            if lease is None or not self._lease.is_ours(lease[0]):
                return
            self._store.put(keys.SEEN_BACKUPS, json.dumps({"format": 1, "backups": seen}).encode())
        except PgbackupError as exc:
            _log.debug("which base backups there are could not be stored: %s", exc)
            return
        self._stored = seen
