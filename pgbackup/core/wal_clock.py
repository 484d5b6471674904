"""When the server's WAL had reached which position: what turns a durable LSN into a moment and into an age.

Samples are noted about once a second while WAL moves. An age taken from them is an upper bound: the oldest byte that is
not durable was written after the newest sample that is.

Memory: at most ``_MOST_SAMPLES`` samples; when there are more, every second one of the older half goes, so a position
of days ago is known to minutes and one of this minute to a second.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta

from pgbackup.core.lsn import Lsn

_MOST_SAMPLES = 4096
_AT_ONCE = timedelta(minutes=1)
"""Two who sample at the same time may come in the other order; further back it is the clock that was set."""


class WalClock:
    """Samples (moment, LSN) of one timeline path, in order of both; ``moment`` is aware and of one clock.

    Two bring samples: ``note`` what the server was just asked, ``heard`` what the stream was last told. A stream that
    is told nothing any more does not say that nothing is written: only news of it counts.
    """

    def __init__(self) -> None:
        self._moments: list[datetime] = []
        self._lsns: list[Lsn] = []
        self._no_news: datetime | None = None
        """When the stream was last as far as the newest sample, should news show that it was not deaf."""

    def note(self, moment: datetime, lsn: Lsn) -> None:
        """At ``moment`` the server's WAL ended at ``lsn``.

        A position that went back (another server, a restored one) or a clock that did starts anew: what was known
        before says nothing about what comes.
        """
        if self._moments and moment < self._moments[-1] <= moment + _AT_ONCE:
            self._forget_after(moment)
        if self._moments and (lsn < self._lsns[-1] or moment < self._moments[-1]):
            self._moments.clear()
            self._lsns.clear()
        self._add(moment, lsn)

    def heard(self, moment: datetime, lsn: Lsn) -> None:
        """The stream knew at ``moment`` that the server's WAL went to ``lsn`` at least."""
        if not self._moments:
            self._add(moment, lsn)
        elif moment < self._moments[-1] or lsn < self._lsns[-1]:
            return
        elif lsn == self._lsns[-1]:
            self._no_news = moment
        else:
            if self._no_news is not None and self._no_news >= self._moments[-1]:
                self._add(self._no_news, self._lsns[-1])
            self._add(moment, lsn)

    def _add(self, moment: datetime, lsn: Lsn) -> None:
        self._no_news = None
        if len(self._lsns) > 1 and self._lsns[-1] == lsn == self._lsns[-2]:
            self._moments[-1] = moment
            return
        self._moments.append(moment)
        self._lsns.append(lsn)
        if len(self._lsns) > _MOST_SAMPLES:
            self._thin()

    def _forget_after(self, moment: datetime) -> None:
        while self._moments and self._moments[-1] > moment:
            self._moments.pop()
            self._lsns.pop()

    def reached(self, durable: Lsn) -> datetime | None:
        """The newest sampled moment at which all WAL there was lies before ``durable``; None: before every sample."""
        found = bisect_right(self._lsns, durable)
        return self._moments[found - 1] if found else None

    def passed(self, durable: Lsn) -> datetime | None:
        """The oldest sampled moment at which there was WAL after ``durable``; None: no sample shows any."""
        found = bisect_right(self._lsns, durable)
        return self._moments[found] if found < len(self._moments) else None

    def age(self, durable: Lsn, now: datetime) -> timedelta | None:
        """How old the oldest byte after ``durable`` may be at most; zero when nothing is known after it.

        None when there is such a byte and no sample is old enough to say when it came.
        """
        if self.passed(durable) is None:
            return timedelta(0)
        moment = self.reached(durable)
        return None if moment is None else max(now - moment, timedelta(0))

    def _thin(self) -> None:
        half = len(self._lsns) // 2
        self._moments[:half] = self._moments[:half:2]
        self._lsns[:half] = self._lsns[:half:2]
