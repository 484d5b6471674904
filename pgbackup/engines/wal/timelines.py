"""Timelines in the repository: history files, and the claim that makes a timeline number belong to one branch.

Two branches can have the same timeline number and byte-identical history files but different WAL. So before the
first write on a new timeline, a claim is put if absent: where it forked off, and the CRC of its first bytes after the
fork. Whoever finds a claim with other first bytes is another branch and must not write here.
"""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime

from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import TimelineHistory, history_name, parse_history
from pgbackup.engines.wal.port import WalShipping
from pgbackup.errors import CorruptObject, PostgresError, WrongCluster
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.repository import keys
from pgbackup.repository.json_object import parse_object
from pgbackup.storage.base import ObjectStore

# The first record of a timeline (end of recovery, with its time and CRC) fits in this, page headers included.
CLAIM_BYTES = 96
_OTHER_BRANCH = "Another branch with this timeline number wrote here: give this server a prefix of its own."


def server_history(connection: ReplicationConnection, timeline: int) -> TimelineHistory:
    """The history of the server's timeline, from the server; timeline 1 has none."""
    if timeline == 1:
        return TimelineHistory(1)
    return parse_history(timeline, connection.timeline_history(timeline))


def truncated(history: TimelineHistory, timeline: int) -> TimelineHistory:
    """The history of one of its ancestors, or itself."""
    if timeline == history.timeline:
        return history
    timelines = [ancestor.timeline for ancestor in history.ancestors]
    return TimelineHistory(timeline, history.ancestors[: timelines.index(timeline)])


def store_histories(
    shipping: WalShipping, catalog: Catalog, connection: ReplicationConnection, history: TimelineHistory
) -> None:
    """Put the history files of the server's timeline and its ancestors, where absent.

    Raises WrongCluster when the repository holds another history for one of these timelines.
    """
    for timeline in [a.timeline for a in history.ancestors] + [history.timeline]:
        if timeline == 1:
            continue
        ours = truncated(history, timeline)
        known = catalog.histories.get(timeline)
        if known is not None:
            _same_history(known, ours)
            continue
        try:
            text = connection.timeline_history(timeline)
        except PostgresError:
            # The server may have dropped an ancestor's file; its own names the same forks.
            continue
        stored = shipping.put_history(history_name(timeline), text.encode())
        if stored is not None:
            _same_history(parse_history(timeline, stored.decode("utf-8", "replace")), ours)


def _same_history(known: TimelineHistory, ours: TimelineHistory) -> None:
    mine = [(a.timeline, a.fork) for a in ours.ancestors]
    theirs = [(a.timeline, a.fork) for a in known.ancestors]
    if mine != theirs:
        raise WrongCluster(
            f"the repository holds another history of timeline {ours.timeline}",
            detail=f"stored: {_forks(theirs)}; the server's: {_forks(mine)}",
            hint=_OTHER_BRANCH,
        )


def _forks(rows: list[tuple[int, Lsn]]) -> str:
    return ", ".join(f"{timeline} to {fork}" for timeline, fork in rows) or "no ancestor"


class TimelineClaim:
    """Claims one timeline with its first bytes; used by the thread that owns the stream."""

    def __init__(self, store: ObjectStore, history: TimelineHistory, segment_bytes: int, *, writer: str) -> None:
        self._store = store
        self._history = history
        self._writer = writer
        self._key = keys.timeline_claim(history.timeline)
        segment = SegmentName.containing(history.timeline, history.begin, segment_bytes)
        self._wanted = min(CLAIM_BYTES, segment.end - history.begin)
        self._first = bytearray()

    def offer(self, segment: SegmentName, offset: int, block: bytes) -> bool:
        """Look at bytes of the stream before they are used; True when the claim was made with them.

        Raises WrongCluster when the timeline belongs to another branch.
        """
        start = segment.start + offset
        have = self._history.begin + len(self._first)
        if start <= have < start + len(block):
            self._first += block[have - start :][: self._wanted - len(self._first)]
        if len(self._first) < self._wanted:
            return False
        self.make()
        return True

    def make(self) -> None:
        """Claim with the bytes seen so far. Raises WrongCluster when another branch has claimed the timeline."""
        parent = self._history.parent
        claim = {
            "format": 1,
            "timeline": self._history.timeline,
            "parent": parent.timeline if parent else None,
            "fork": str(self._history.begin),
            "first_bytes": len(self._first),
            "first_crc32": zlib.crc32(self._first),
            "writer": self._writer,
            "written": datetime.now(UTC).isoformat(),
        }
        if not self._store.put_if_absent(self._key, json.dumps(claim).encode()):
            self._compare(self._store.get(self._key))

    def _compare(self, stored: bytes) -> None:
        try:
            claim = parse_object(self._key, stored)
            fork, length, crc = Lsn.parse(claim["fork"]), int(claim["first_bytes"]), int(claim["first_crc32"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise CorruptObject(self._key, f"not a timeline claim ({exc})") from exc
        same_fork = fork == self._history.begin
        # Bytes that we did not receive this time (the stream began after them) cannot be compared.
        comparable = 0 < length <= len(self._first)
        if not same_fork or (comparable and zlib.crc32(self._first[:length]) != crc):
            raise WrongCluster(
                f"timeline {self._history.timeline} of the repository belongs to another branch",
                detail=f"claimed by {claim.get('writer')} with fork {fork}; ours forked at {self._history.begin}",
                hint=_OTHER_BRANCH,
            )
