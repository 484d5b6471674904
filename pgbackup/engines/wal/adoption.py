"""A restored copy must not write into the prefix of the cluster it was restored from, unless it is meant to.

A copy begins a new timeline. When the prefix has a lease of another host, and that host still works, or this server
was set up by `pgbackup restore`, the operator has to say which one goes on here.
"""

from __future__ import annotations

from pgbackup.core.catalog import Catalog
from pgbackup.core.timeline import TimelineHistory
from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import WrongCluster

RESTORE_MARKS = ("pgbackup_wal", "pgbackup wal-fetch")


def check_adoption(
    lease: Lease, catalog: Catalog, history: TimelineHistory, host: str, restore_command: str, *, adopt: bool
) -> None:
    """Raise WrongCluster when this server may be a copy that was started by accident with the original's settings."""
    if adopt or history.timeline == 1 or history.timeline in catalog.timelines:
        return
    stored = lease.read()
    if stored is None:
        return
    document = stored[0]
    if lease.is_ours(document) or document.host == host:
        return
    restored = any(mark in restore_command for mark in RESTORE_MARKS)
    if restored or lease.is_alive(document):
        raise WrongCluster(
            f"timeline {history.timeline} is new here, and the prefix belongs to {document.host}",
            detail="the server was restored by pgbackup" if restored else "that host is still writing",
            hint="Set PGBACKUP_ADOPT=yes if this server replaces the old one; otherwise give it a prefix of its own.",
        )
