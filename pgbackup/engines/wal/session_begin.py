"""What a streaming session is told at its beginning: how to behave, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.timelines import TimelineClaim


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
    later timeline by now."""

    segment: SegmentName
    claim: TimelineClaim | None = None
    with_pieces: frozenset[SegmentName] = frozenset()
    whole: frozenset[SegmentName] = frozenset()
    historic: bool = False
