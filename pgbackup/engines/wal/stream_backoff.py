"""How long the WAL stream waits before its next session: the longer, the more of them failed without getting on.

A session ends with an error whatever it was like before, also after weeks. One that got on makes what failed before it
history; else the first hiccup after a handful of them would cost as much as the tenth in a row, and commits that wait
for the repository wait all that time. That it began proves nothing: where the store takes nothing each one begins.
"""

from __future__ import annotations

import random

from pgbackup.core.lsn import Lsn
from pgbackup.engines.wal.progress import WalPosition

_FIRST_SECONDS = 0.5
_LAST_SECONDS = 10.0
_FIRST_PERMANENT_SECONDS = 2.0
"""A container beside a new server is there before its role is."""
_LAST_PERMANENT_SECONDS = 60.0


class StreamBackoff:
    """For the streaming thread."""

    def __init__(self) -> None:
        self._failures = 0
        self._refusals = 0
        self._most_confirmed = Lsn(0)

    def forget(self) -> None:
        """All is well: the next failure is the first."""
        self._failures = self._refusals = 0

    def got_on(self, position: WalPosition) -> bool:
        """Whether the session that ended at ``position`` shipped what none before it had, or all there was."""
        further = position.confirmed > self._most_confirmed
        self._most_confirmed = max(self._most_confirmed, position.confirmed)
        return position.streaming and (further or 0 < position.server_end <= position.confirmed)

    def pause(self, *, permanent: bool) -> float:
        """One more has failed. Returns the seconds to wait, which differ a little from process to process."""
        self._failures += 1
        if permanent:
            self._refusals += 1
            return _doubled(_FIRST_PERMANENT_SECONDS, self._refusals, _LAST_PERMANENT_SECONDS)
        return _doubled(_FIRST_SECONDS, self._failures, _LAST_SECONDS) * random.uniform(0.7, 1.3)  # noqa: S311 - jitter


def _doubled(first: float, times: int, last: float) -> float:
    return float(min(first * 2 ** min(times - 1, 10), last))
