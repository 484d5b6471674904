"""The port between engines and whoever runs them: what an engine is.

Everything that decides (schedules, retention, plans of a restore, health, alerts) is the same for every engine. An
engine moves bytes: WAL and base backups into the repository, and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.retention import ExpiryPlan
from pgbackup.engines.backup.base_backup import BackupResult
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.server import ServerLook
from pgbackup.engines.wal.coverage import WalCoverage
from pgbackup.engines.wal.port import WalShipping
from pgbackup.engines.wal.push import WalFileToPush
from pgbackup.engines.wal.read import WalReader
from pgbackup.storage.base import ObjectStore


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
