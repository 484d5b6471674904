"""Which WAL expiries have removed, as they wrote down.

A hole that begins there is no loss, also where a backup that had been left with no more WAL than makes it consistent is
wanted again: the retention was widened, a deletion for once had kept less, the newest backup was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pgbackup.core.lsn import SegmentName
from pgbackup.core.wal_holes import joined


@dataclass(frozen=True, slots=True)
class RemovedWal:
    """``ranges``: timeline -> segment numbers ``[begin, end)``, in order, of which none touches the next."""

    ranges: Mapping[int, list[tuple[int, int]]] = field(default_factory=dict)

    def holds(self, segment: SegmentName) -> bool:
        return any(begin <= segment.number < end for begin, end in self.ranges.get(segment.timeline, ()))

    def and_also(self, more: Iterable[tuple[int, int, int]]) -> RemovedWal:
        """With more of it: (timeline, begin, end)."""
        ranges = {timeline: list(rows) for timeline, rows in self.ranges.items()}
        for timeline, begin, end in more:
            ranges.setdefault(timeline, []).append((begin, end))
        return RemovedWal({timeline: joined(rows) for timeline, rows in ranges.items()})
