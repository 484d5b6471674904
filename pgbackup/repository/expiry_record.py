"""The record of the last expiry, ``pgbackup_005/expiry.json``: what it saw, what it removed, and when.

It is written before anything is removed, with the names that are to go, and again at the end. So the next expiry can
tell a backup that expiry removed (perhaps interrupted) from one that vanished, and finishes what was begun.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.health_backups import first_done
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.retention import LastListing
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.json_object import JsonObject
from pgbackup.storage.base import ObjectStore

_MOST_GONE = 1000
_TIMELINE = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True)
class ExpiryRecord:
    """``when``: the last expiry that came to its end. ``listing``: the backups there are; ``removing``: those of which
    something may be left. ``removed`` is for people: the names and numbers of the last expiry that removed something.
    ``gone``: the backups that this and earlier expiries have removed or were told to accept as missing, newest last;
    ``removed_wal``: the WAL that they have removed. ``damaged``: the backups that count as found damaged: the record of
    verifications may be lost, and then only this knows that an older backup is the last that is whole.
    """

    when: datetime
    system_identifier: int | None
    backups: frozenset[str]
    removing: frozenset[str] = frozenset()
    removed: Mapping[str, object] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    removed_wal: RemovedWal = field(default_factory=RemovedWal)
    damaged: frozenset[str] = frozenset()

    @property
    def listing(self) -> LastListing:
        return LastListing(self.system_identifier, self.backups, self.removing)

    @property
    def accounted(self) -> frozenset[str]:
        """The backups whose absence is no surprise."""
        return self.removing | self.last_removed | frozenset(self.gone)

    def gone_after(self, names: Iterable[str], there: Collection[str]) -> tuple[str, ...]:
        """``gone`` with those that an expiry removed or accepted since; ``there``: the backups there are now."""
        known = dict.fromkeys([*self.gone, *sorted(self.last_removed), *sorted(self.removing), *names])
        return tuple(name for name in known if name not in there)[-_MOST_GONE:]

    @property
    def last_removed(self) -> frozenset[str]:
        """The backups that the last expiry that removed something has removed."""
        names = self.removed.get("backups")
        return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()

    def encode(self) -> bytes:
        document = {
            "format": 1,
            "when": self.when.isoformat(),
            "system_identifier": self.system_identifier,
            "backups": sorted(self.backups),
            "removing": sorted(self.removing),
            "removed": dict(self.removed),
            "gone": list(self.gone),
            "removed_wal": {str(timeline): rows for timeline, rows in self.removed_wal.ranges.items()},
            "damaged": sorted(self.damaged),
        }
        return json.dumps(document).encode()


def read_record(store: ObjectStore) -> ExpiryRecord | None:
    """The record of the last expiry, or None before the first. Raises CorruptObject."""
    try:
        data = store.get(keys.EXPIRY)
    except ObjectMissing:
        return None
    fields = JsonObject.parse(keys.EXPIRY, data)
    when = fields.moment("when")
    if when is None:
        raise CorruptObject(keys.EXPIRY, "it does not say when the expiry was")
    removed = fields.value("removed")
    return ExpiryRecord(
        when,
        fields.integer("system_identifier"),
        frozenset(fields.texts("backups")),
        frozenset(fields.texts("removing")),
        removed if isinstance(removed, dict) else {},
        tuple(fields.texts("gone")),
        _removed_wal(fields.value("removed_wal")),
        frozenset(fields.texts("damaged")),
    )


def read_removed_wal(store: ObjectStore) -> RemovedWal:
    """What expiries have written down that they removed; nothing while none has. Raises as ``read_record`` does."""
    record = read_record(store)
    return record.removed_wal if record is not None else RemovedWal()


def _removed_wal(document: object) -> RemovedWal:
    """What is no range is left out: what it excuses is then told."""
    found = []
    for timeline, rows in document.items() if isinstance(document, dict) else ():
        if _TIMELINE.fullmatch(timeline) is None:
            continue
        for row in rows if isinstance(rows, list) else ():
            match row:
                case [int(begin), int(end)] if 0 <= begin < end:
                    found.append((int(timeline), begin, end))
    return RemovedWal().and_also(found)


def last_expiry(record: ExpiryRecord | None, backups: Iterable[Backup], now: datetime) -> datetime:
    """When expiry was last done, for its schedule; before the first one, what ``first_done`` says."""
    return record.when if record is not None else first_done(backups, now)
