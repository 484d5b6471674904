"""From a listing to a Catalog.

cluster.json, one level of ``basebackups_005/`` with the documents of each backup, one listing of ``wal_005/``, the
history files, the time marks, the ledger of gaps. What cannot be read does not hide the rest: a backup is listed with
its problem, a history is left out with a warning (its timeline then counts as one without ancestors, from which nothing
is restored); a ledger that cannot be read raises, because it would hide a loss. Only what needs none of our bookkeeping
goes on without what cannot be read of it: a restore, and whoever ships WAL, takes backups or verifies them.

Memory: eight bytes for each whole segment, and the backups. Sentinels and histories never change, so a reader that is
asked again fetches only those that are new.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import DEFAULT_SEGMENT_BYTES
from pgbackup.core.timeline import MAX_HISTORY_BYTES, TimelineHistory, parse_history
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import with_missing_objects
from pgbackup.repository.backup_reader import ReadBackup, read_backup, unreadable_backup
from pgbackup.repository.codec import Codec
from pgbackup.repository.gap_ledger import read_gaps
from pgbackup.repository.prefix_claim import claim_prefix, read_cluster
from pgbackup.repository.sentinels import fetch_sentinel
from pgbackup.repository.small_objects import fetch_metadata, fetch_small, fetch_version_text
from pgbackup.repository.wal_listing import read_wal_listing
from pgbackup.storage.base import ObjectInfo, ObjectStore

__all__ = ["CatalogReader", "claim_prefix", "read_catalog", "read_cluster", "read_for_restore"]

T = TypeVar("T")

_THREADS = 8
_MAX_STORED_HISTORY_BYTES = 2 << 20
_log = logging.getLogger(__name__)


def read_catalog(
    store: ObjectStore, codec: Codec, *, with_marks: bool = True, needs_bookkeeping: bool = True
) -> Catalog:
    """Everything the repository holds. Raises as CatalogReader.read does."""
    return CatalogReader(store, codec).read(with_marks=with_marks, needs_bookkeeping=needs_bookkeeping)


def read_for_restore(store: ObjectStore, codec: Codec) -> Catalog:
    """Everything, with backups of which objects are missing having that as their problem, and whatever the bookkeeping
    is like. Raises what the store raises."""
    return with_missing_objects(store, read_catalog(store, codec, needs_bookkeeping=False))


class CatalogReader:
    """Reads the catalog of one repository, again and again. For one thread."""

    def __init__(self, store: ObjectStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._sentinels: dict[tuple[str, str], bytes] = {}
        self._histories: dict[str, TimelineHistory] = {}
        self._versions: dict[str, str] = {}
        self._segment_bytes = DEFAULT_SEGMENT_BYTES

    def read(self, *, with_marks: bool = True, needs_bookkeeping: bool = True) -> Catalog:
        """Everything the repository holds now. Raises what the store raises, and CorruptObject for bookkeeping that is
        needed and cannot be read."""
        cluster = self._bookkeeping(read_cluster, None, needed=needs_bookkeeping)
        if cluster is not None:
            self._segment_bytes = cluster.segment_bytes
        read = self._read_backups()
        segment_bytes = cluster.segment_bytes if cluster else _segment_bytes(read)
        if segment_bytes != self._segment_bytes:
            # WAL-E's names of segments mean other positions then.
            self._segment_bytes = segment_bytes
            read = self._read_backups()
        wal = read_wal_listing(self._store.list(keys.WAL), segment_bytes)
        return Catalog(
            segment_bytes=segment_bytes,
            backups=_oldest_first(read),
            segments=wal.segments,
            tails=wal.tails,
            histories=self.read_histories(wal.histories),
            marks=self.read_marks() if with_marks else (),
            system_identifier=cluster.system_identifier if cluster else None,
            known_gaps=self._bookkeeping(read_gaps, (), needed=needs_bookkeeping),
        )

    def _bookkeeping(self, read: Callable[[ObjectStore], T], nothing: T, *, needed: bool) -> T:
        try:
            return read(self._store)
        except CorruptObject as exc:
            if needed:
                raise
            _log.warning("%s; going on without it", exc)
            return nothing

    def read_backups(self) -> tuple[Backup, ...]:
        """The sealed backups, oldest first: one LIST, and the documents of those that are new."""
        return _oldest_first(self._read_backups())

    def read_marks(self, after: datetime | None = None) -> tuple[TimeMark, ...]:
        """The time marks, or those later than ``after``."""
        start_after = keys.marks_until(after) if after is not None else ""
        parsed = (keys.parse_mark(info.key) for info in self._store.list(keys.MARKS, start_after=start_after))
        return tuple(TimeMark(*mark) for mark in parsed if mark is not None)

    def read_histories(self, found: Mapping[int, list[str]]) -> dict[int, TimelineHistory]:
        """The histories at these keys (timeline -> keys, one for each extension); what cannot be read is left out."""
        histories = {}
        for timeline, stored in sorted(found.items()):
            for key in stored:
                history = self._read_history(timeline, key)
                if history is not None:
                    histories[timeline] = history
                    break
        return histories

    def _read_history(self, timeline: int, key: str) -> TimelineHistory | None:
        if key in self._histories:
            return self._histories[key]
        try:
            stored = fetch_small(self._store, key, _MAX_STORED_HISTORY_BYTES)
            text = self._codec.decode(key, stored, limit=MAX_HISTORY_BYTES).decode("utf-8", "replace")
            history = self._histories[key] = parse_history(timeline, text)
        except ObjectMissing:
            return None
        except CorruptObject as exc:
            _log.warning("%s; timeline %d counts as one without ancestors", exc, timeline)
            return None
        except ValueError as exc:
            _log.warning("object %s is damaged: %s; timeline %d counts as one without ancestors", key, exc, timeline)
            return None
        return history

    # -- backups ------------------------------------------------------------------------------------------------

    def _read_backups(self) -> list[ReadBackup]:
        infos, _ = self._store.list_level(keys.BASEBACKUPS)
        sentinels = [info for info in infos if info.key.endswith(keys.SENTINEL_SUFFIX)]
        known = {(info.key, info.etag) for info in sentinels}
        self._sentinels = {at: data for at, data in self._sentinels.items() if at in known}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="catalog") as pool:
            return [found for found in pool.map(self._read_backup, sentinels) if found is not None]

    def _read_backup(self, info: ObjectInfo) -> ReadBackup | None:
        """None for a backup that was deleted meanwhile."""
        name = info.key.removeprefix(keys.BASEBACKUPS).removesuffix(keys.SENTINEL_SUFFIX)
        metadata = self._metadata(name)
        try:
            sentinel = self._sentinel(info)
        except ObjectMissing:
            return None
        except CorruptObject as exc:
            return ReadBackup(unreadable_backup(name, info.modified, str(exc), None, metadata), None)
        found = read_backup(
            name,
            info.modified,
            sentinel,
            metadata,
            self._version_text(name),
            wal_e_segment_bytes=self._segment_bytes,
        )
        if found.backup.problem:
            _log.debug("backup %s cannot be restored: %s", name, found.backup.problem)
        return found

    def _metadata(self, name: str) -> bytes | None:
        """None where there is none; empty, and so damaged, where it is too large to be one."""
        try:
            return fetch_metadata(self._store, name)
        except ObjectMissing:
            return None
        except CorruptObject as exc:
            _log.warning("%s", exc)
            return b""

    def _sentinel(self, info: ObjectInfo) -> bytes:
        at = info.key, info.etag
        data = self._sentinels.get(at)
        if data is None:
            data = fetch_sentinel(self._store, info)
            if info.etag:
                self._sentinels[at] = data
        return data

    def _version_text(self, name: str) -> str:
        """What WAL-E noted of the server's version; read once, it never changes."""
        if name not in self._versions:
            self._versions[name] = fetch_version_text(self._store, name)
        return self._versions[name]


def _segment_bytes(read: list[ReadBackup]) -> int:
    """The segment size that the backups prove: that of the most, should they differ."""
    sizes = Counter(r.segment_bytes for r in read if r.segment_bytes is not None)
    return sizes.most_common(1)[0][0] if sizes else DEFAULT_SEGMENT_BYTES


def _oldest_first(read: list[ReadBackup]) -> tuple[Backup, ...]:
    return tuple(sorted((r.backup for r in read), key=lambda b: (b.finished, b.name)))
