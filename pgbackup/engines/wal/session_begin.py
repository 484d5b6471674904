"""What a streaming session is told at its beginning: how to behave, where it begins, and what is stored already."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.timelines import TimelineClaim
from pgbackup.repository import keys
from pgbackup.repository.wal_listing import read_wal_listing
from pgbackup.storage.base import ObjectInfo, ObjectStore

_MOST_NAMED = 1000


@dataclass(frozen=True, slots=True)
class WalSessionSettings:
    """How a session behaves: seconds between pieces (None: whole segments only), seconds between statuses, and seconds
    that a stop may take."""

    flush_seconds: float | None
    status_seconds: float
    stop_seconds: float


@dataclass(frozen=True, slots=True)
class SessionBegin:
    """Where a session begins: at the start of ``segment``, with the timeline still to be claimed (or None), and with
    the segments of which the repository holds pieces, and those that it holds whole. ``historic``: the server is on a
    later timeline by now. ``before_confirming`` raises where what is durable must not be confirmed (fence.py): a piece
    that is not of ``piece_keys``, for whoever began after us may have missed it as well."""

    segment: SegmentName
    claim: TimelineClaim | None = None
    with_pieces: frozenset[SegmentName] = frozenset()
    whole: frozenset[SegmentName] = frozenset()
    historic: bool = False
    before_confirming: Callable[[], None] = lambda: None
    piece_keys: frozenset[str] = frozenset()


def read_begin(
    store: ObjectStore,
    segment: SegmentName,
    claim: TimelineClaim | None = None,
    *,
    historic: bool = False,
    before_confirming: Callable[[], None] = lambda: None,
) -> SessionBegin:
    """List what is stored from a segment on. Call it behind the fence, so that it misses nothing that was confirmed.

    Whole segments from there on are one or none, unless there is a hole before them; only so many of those are named.
    """
    piece_keys: set[str] = set()

    def noting_pieces(infos: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        for info in infos:
            if keys.parse_piece(info.key) is not None:
                piece_keys.add(info.key)
            yield info

    listed = store.list(f"{keys.WAL}{segment.timeline:08X}", start_after=keys.before_segment(str(segment)))
    listing = read_wal_listing(noting_pieces(listed), segment.segment_bytes)
    numbers = listing.segments.get(segment.timeline, ())
    begin = bisect_left(numbers, segment.number)
    whole = (SegmentName(segment.timeline, n, segment.segment_bytes) for n in numbers[begin : begin + _MOST_NAMED])
    return SessionBegin(
        segment,
        claim,
        frozenset(listing.tails),
        frozenset(whole),
        historic,
        before_confirming,
        frozenset(piece_keys),
    )
