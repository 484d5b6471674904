"""Branches that do not fit together: what a repository holds beside the path of the server that we follow."""

from __future__ import annotations

from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn
from pgbackup.core.timeline import TimelineHistory


def branch_problems(catalog: Catalog, history: TimelineHistory, position: Lsn) -> list[str]:
    """What the operator must know before WAL of ``history``'s timeline, now at ``position``, is shipped; for people.

    Two findings: WAL of an ancestor that lies past the fork (commits that this server does not have), and a newer
    timeline that forked off ours at or before our position (another server was promoted: we follow the old primary).
    """
    problems = []
    for ancestor in history.ancestors:
        end = _end_of_timeline(catalog, ancestor.timeline)
        if end > ancestor.fork:
            problems.append(
                f"the repository holds WAL of timeline {ancestor.timeline} to {end}, past the fork at {ancestor.fork}: "
                f"timeline {history.timeline} does not have what was committed there"
            )
    for timeline, other in sorted(catalog.histories.items()):
        if timeline <= history.timeline or not other.includes(history.timeline):
            continue
        fork = other.end_of(history.timeline)
        if fork is not None and fork <= position:
            problems.append(
                f"timeline {timeline} of the repository forked off at {fork}, and this server is on timeline "
                f"{history.timeline} at {position}: another server was promoted, this one is not the current primary"
            )
    return problems


def _end_of_timeline(catalog: Catalog, timeline: int) -> Lsn:
    """The end of the last byte stored for a timeline."""
    ends = [segment.start + end for segment, end in catalog.tails.items() if segment.timeline == timeline]
    numbers = catalog.segments.get(timeline, ())
    if numbers:
        ends.append((numbers[-1] + 1) * catalog.segment_bytes)
    return Lsn(max(ends, default=0))
