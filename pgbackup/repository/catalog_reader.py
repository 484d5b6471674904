"""From a listing to a Catalog, and the claim of a prefix by one cluster.

One listing of ``wal_005/``, one level of ``basebackups_005/``, the documents of each backup in a few threads, the
history files. What cannot be read does not hide the rest: it is listed with its problem.

Memory: a number for each segment, not a key.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pgbackup.core.catalog import Backup, Catalog, TimeMark
from pgbackup.core.lsn import DEFAULT_SEGMENT_BYTES, SegmentName, is_segment_name
from pgbackup.core.timeline import TimelineHistory, parse_history, parse_history_name
from pgbackup.errors import CorruptObject, ObjectMissing, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.backup_reader import parse_backup, segment_bytes_of, unreadable_backup
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import ClusterDocument, parse_object
from pgbackup.repository.key_check import check_key
from pgbackup.storage.base import ObjectInfo, ObjectStore

_READERS = 8
_MAX_HISTORY_BYTES = 1 << 20
_log = logging.getLogger(__name__)


@dataclass
class _Wal:
    """What a listing of the WAL folder shows, names not yet turned into numbers."""

    segments: dict[str, list[str]] = field(default_factory=dict)
    pieces: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    histories: dict[int, str] = field(default_factory=dict)


def read_catalog(store: ObjectStore, codec: Codec, *, with_marks: bool = True) -> Catalog:
    """Everything the repository holds. Raises what the store raises."""
    cluster = read_cluster(store)
    wal = _list_wal(store)
    backups, named_size = _read_backups(store)
    size = cluster.segment_bytes if cluster else named_size or DEFAULT_SEGMENT_BYTES
    return Catalog(
        segment_bytes=size,
        backups=tuple(sorted(backups, key=lambda b: (b.finished, b.name))),
        segments=_numbers(wal, size),
        tails=_tails(wal, size),
        histories=_read_histories(store, codec, wal),
        marks=_read_marks(store) if with_marks else (),
        system_identifier=cluster.system_identifier if cluster else None,
    )


# -- WAL ----------------------------------------------------------------------------------------------------------


def _list_wal(store: ObjectStore) -> _Wal:
    wal = _Wal()
    for info in store.list(keys.WAL):
        name, _ = keys.split_extension(info.key.removeprefix(keys.WAL))
        if is_segment_name(name):
            wal.segments.setdefault(name[:8], []).append(name[8:])
        elif (piece := keys.parse_piece(info.key)) is not None:
            wal.pieces.setdefault(piece.segment, []).append((piece.first, piece.end))
        elif (timeline := parse_history_name(name)) is not None:
            wal.histories[timeline] = info.key
    return wal


def _numbers(wal: _Wal, size: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for timeline, names in wal.segments.items():
        numbers = {number for name in names if (number := _number(timeline + name, size)) is not None}
        found[int(timeline, 16)] = sorted(numbers)
    return found


def _number(name: str, size: int) -> int | None:
    try:
        return SegmentName.parse(name, size).number
    except ValueError:
        _log.warning("%s%s is not a segment of %d bytes", keys.WAL, name, size)
        return None


def _tails(wal: _Wal, size: int) -> dict[SegmentName, int]:
    """How far the pieces of each open segment reach without a hole from its start."""
    tails: dict[SegmentName, int] = {}
    for name, ranges in wal.pieces.items():
        end = 0
        for first, last in sorted(ranges):
            if first > end:
                break
            end = max(end, last)
        if end and _number(name, size) is not None:
            tails[SegmentName.parse(name, size)] = min(end, size)
    return tails


def _read_histories(store: ObjectStore, codec: Codec, wal: _Wal) -> dict[int, TimelineHistory]:
    histories: dict[int, TimelineHistory] = {}
    for timeline, key in sorted(wal.histories.items()):
        text = codec.decode(key, store.get(key), limit=_MAX_HISTORY_BYTES).decode("utf-8", "replace")
        try:
            histories[timeline] = parse_history(timeline, text)
        except ValueError as exc:
            raise CorruptObject(key, str(exc)) from exc
    return histories


def _read_marks(store: ObjectStore) -> tuple[TimeMark, ...]:
    parsed = (keys.parse_mark(info.key) for info in store.list(keys.MARKS))
    return tuple(TimeMark(*mark) for mark in parsed if mark is not None)


# -- backups ------------------------------------------------------------------------------------------------------


def _read_backups(store: ObjectStore) -> tuple[list[Backup], int | None]:
    """The backups, and the segment size that one of them names."""
    infos, _ = store.list_level(keys.BASEBACKUPS)
    sentinels = [info for info in infos if info.key.endswith(keys.SENTINEL_SUFFIX)]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="catalog") as pool:
        read = [found for found in pool.map(lambda info: _read_backup(store, info), sentinels) if found is not None]
    return [backup for backup, _ in read], next((size for _, size in read if size is not None), None)


def _read_backup(store: ObjectStore, info: ObjectInfo) -> tuple[Backup, int | None] | None:
    """None for a backup that was deleted meanwhile."""
    name = info.key.removeprefix(keys.BASEBACKUPS).removesuffix(keys.SENTINEL_SUFFIX)
    try:
        sentinel = store.get(info.key)
    except ObjectMissing:
        return None
    try:
        metadata: bytes | None = store.get(keys.metadata(name))
    except ObjectMissing:
        metadata = None
    try:
        return parse_backup(name, info.modified, sentinel, metadata), segment_bytes_of(sentinel)
    except CorruptObject as exc:
        _log.warning("%s", exc)
        return unreadable_backup(name, info.modified, str(exc)), None


# -- one cluster per prefix ---------------------------------------------------------------------------------------


def read_cluster(store: ObjectStore) -> ClusterDocument | None:
    """Which cluster the prefix was claimed for, or None. Raises CorruptObject."""
    try:
        return ClusterDocument.decode(keys.CLUSTER, store.get(keys.CLUSTER))
    except ObjectMissing:
        return None


def claim_prefix(store: ObjectStore, cluster: ClusterDocument, codec: Codec) -> None:
    """Make sure that the prefix belongs to this cluster and this key, before the first write.

    Raises WrongCluster when another cluster's backups are there, ConfigError when the encryption key is not the one
    that the repository was begun with.
    """
    stored = read_cluster(store)
    if stored is None:
        for identifier in _sealed_identifiers(store):
            _same_cluster(store, identifier, cluster)
        check_key(store, codec)
        if store.put_if_absent(keys.CLUSTER, cluster.encode()):
            return
        stored = read_cluster(store)
    if stored is not None:
        _same_cluster(store, stored.system_identifier, cluster)
        if stored.segment_bytes != cluster.segment_bytes:
            raise WrongCluster(
                f"the prefix holds WAL in segments of {stored.segment_bytes} bytes, the server's are "
                f"{cluster.segment_bytes}",
                hint="Give this server a prefix of its own.",
            )
    check_key(store, codec)


def _same_cluster(store: ObjectStore, identifier: int, cluster: ClusterDocument) -> None:
    if identifier not in (0, cluster.system_identifier):
        raise WrongCluster(
            f"the prefix {store.url} belongs to another cluster",
            detail=f"its system identifier is {identifier}, this server's is {cluster.system_identifier}",
            hint=f"Use a prefix of its own for this server: {store.url.rstrip('/')}/{cluster.system_identifier}",
        )


def _sealed_identifiers(store: ObjectStore) -> set[int]:
    """The system identifiers that sentinels name, for prefixes that another tool began."""
    found: set[int] = set()
    infos, _ = store.list_level(keys.BASEBACKUPS)
    for info in infos:
        if info.key.endswith(keys.SENTINEL_SUFFIX):
            identifier = parse_object(info.key, store.get(info.key)).get("SystemIdentifier")
            if isinstance(identifier, int):
                found.add(identifier)
    return found
