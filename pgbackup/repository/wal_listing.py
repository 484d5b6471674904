"""What a listing of the WAL folder shows, in memory that does not hold the keys.

Names come in order of their bytes, so a segment's number is appended to an array of its timeline: eight bytes each.
Pieces and histories are few. WAL-G's padded ``<segment>.partial.zst`` counts for nothing here: it is as long as a
segment whatever is in it, so nobody knows where its WAL ends; ``wal-fetch`` never serves it either.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pgbackup.core.lsn import SegmentName, is_segment_name
from pgbackup.core.timeline import parse_history_name
from pgbackup.count_text import counted
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectInfo

_log = logging.getLogger(__name__)
_SEGMENT_NAME_LENGTH = 24


@dataclass
class WalListing:
    """``segments``: timeline -> numbers of whole segments, sorted; ``tails``: segment -> end of the contiguous pieces
    from its start, 0 where its first piece is missing; ``histories``: timeline -> keys, one for each extension."""

    segments: Mapping[int, Sequence[int]] = field(default_factory=dict)
    tails: Mapping[SegmentName, int] = field(default_factory=dict)
    histories: Mapping[int, list[str]] = field(default_factory=dict)


def read_wal_listing(infos: Iterable[ObjectInfo], segment_bytes: int) -> WalListing:
    """Sort the objects below ``wal_005/`` by what they are. Empty objects and unknown names are passed over."""
    segments: dict[int, array[int]] = {}
    pieces: dict[str, list[tuple[int, int]]] = {}
    histories: dict[int, list[str]] = {}
    strangers = 0
    start = len(keys.WAL)
    for info in infos:
        name = keys.split_extension(info.key[start:])[0]
        if not info.size_bytes:
            continue
        if len(name) == _SEGMENT_NAME_LENGTH and is_segment_name(name):
            strangers += not _append(segments, name, segment_bytes)
        elif (piece := keys.parse_piece(info.key)) is not None:
            pieces.setdefault(piece.segment, []).append((piece.first, piece.end))
        elif (timeline := parse_history_name(name)) is not None:
            histories.setdefault(timeline, []).append(info.key)
    if strangers:
        _log.warning("%s in %s cannot be of segments of %d bytes", counted(strangers, "name"), keys.WAL, segment_bytes)
    return WalListing(_in_order(segments), _tails(pieces, segment_bytes), histories)


def _append(segments: dict[int, array[int]], name: str, segment_bytes: int) -> bool:
    """Note a whole segment. False for a name that no segment of that size has."""
    try:
        segment = SegmentName.parse(name, segment_bytes)
    except ValueError:
        return False
    numbers = segments.get(segment.timeline)
    if numbers is None:
        numbers = segments[segment.timeline] = array("Q")
    if not numbers or numbers[-1] != segment.number:
        numbers.append(segment.number)
    return True


def _in_order(segments: dict[int, array[int]]) -> dict[int, Sequence[int]]:
    """Byte order of the names is order of the numbers; a store that lists otherwise must not mislead anyone."""
    found: dict[int, Sequence[int]] = {}
    for timeline, numbers in segments.items():
        is_sorted = all(left < right for left, right in pairwise(numbers))
        found[timeline] = numbers if is_sorted else array("Q", sorted(set(numbers)))
    return found


def _tails(pieces: dict[str, list[tuple[int, int]]], segment_bytes: int) -> dict[SegmentName, int]:
    tails = {}
    for name, ranges in pieces.items():
        try:
            tails[SegmentName.parse(name, segment_bytes)] = min(chain_end(ranges), segment_bytes)
        except ValueError:
            _log.warning("%s%s is not a segment of %d bytes", keys.WAL, name, segment_bytes)
    return tails


def chain_end(ranges: Iterable[tuple[int, int]]) -> int:
    """The end of the unbroken chain of ranges from offset 0; they may overlap."""
    end = 0
    for first, last in sorted(ranges):
        if first > end:
            break
        end = max(end, last)
    return end
