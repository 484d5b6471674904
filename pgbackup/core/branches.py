"""Branches that do not fit together: what a repository holds beside the path of the server that we follow."""

from __future__ import annotations

from dataclasses import dataclass

from pgbackup.core.catalog import Catalog
from pgbackup.core.clusters import clusters_of
from pgbackup.core.lsn import Lsn
from pgbackup.core.timeline import TimelineHistory


@dataclass(frozen=True, slots=True)
class BranchProblem:
    """``text`` is for people; ``timeline`` the other branch; ``left_behind`` when it is an ancestor's WAL past our
    fork, else a newer timeline that leaves ours behind. ``chosen``: somebody had set the recovery target there."""

    timeline: int
    left_behind: bool
    text: str
    chosen: bool = False


def branch_problems(catalog: Catalog, history: TimelineHistory, position: Lsn) -> list[BranchProblem]:
    """What the operator must know before WAL of ``history``'s timeline, now at ``position``, is shipped.

    Two findings: WAL of an ancestor that lies past the fork (commits that this server does not have), and a newer
    timeline that forked off ours at or before our position (another server was promoted: we follow the old primary).
    What a cluster wrote before it was upgraded to ours says nothing of our timelines.
    """
    clusters = clusters_of(catalog)
    problems = []
    for timeline, _, fork in history.path():
        end = catalog.end_of_timeline(timeline)
        if fork is not None and end > fork:
            text = (
                f"the repository holds WAL of timeline {timeline} to {end}, past the fork at {fork}: "
                f"timeline {history.timeline} does not have what was committed there"
            )
            ended = next((each for each in history.ancestors if each.fork == fork), None)
            chosen = ended is not None and ended.was_chosen
            if ended is not None and chosen:
                text += f"; recovery was told to end there ({ended.reason})"
            problems.append(BranchProblem(timeline, True, text, chosen))
    for timeline, other in sorted(catalog.histories.items()):
        if timeline <= history.timeline or not other.includes(history.timeline):
            continue
        if clusters.of_timeline(catalog, timeline) < clusters.generation(position):
            continue
        fork = other.end_of(history.timeline)
        if fork is not None and fork <= position:
            text = (
                f"timeline {timeline} of the repository forked off at {fork}, and this server is on timeline "
                f"{history.timeline} at {position}: another server was promoted, this one is not the current primary"
            )
            problems.append(BranchProblem(timeline, False, text))
    return problems
