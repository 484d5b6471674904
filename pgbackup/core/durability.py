"""How old the WAL is that could be lost, and the newest moment that could be recovered: from positions and samples."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.core.catalog import Catalog
from pgbackup.core.health import durable_end
from pgbackup.core.health_facts import ServerView
from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_clock import WalClock


@dataclass(frozen=True, slots=True)
class Durability:
    """``wal_age``: how old the oldest byte that is not durable may be, None when unknown; ``moment``: the newest moment
    of the server's clock all of whose WAL is durable. ``behind_for``: how old it is at least, by what we saw."""

    wal_age: timedelta | None
    moment: datetime | None
    behind_for: timedelta | None = None


def durability(catalog: Catalog, server: ServerView | None, clock: WalClock, now: datetime) -> Durability:
    """Judge by the samples of ``clock`` (of our time), else by the time marks in the repository.

    ``now`` is our time. Without a server nothing is known of what is missing, only what the marks prove is there.
    """
    timeline = server.timeline if server else max(catalog.timelines, default=1)
    end = durable_end(catalog, timeline)
    if end is None:
        return Durability(None, None)
    ahead = server.clock - server.looked if server else timedelta(0)
    marked = _newest_mark(catalog, timeline, end, now + ahead)
    if server is None:
        return Durability(None, marked)
    if end >= server.position:
        return Durability(timedelta(0), server.clock)
    sampled = clock.reached(end)
    moments = [moment for moment in (marked, sampled + ahead if sampled else None) if moment is not None]
    passed = clock.passed(end)
    behind_for = max(now - passed, timedelta(0)) if passed else None
    if not moments:
        return Durability(None, None, behind_for)
    moment = max(moments)
    return Durability(max(now + ahead - moment, timedelta(0)), moment, behind_for)


def _newest_mark(catalog: Catalog, timeline: int, end: Lsn, now: datetime) -> datetime | None:
    """The moment of the last mark before ``end``: last in WAL. One that was set while the server's clock was ahead
    would otherwise be the newest until that time has come, and nothing that is missing would grow old."""
    history = catalog.history(timeline)
    found = [m for m in catalog.marks if m.lsn <= end and m.moment <= now and history.holds(m.timeline, m.lsn)]
    return max(found, key=lambda m: (m.lsn, m.moment)).moment if found else None
