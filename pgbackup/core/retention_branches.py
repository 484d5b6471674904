"""Which timelines the window may still need: those on which somebody may have written within it.

A listing does not say when WAL was written; time marks, backups and the order of timelines do. A timeline counts as
over only when that is proven; whatever is in doubt stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.clusters import clusters_of
from pgbackup.core.retention_policy import time_of


def ended_timelines(catalog: Catalog, restorable: Sequence[Backup], cutoff: datetime) -> frozenset[int]:
    """The timelines of which no moment at or after ``cutoff`` can be in the repository.

    Nothing of it is known to be from the window, something else is newer, and either a backup of a later timeline had
    finished before the window began (the cluster had moved on), or its own time marks end before the window (whoever
    wrote it had stopped; marks are written as long as WAL moves). Every timeline of a cluster that was upgraded is
    later than those of the one before, whatever its number.
    """
    clusters = clusters_of(catalog)
    last_mark: dict[int, datetime] = {}
    for mark in catalog.marks:
        last_mark[mark.timeline] = max(mark.moment, last_mark.get(mark.timeline, mark.moment))
    last_sign = dict(last_mark)
    for backup in catalog.backups:
        moment = time_of(backup)
        last_sign[backup.timeline] = max(moment, last_sign.get(backup.timeline, moment))
    newest = max(last_sign.values(), default=None)
    before = (b for b in restorable if time_of(b) <= cutoff)
    moved_on_to = max(((clusters.generation(b.start_lsn), b.timeline) for b in before), default=(0, 0))
    ended = set()
    for timeline in catalog.timelines:
        sign = last_sign.get(timeline)
        if sign is not None and (sign >= cutoff or sign == newest):
            continue
        if (clusters.of_timeline(catalog, timeline), timeline) < moved_on_to or timeline in last_mark:
            ended.add(timeline)
    return frozenset(ended)


def is_known(catalog: Catalog, timeline: int) -> bool:
    """Whether it is known where a timeline comes from: without its history nothing can be said of its branch."""
    return timeline == 1 or timeline in catalog.histories
