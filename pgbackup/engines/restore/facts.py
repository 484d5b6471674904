"""What a restore has to know before it plans: the catalog to its real end, the branch last written, what was confirmed.

A listing does not prove the end of WAL (it may be older than the store's content), so the names behind the end are
asked for until two in a row are not there. The bookkeeping is a help, not a condition: without it, or with one that
cannot be read, the plan is made from the catalog alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.found_damaged import Damaged
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.recovery_path import wal_path
from pgbackup.core.timeline import TimelineHistory
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.confirmed_notes import read_note
from pgbackup.repository.json_object import parse_object
from pgbackup.repository.verification_note import read_verification
from pgbackup.repository.wal_listing import chain_end
from pgbackup.storage.base import ObjectStore

_ABSENT_IN_A_ROW = 2
_LOOKS = 5
_LOOK_SECONDS = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """``last_confirmed``: timeline and LSN that were durable; ``timeline``: the lease holder's. None: not known.
    ``damaged``: the backups that a verification found damaged, and when."""

    last_confirmed: tuple[int, Lsn] | None = None
    timeline: int | None = None
    damaged: Damaged = field(default_factory=dict)


def read_bookkeeping(store: ObjectStore) -> Bookkeeping:
    """The last notes of whoever shipped WAL, and of who verified."""
    note, lease, verified = read_note(store), _document(store, keys.LEASE), read_verification(store)
    confirmed = (note.timeline, note.confirmed) if note is not None else None
    timeline = lease.get("timeline", confirmed[0] if confirmed else None)
    damaged = verified.damaged if verified is not None else {}
    return Bookkeeping(confirmed, timeline if isinstance(timeline, int) else None, damaged)


def _document(store: ObjectStore, key: str) -> Mapping[str, object]:
    try:
        return parse_object(key, store.get(key))
    except ObjectMissing:
        return {}
    except CorruptObject as exc:
        _log.warning("%s", exc)
        return {}


@dataclass(frozen=True, slots=True)
class ProbedEnd:
    """``catalog``: to the end that is there now. ``named``: where the newest piece of the open segment ends, by its
    name alone (what has a name was durable once); None without pieces. Behind the catalog's end, bytes are lost."""

    catalog: Catalog
    named: Lsn | None = None


def probe_open_end(
    store: ObjectStore, catalog: Catalog, history: TimelineHistory, start: Lsn, reader: WalReader
) -> ProbedEnd:
    """Look at the end of a path again: whole segments behind the listed end, then the pieces of the open segment.

    Both ends come from one listing, because pieces arrive while we look: a request of a killed process may still be
    under way, and a running one ships and merges. What seems torn is looked at again before it counts as lost.
    """
    for tries_left in range(_LOOKS - 1, -1, -1):
        catalog = probe_end(catalog, history, start, reader)
        number = wal_path(catalog, start, history).end // catalog.segment_bytes
        segment = history.segment_for(number, catalog.segment_bytes)
        if segment.timeline != history.timeline:
            return ProbedEnd(catalog)
        infos = [(info, keys.parse_piece(info.key)) for info in store.list(keys.pieces_folder(str(segment)))]
        named = max((piece.end for _, piece in infos if piece), default=0)
        whole = chain_end((piece.first, piece.end) for info, piece in infos if piece and info.size_bytes)
        if whole >= max(named, catalog.tails.get(segment, 0)) or not tries_left:
            break
        time.sleep(_LOOK_SECONDS)
    if whole != catalog.tails.get(segment, 0):
        catalog = replace(catalog, tails={**catalog.tails, segment: whole})
    return ProbedEnd(catalog, Lsn(segment.start + named) if named else None)


def probe_end(catalog: Catalog, history: TimelineHistory, start: Lsn, reader: WalReader) -> Catalog:
    """The catalog with the whole segments behind the listed end of a path that are there after all."""
    found: list[SegmentName] = []
    number = wal_path(catalog, start, history).end // catalog.segment_bytes
    absent = 0
    while absent < _ABSENT_IN_A_ROW:
        segment = history.segment_for(number, catalog.segment_bytes)
        if catalog.has(segment) or reader.is_there(str(segment)):
            absent = 0
            found.append(segment)
        else:
            absent += 1
        number += 1
    segments = {timeline: list(numbers) for timeline, numbers in catalog.segments.items()}
    for segment in found:
        numbers = segments.setdefault(segment.timeline, [])
        if segment.number not in numbers:
            numbers.append(segment.number)
            numbers.sort()
    return replace(catalog, segments=segments) if found else catalog


def probe_start(backups: list[Backup]) -> Lsn:
    """Where the path to probe begins: at the newest backup."""
    return max((backup.start_lsn for backup in backups), default=Lsn(0))
