"""The WAL of a recovery: which timeline path, and exactly one file for each segment of it.

Recovery takes whatever file it finds for a segment, from the newest timeline that has one. So a file of an older
timeline beside the right one, or an older timeline's tail past a fork, replays the other branch without a word. Hence:
each segment comes from the timeline that owns it; a tail counts only on the path's own timeline; and where the
segment of the last fork is missing on the new timeline, the parent's is used with zeros from the fork on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.clusters import clusters_of
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.recovery_refusals import all_unusable
from pgbackup.core.timeline import TimelineHistory, history_name
from pgbackup.errors import RestoreError

WalSource = Literal["segment", "tail", "cut"]


@dataclass(frozen=True, slots=True)
class WalFile:
    """A file that recovery will ask for. ``used_bytes`` of it come from the repository, the rest are zeros.

    ``source``: a whole segment, the assembled tail of an open one, or a parent's segment cut at the fork.
    """

    segment: SegmentName
    source: WalSource
    used_bytes: int

    @property
    def end(self) -> Lsn:
        return Lsn(self.segment.start + self.used_bytes)


@dataclass(frozen=True, slots=True)
class WalPath:
    """The files from a start to ``end`` without a hole; ``missing`` is the segment at which the row breaks off."""

    files: tuple[WalFile, ...]
    end: Lsn
    missing: SegmentName | None


@dataclass(frozen=True, slots=True)
class Branch:
    """A timeline of the repository: where it left its parent, and where its last byte of WAL ends."""

    timeline: int
    parent: int | None
    fork: Lsn
    end: Lsn


def wal_path(catalog: Catalog, start: Lsn, history: TimelineHistory, until: Lsn | None = None) -> WalPath:
    """The files that hold WAL from the segment of ``start``, to ``until`` or as far as it goes, along a path."""
    size = catalog.segment_bytes
    files: list[WalFile] = []
    number = start // size
    end = Lsn(number * size)
    while until is None or end < until:
        segment = history.segment_for(number, size)
        if not catalog.has(segment):
            last = _last_file(catalog, history, segment)
            if last is not None:
                files.append(last)
                end = last.end
            return WalPath(tuple(files), end, segment)
        files.append(WalFile(segment, "segment", size))
        number += 1
        end = segment.end
    return WalPath(tuple(files), end, None)


def _last_file(catalog: Catalog, history: TimelineHistory, segment: SegmentName) -> WalFile | None:
    """What stands in for a segment that is not whole: its tail, or its parent's up to the fork."""
    if segment.timeline != history.timeline:
        return None
    tail = catalog.tails.get(segment, 0)
    fork = history.begin - segment.start
    if max(tail, 0) < fork < segment.segment_bytes:
        older = SegmentName(history.forked_from, segment.number, segment.segment_bytes)
        if catalog.has(older) or catalog.tails.get(older, 0) >= fork:
            return WalFile(older, "cut", fork)
    return WalFile(segment, "tail", tail) if tail else None


def choose_history(
    catalog: Catalog, backup: Backup | None, timeline: int | None, default_timeline: int | None
) -> TimelineHistory:
    """The path to recover along: ``timeline`` as the operator asked, else ``default_timeline``, the last written one.

    Without either, the newest timeline with WAL (of the last cluster, where an upgraded one follows another); with a
    backup that is not on that, the newest that the backup is on.
    A timeline whose history file is not there is never passed over for an older one: that would recover the branch that
    was left, without a word. Raises RestoreError for it, for a timeline that is not there, or that leaves the backup
    aside.
    """
    if timeline is not None:
        return _asked_history(catalog, backup, timeline)
    clusters = clusters_of(catalog)
    with_wal = [t for t in catalog.leaf_timelines() if _has_wal(catalog, t)]
    with_wal.sort(key=lambda t: (clusters.of_timeline(catalog, t), t), reverse=True)
    wanted = [t for t in (default_timeline,) if t in with_wal] + with_wal
    if not wanted and catalog.backups:
        raise all_unusable(catalog)
    if not wanted:
        raise RestoreError("the repository holds no backup and no WAL", hint="Check PGBACKUP_REPOSITORY.")
    for candidate in wanted:
        if not _has_history(catalog, candidate):
            return _asked_history(catalog, backup, candidate)
        history = catalog.history(candidate)
        if backup is None or is_on(backup, history):
            return history
    return _asked_history(catalog, backup, wanted[0])


def _asked_history(catalog: Catalog, backup: Backup | None, timeline: int) -> TimelineHistory:
    if timeline not in catalog.timelines:
        known = ", ".join(map(str, catalog.timelines)) or "none"
        raise RestoreError(f"the repository has no timeline {timeline}", hint=f"It has these timelines: {known}.")
    if not _has_history(catalog, timeline):
        raise RestoreError(
            f"{history_name(timeline)} is not in the repository, or damaged",
            detail=f"without it nobody knows how timeline {timeline} came about, and Postgres refuses it as a target",
            hint="Store that file from the server's pg_wal with `pgbackup wal-push`, or choose another --timeline.",
        )
    history = catalog.history(timeline)
    if backup is not None and not is_on(backup, history):
        raise RestoreError(
            f"timeline {timeline} is not a child of timeline {backup.timeline} at {backup.stop_lsn}, "
            f"where backup {backup.name} ends",
            hint="Choose a backup on the path of that timeline, or leave out --timeline.",
        )
    return history


def is_on(backup: Backup, history: TimelineHistory) -> bool:
    """Whether a backup, to its end, is part of a path."""
    return history.holds(backup.timeline, backup.stop_lsn)


def branches(catalog: Catalog) -> list[Branch]:
    """Every timeline of the repository."""
    return [_branch(catalog, timeline) for timeline in catalog.timelines]


def other_branches(catalog: Catalog, history: TimelineHistory) -> list[Branch]:
    """Timelines whose WAL a recovery along ``history`` leaves out, wholly or past a fork."""
    found = []
    for branch in branches(catalog):
        if branch.timeline == history.timeline:
            continue
        left_at = history.end_of(branch.timeline) if history.includes(branch.timeline) else branch.fork
        if left_at is not None and branch.end > left_at:
            found.append(branch)
    return found


def _branch(catalog: Catalog, timeline: int) -> Branch:
    history = catalog.history(timeline)
    ends = [segment.start + tail for segment, tail in catalog.tails.items() if segment.timeline == timeline]
    numbers = catalog.segments.get(timeline, ())
    if numbers:
        ends.append((numbers[-1] + 1) * catalog.segment_bytes)
    parent = history.parent.timeline if history.parent else None
    return Branch(timeline, parent, history.begin, Lsn(max([*ends, history.begin])))


def _has_wal(catalog: Catalog, timeline: int) -> bool:
    """Whether anything can be recovered along a timeline, or could with what is missing of it. Of a damaged backup not
    even the timeline is certain."""
    return bool(
        catalog.segments.get(timeline)
        or any(segment.timeline == timeline for segment in catalog.tails)
        or any(backup.timeline == timeline and not backup.problem for backup in catalog.backups)
    )


def _has_history(catalog: Catalog, timeline: int) -> bool:
    return not catalog.lacks_history(timeline)
