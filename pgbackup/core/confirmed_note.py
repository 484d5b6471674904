"""The note of how far WAL had been confirmed as durable, and which of two notes holds.

A restore refuses to end before it (hazard: a listing does not prove the end of WAL), so one that came late must not
take back what a later one said: neither one of this process (its request was slow), nor of one that was killed, nor of
a base backup by hand beside the resident, which streams for itself and is a little behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.lsn import Lsn


@dataclass(frozen=True, slots=True)
class ConfirmedNote:
    """WAL of ``timeline`` was durable to ``confirmed``; ``written``: when that was noted (aware), None: not known."""

    timeline: int
    confirmed: Lsn
    written: datetime | None = None

    def holds_against(self, stored: ConfirmedNote | None, *, leads: bool) -> bool:
        """Whether it should be stored instead of what is.

        On one timeline the end only grows. A newer timeline replaces an older one; an older one a newer one only where
        the writer ``leads`` (the lease is its own: the branch was given up), and with a note that was made later.
        """
        if stored is None or self.timeline > stored.timeline:
            return True
        if self.timeline == stored.timeline:
            return self.confirmed > stored.confirmed
        if not leads or self.written is None:
            return False
        return stored.written is None or self.written > stored.written
