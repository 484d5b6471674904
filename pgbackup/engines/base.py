"""The ports between engines and whoever runs them: what long work shows and obeys, and what an engine is.

WAL is received in one way only, by streaming, and everything that decides (schedules, retention, plans of a restore,
health, alerts) is the same for every engine. An engine moves bytes: WAL and base backups into the repository, and back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pgbackup.core.lsn import SegmentName
from pgbackup.core.stop import StopSignal

if TYPE_CHECKING:
    from pathlib import Path

    from pgbackup.core.catalog import Backup, Catalog
    from pgbackup.core.retention import ExpiryPlan
    from pgbackup.engines.native.base_backup import BackupResult
    from pgbackup.engines.native.check_report import CheckReport
    from pgbackup.engines.native.check_server import ServerLook
    from pgbackup.engines.native.upload_stats import UploadStats
    from pgbackup.engines.native.wal_coverage import WalCoverage
    from pgbackup.engines.native.wal_events import WakeableQueue
    from pgbackup.engines.native.wal_push import WalFileToPush
    from pgbackup.engines.native.wal_read import WalReader
    from pgbackup.engines.native.wal_segment import Piece
    from pgbackup.storage.base import ObjectStore

__all__ = ["BackupOrder", "Engine", "ProgressSink", "SegmentUploads", "SilentProgress", "StopSignal", "WalShipping"]

Upload = TypeVar("Upload")


class ProgressSink(Protocol):
    """Receives the progress of one long piece of work; calls come from any thread."""

    def start(self, what: str, total_bytes: int | None) -> None:
        """Work begins; ``total_bytes`` is an estimate, or None when nobody knows."""

    def advance(self, done_bytes: int) -> None:
        """``done_bytes`` more are done."""

    def finish(self) -> None:
        """Work ended, well or not."""


class SilentProgress:
    """A sink for callers that show nothing."""

    def start(self, what: str, total_bytes: int | None) -> None: ...

    def advance(self, done_bytes: int) -> None: ...

    def finish(self) -> None: ...


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

    def open(self, name: SegmentName, known_pieces: list[str]) -> Upload:
        """Begin with a segment; ``known_pieces``: keys of the pieces of it that are stored."""

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

    def open_uploads(self, events: WakeableQueue, stats: UploadStats) -> SegmentUploads[Any]:
        """The uploads of one session."""

    def put_history(self, name: str, content: bytes) -> bytes | None:
        """Store a history file. None: it is there now; otherwise the other content that was there."""


@dataclass(frozen=True)
class BackupOrder:
    """One base backup: where to, who sees to its WAL, and what the operator says of it.

    ``max_rate``: bytes per second read from the server.
    """

    store: ObjectStore
    wal: WalCoverage
    label: str = ""
    permanent: bool = False
    max_rate: int | None = None


class Engine(Protocol):
    """Moves backups and WAL between a server, a repository and a directory. Safe for several threads.

    One suite (tests/contracts/engine.py) runs on every engine.
    """

    @property
    def name(self) -> str:
        """``native``, ``wal-e`` or ``wal-g``."""

    def shipping(self, store: ObjectStore) -> WalShipping:
        """How WAL gets into the repository; one for the life of a process."""

    def take_backup(self, order: BackupOrder, progress: ProgressSink, stop: StopSignal) -> BackupResult:
        """One base backup. It is done when its WAL is in the repository (invariant 3).

        Raises BackupError, ToolError, PostgresError, StorageError, WrongCluster, ConfigError.
        """

    def push_file(self, store: ObjectStore, file: WalFileToPush) -> None:
        """Make one WAL file durable that ``archive_command`` names. Raises WrongCluster, ToolError, StorageError."""

    def wal_reader(self, store: ObjectStore, *, system_identifier: int | None) -> WalReader:
        """Reads WAL out of the repository."""

    def fetch_files(self, backup: Backup, target: Path, threads: int) -> bool:
        """Put the files of a backup into ``target``, an empty directory. False: the caller unpacks the objects itself,
        which is the native way. Raises ToolError, RestoreError."""

    def remove(self, plan: ExpiryPlan, catalog: Catalog) -> bool:
        """Remove what a plan removes by the engine's own means, if these can express exactly that; False otherwise.

        The seals are gone already, and whoever calls removes what is left, and looks what else is gone.
        """

    def close(self) -> None:
        """Give back what it keeps on this machine."""

    def check(self, report: CheckReport, found: ServerLook | None) -> None:
        """Add lines about what this engine needs of this machine and of the server (None: it did not answer)."""
