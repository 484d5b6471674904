"""Clusters that follow each other in one prefix: what WAL-G leaves there when the server is upgraded by pg_upgrade.

The upgraded server has another system identifier and begins on timeline 1 again, and its WAL begins in a segment after
the last of the old one (pg_upgrade tells pg_resetwal so). Hence they are told apart by positions: what lies at or after
the first backup of the later cluster is the later one's. Where times or positions overlap, several clusters write to
one place, and nobody knows whose WAL a name means.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn
from pgbackup.core.retention_policy import time_of


@dataclass(frozen=True, slots=True)
class Clusters:
    """``identifiers``: the clusters of the backups, oldest first; ``begins``: where each but the first begins.

    ``mixed`` says why they do not follow each other (empty: they do); then nothing else here means anything.
    """

    identifiers: tuple[int, ...] = ()
    begins: tuple[Lsn, ...] = ()
    mixed: str = ""

    def generation(self, position: int) -> int:
        """Which of them, from 0, a position belongs to."""
        return bisect_right(self.begins, position)

    def of_timeline(self, catalog: Catalog, timeline: int) -> int:
        """Which of them, from 0, has written to a timeline last."""
        return self.generation(_last_position(catalog, timeline))


def clusters_of(catalog: Catalog) -> Clusters:
    """The clusters that the backups of a repository name; backups that name none belong to any."""
    known = sorted((b for b in catalog.backups if b.system_identifier), key=lambda b: (time_of(b), b.name))
    turns: list[list[Backup]] = []
    for backup in known:
        if turns and turns[-1][0].system_identifier == backup.system_identifier:
            turns[-1].append(backup)
        else:
            turns.append([backup])
    identifiers = tuple(turn[0].system_identifier for turn in turns)
    if len(set(identifiers)) < len(identifiers):
        return Clusters(tuple(sorted(set(identifiers))), mixed="backups of one were made between those of another")
    begins = []
    for before, after in pairwise(turns):
        end, begin = max(max(b.start_lsn, b.stop_lsn) for b in before), _begin(after)
        if begin is None or begin < end:
            why = f"{after[0].system_identifier} begins at {begin or 'an unknown place'}, before the end of the other"
            return Clusters(identifiers, mixed=f"{why}, {end}: their WAL has the same names")
        begins.append(begin)
    return Clusters(identifiers, tuple(begins))


def _begin(backups: Sequence[Backup]) -> Lsn | None:
    return min((b.start_lsn for b in backups if b.start_lsn), default=None)


def _last_position(catalog: Catalog, timeline: int) -> Lsn:
    """The last position of a timeline that anything in the repository shows."""
    found = [catalog.history(timeline).begin, catalog.end_of_timeline(timeline)]
    found += [max(b.start_lsn, b.stop_lsn) for b in catalog.backups if b.timeline == timeline]
    return Lsn(max(found))
