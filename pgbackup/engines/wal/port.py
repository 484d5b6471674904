"""The ports between who receives WAL and who stores it: how WAL is shipped, by whatever engine.

WAL is received in one way only, by streaming; an engine says how its bytes get into the repository.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.events import WakeableQueue
from pgbackup.engines.wal.segment import Piece
from pgbackup.engines.wal.upload_stats import UploadStats

Upload = TypeVar("Upload")


class SegmentUploads(Protocol[Upload]):
    """The uploads of one streaming session; ``Upload`` is one segment on its way.

    Called by the thread that owns the stream, never blocking for long. What became durable, and what failed, goes to
    the queue that the uploads were opened with: nothing else lets a position be confirmed.
    """

    @property
    def has_room(self) -> bool:
        """Whether more WAL may be read from the socket: what waits here is bounded."""

    def oldest_job_seconds(self) -> float:
        """For how long the oldest piece of work for the store has been under way; 0 without one."""

    def open(self, name: SegmentName, known_pieces: list[str], *, is_stored: bool = False) -> Upload:
        """Begin with a segment; ``known_pieces``: keys of the pieces of it that are stored. ``is_stored``: it was
        listed as a whole, under whatever compression."""

    def feed(self, upload: Upload, block: bytes) -> None:
        """The next bytes of the segment."""

    def end(self, upload: Upload) -> None:
        """The segment is complete: make it durable."""

    def put_piece(self, upload: Upload, piece: Piece) -> Future[None]:
        """Make a piece of the open segment durable; never called where ``ships_pieces`` is false."""

    def probe(self) -> Future[None]:
        """Ask the store anything, to tell a slow one from a dead one."""

    def run_quietly(self, work: Callable[[], None]) -> Future[None]:
        """Run something small beside the uploads; the caller looks at the future."""

    def close(self) -> None:
        """Forget everything that is not durable."""


class WalShipping(Protocol):
    """How WAL gets into the repository: invariants 1 and 4 are this port's contract.

    A segment or history is durable, and listed, before it is called so. Nothing is overwritten: the same content is
    success, other content raises WrongCluster.
    """

    @property
    def ships_pieces(self) -> bool:
        """Whether the open segment is shipped as it grows; without, up to a segment can be lost."""

    def open_uploads(
        self, events: WakeableQueue, stats: UploadStats, before_confirming: Callable[[], None]
    ) -> SegmentUploads[Any]:
        """The uploads of one session. ``before_confirming`` is called after each put, before anything is called
        durable; it raises where that must not be."""

    def put_history(self, name: str, content: bytes) -> bytes | None:
        """Store a history file. None: it is there now; otherwise the other content that was there."""
