"""Which LSN may be confirmed to Postgres: the end of what is durable without a hole.

This is the only place that computes a position to confirm. Uploads finish in any order; each durable range is added
when the store has acknowledged it, and the confirmed LSN is the end of the run of durable bytes that begins at the
start of streaming. A failed upload adds nothing, so it can never move the position (the case that one well-known
peer gets wrong: it confirms on receipt).
"""

from __future__ import annotations

from pgbackup.core.lsn import Lsn


class Acks:
    """Durable ranges of one streaming session, which began at ``start``."""

    def __init__(self, start: Lsn) -> None:
        self._start = start
        self._confirmed = start
        self._waiting: dict[int, int] = {}

    @property
    def confirmed(self) -> Lsn:
        """Everything from the start of the session to here is durable."""
        return self._confirmed

    @property
    def reportable(self) -> Lsn:
        """What to tell Postgres: the confirmed LSN, or 0/0 ("unknown") until this session has made a byte durable.

        A physical slot takes over any position that it is told, backwards too, so the start itself is never told.
        """
        return self._confirmed if self._confirmed > self._start else Lsn(0)

    def add(self, start: int, end: int) -> bool:
        """Record that the store holds ``[start, end)``. Returns whether the confirmed LSN moved.

        Ranges may overlap, repeat and come in any order. Raises ValueError for an empty or reversed range.
        """
        if end <= start:
            raise ValueError(f"not a range: {Lsn(start)} to {Lsn(end)}")
        before = self._confirmed
        self._waiting[start] = max(end, self._waiting.get(start, 0))
        moved = True
        while moved:
            moved = False
            for first in sorted(self._waiting):
                if first > self._confirmed:
                    break
                last = self._waiting.pop(first)
                if last > self._confirmed:
                    self._confirmed = Lsn(last)
                    moved = True
        return self._confirmed > before

    @property
    def holes_bytes(self) -> int:
        """Bytes that are durable but not yet confirmed, because something before them is not durable."""
        return sum(end - start for start, end in self._waiting.items())
