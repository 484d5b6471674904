"""The objects behind a plan: which keys a backup, a range of WAL, a history or a time mark has, and their removal.

Keys are found by listing, not made up, so that every extension and everything that is named for a segment (pieces,
backup labels, other tools' partial segments) goes with it. Objects that the store keeps (a lock, a policy) are counted
and passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pgbackup.core.catalog import TimeMark
from pgbackup.core.lsn import SegmentName
from pgbackup.core.retention import WalRange
from pgbackup.core.stop import StopSignal
from pgbackup.core.timeline import history_name
from pgbackup.errors import DeleteRefused
from pgbackup.repository import keys
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ObjectInfo, ObjectStore

DELETE_BATCH = 1000
_LISTED = 10 * DELETE_BATCH
_log = logging.getLogger(__name__)


class ExpiryStopped(Exception):
    """Removal ends here; the reason is for people."""


@dataclass
class Removed:
    """What was removed, and what the store kept: how many objects, the first key, and its reason."""

    objects: int = 0
    bytes: int = 0
    retained: int = 0
    first_retained: str = ""
    why_retained: str = ""


class Remover:
    """Deletes objects in batches, asking before each whether it still may. For one thread."""

    def __init__(self, store: ObjectStore, stop: StopSignal, may_run: Callable[[], bool]) -> None:
        self._store = store
        self._stop = stop
        self._may_run = may_run
        self.removed = Removed()

    def ask(self) -> None:
        """Raise ExpiryStopped when nothing more may be removed."""
        if self._stop.is_set():
            raise ExpiryStopped("it was asked to stop")
        if not self._may_run():
            raise ExpiryStopped("another process may hold the lease now")

    def remove(self, infos: Iterable[ObjectInfo]) -> frozenset[str]:
        """Delete objects; returns the keys that the store keeps. Raises ExpiryStopped, and what the store raises."""
        rest = iter(infos)
        refused: set[str] = set()
        while batch := list(islice(rest, DELETE_BATCH)):
            self.ask()
            kept = self._delete([info.key for info in batch])
            refused |= kept
            gone = [info for info in batch if info.key not in kept]
            self.removed.objects += len(gone)
            self.removed.bytes += sum(info.size_bytes for info in gone)
        return frozenset(refused)

    def _delete(self, batch: Sequence[str]) -> set[str]:
        """Delete one batch, without those that the store turns out to keep; returns these."""
        refused: set[str] = set()
        left = list(batch)
        while left:
            try:
                self._store.delete(left)
                break
            except DeleteRefused as refusal:
                # A refusal of the whole call names no key.
                kept = set(refusal.keys) & set(left) or set(left)
                _log.debug("the store keeps %d objects: %s", len(kept), refusal)
                if not self.removed.retained:
                    self.removed.first_retained, self.removed.why_retained = min(kept), str(refusal)
                self.removed.retained += len(kept)
                refused |= kept
                left = [key for key in left if key not in kept]
        return refused


def sentinel_objects(store: ObjectStore, backup: str) -> list[ObjectInfo]:
    """The seal of a backup, if it is there."""
    info = store.head(keys.sentinel(backup))
    return [] if info is None else [info]


def folder_objects(store: ObjectStore, backup: str) -> list[ObjectInfo]:
    """Everything of a backup but its seal."""
    return list(store.list(keys.backup_folder(backup)))


def wal_objects(store: ObjectStore, wanted: WalRange, segment_bytes: int) -> Iterator[ObjectInfo]:
    """Everything named for a segment of the range, oldest first, listed a part at a time: it may be a million."""
    prefix = f"{keys.WAL}{wanted.timeline:08X}"
    # What belongs to the segment before the range ends with something below "~".
    after = f"{keys.WAL}{SegmentName(wanted.timeline, wanted.begin - 1, segment_bytes)}~" if wanted.begin else ""
    while True:
        page = list(islice(store.list(prefix, start_after=after), _LISTED))
        for info in page:
            number = _segment_number(info.key, segment_bytes)
            if number is not None and number >= wanted.end:
                return
            if number is not None and number >= wanted.begin:
                yield info
        if len(page) < _LISTED:
            return
        after = page[-1].key


def history_objects(store: ObjectStore, timeline: int) -> list[ObjectInfo]:
    """A timeline's history file, under every extension."""
    found = (store.head(key) for key in stored_keys(store, history_name(timeline)))
    return [info for info in found if info is not None]


def mark_objects(store: ObjectStore, marks: Iterable[TimeMark]) -> Iterator[ObjectInfo]:
    """The objects of time marks."""
    wanted = {keys.mark(mark.moment, mark.timeline, mark.lsn) for mark in marks}
    return iter([info for info in store.list(keys.MARKS) if info.key in wanted] if wanted else [])


def _segment_number(key: str, segment_bytes: int) -> int | None:
    name = keys.wal_segment(key)
    try:
        return None if name is None else SegmentName.parse(name, segment_bytes).number
    except ValueError:
        return None
