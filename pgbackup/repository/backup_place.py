"""Where a base backup begins and ends: from its name, its sentinel and metadata.json, which may contradict each other.

A position that cannot be right is worse than none. A restore would ask for WAL that never was, and whatever is ordered
by positions (which backup is the newest, where a cluster begins, what expiry keeps) would go wrong for the good backups
too. So what is contradicted counts as not known, which is 0, and is a problem of that backup alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgbackup.core.lsn import MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, Lsn, SegmentName
from pgbackup.errors import CorruptObject
from pgbackup.repository.json_object import JsonObject

MOST_WAL_BYTES = 1 << 50
"""No server writes so much WAL while a backup is taken."""

_OFFSET = re.compile(r"[0-9]{1,10}")
_WAL_E_SEGMENT, _WAL_E_OFFSET = "wal_segment_backup_stop", "wal_segment_offset_backup_stop"


@dataclass(frozen=True, slots=True)
class Place:
    """``segment_bytes``: the segment size that the documents prove (None: they leave it open)."""

    start: Lsn = Lsn(0)
    stop: Lsn = Lsn(0)
    segment_bytes: int | None = None
    problem: str = ""


def documented_place(
    segment: str, seal: JsonObject, details: JsonObject, *, claimed_bytes: int | None, is_vouched: bool
) -> Place:
    """The place of a backup of ours or WAL-G's that is named for ``segment``. Raises CorruptObject.

    ``claimed_bytes``: the segment size that our own documents name; WAL-G's prove it by name and start.
    ``is_vouched``: the sentinel has proven to be as it was written, so metadata.json cannot contradict it.
    """
    sizes = [claimed_bytes] if claimed_bytes else _sizes()
    if is_vouched or not _may_count(segment, details, sizes):
        details = JsonObject("", {})
    start, why = _agreed(("LSN", seal), ("start_lsn", details), "began")
    if start is None:
        return Place(segment_bytes=claimed_bytes, problem=why)
    fitting = _fitting(segment, start, sizes)
    proven = fitting[0] if len(fitting) == 1 else claimed_bytes
    if not fitting:
        why = f"its documents say that it began at {start}, which is not in the segment that it is named for"
        return Place(segment_bytes=proven, problem=why)
    stop, why = _agreed(("FinishLSN", seal), ("finish_lsn", details), "ended")
    if stop is None:
        return Place(start, segment_bytes=proven, problem=why)
    if not start <= stop <= start + MOST_WAL_BYTES:
        why = f"its documents say that it began at {start} and ended at {stop}, which cannot be"
        return Place(start, segment_bytes=proven, problem=why)
    return Place(start, stop, proven)


def _may_count(segment: str, details: JsonObject, sizes: list[int]) -> bool:
    """Whether metadata.json can be read, and is of a backup that began where the name says: then it must not differ."""
    try:
        start, _ = details.integer("start_lsn"), details.integer("finish_lsn")
    except CorruptObject:
        return False
    return start is None or bool(_fitting(segment, start, sizes))


def _agreed(in_seal: tuple[str, JsonObject], in_details: tuple[str, JsonObject], verb: str) -> tuple[Lsn | None, str]:
    """A position that the sentinel, or metadata.json, says; None when nobody does, or they differ, and the problem."""
    there, here = in_seal[1].integer(in_seal[0]), in_details[1].integer(in_details[0])
    if there is not None and here is not None and there != here:
        return None, f"its sentinel says that it {verb} at {Lsn(there)}, its metadata.json at {Lsn(here)}"
    found = there if there is not None else here
    return (None, f"its documents do not say at which LSN it {verb}") if found is None else (Lsn(found), "")


def _fitting(segment: str, start: int, sizes: list[int]) -> list[int]:
    """The segment sizes with which a name is that of the segment of an LSN. WAL-G on a standby names the one of the
    byte before."""
    timeline, places = int(segment[:8], 16), (start, max(start - 1, 0))
    return [z for z in sizes if any(str(SegmentName.containing(timeline, at, z)) == segment for at in places)]


def _sizes() -> list[int]:
    """Every wal_segment_size that there is."""
    size, sizes = MIN_SEGMENT_BYTES, []
    while size <= MAX_SEGMENT_BYTES:
        sizes.append(size)
        size *= 2
    return sizes


def wal_e_place(segment: str, offset: str, seal: JsonObject, size: int) -> Place:
    """The place of one of WAL-E's, whose name says where it began. Where the place in a segment cannot be read, the
    whole segment counts. ``size``: of the segments, which WAL-E does not note."""
    try:
        first = SegmentName.parse(segment, size)
    except ValueError as exc:
        return Place(problem=str(exc))
    start = Lsn(first.start + (_wal_e_offset(offset, size) or 0))
    name = seal.text(_WAL_E_SEGMENT)
    if not name:
        return Place(start, problem="its sentinel does not say in which segment it ended")
    wrong = Place(start, problem=f"it began in segment {first}, and its sentinel says that it ended in {name!r}")
    try:
        last = SegmentName.parse(name, size)
    except ValueError:
        return wrong
    # Of a segment's end the server names the segment that ends there, and 0 as the place in it.
    stop = last.start + (_wal_e_offset(seal.text(_WAL_E_OFFSET), size) or size)
    is_after = last.timeline == first.timeline and start < stop <= start + MOST_WAL_BYTES
    return Place(start, Lsn(stop)) if is_after else wrong


def is_while_offline(segment: str, offset: str, seal: JsonObject) -> bool:
    """Whether WAL-E noted one place twice, as far as it can be read: no backup of a running server does."""
    stop = seal.text(_WAL_E_OFFSET)
    return seal.text(_WAL_E_SEGMENT) == segment and (stop == offset or not _OFFSET.fullmatch(stop))


def _wal_e_offset(text: str, size: int) -> int | None:
    """WAL-E pads the offset in the segment with zeros, and writes it in decimal; None for what is no such place."""
    offset = int(text) if _OFFSET.fullmatch(text) else size
    return offset if offset < size else None
