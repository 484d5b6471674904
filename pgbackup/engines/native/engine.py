"""The engine that does everything itself, over the replication protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgbackup.config.settings import Settings
from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.retention import ExpiryPlan
from pgbackup.engines.backup.base_backup import BackupRequest, BackupResult, take_backup
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.server import ServerLook
from pgbackup.engines.port import BackupOrder
from pgbackup.engines.wal.push import WalFileToPush, push_wal_file
from pgbackup.engines.wal.read import WalReader
from pgbackup.engines.wal.shipping import NativeShipping
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore


@dataclass(frozen=True)
class NativeOptions:
    """``application_name``: of the connection of a base backup."""

    conninfo: str
    application_name: str
    hostname: str
    part_bytes: int = 256 << 20
    upload_concurrency: int = 4
    wal_concurrency: int = 4
    page_checksums: Literal["mark", "fail"] = "mark"


def native_engine(settings: Settings, codec: Codec, conninfo: str) -> NativeEngine:
    """The engine as the settings say."""
    options = NativeOptions(
        conninfo=conninfo,
        # Not the name of the WAL stream: the server would take this connection for the synchronous standby.
        application_name=f"{settings.application_name}-base",
        hostname=settings.host,
        part_bytes=settings.part_size,
        upload_concurrency=settings.upload_concurrency,
        wal_concurrency=settings.wal_upload_concurrency,
        page_checksums=settings.page_checksums,
    )
    return NativeEngine(codec, options)


class NativeEngine:
    """Implements the Engine port."""

    name = "native"

    def __init__(self, codec: Codec, options: NativeOptions) -> None:
        self._codec = codec
        self._options = options

    def shipping(self, store: ObjectStore) -> NativeShipping:
        return NativeShipping(store, self._codec, concurrency=self._options.wal_concurrency)

    def take_backup(self, order: BackupOrder, progress: ProgressSink, stop: StopSignal) -> BackupResult:
        options = self._options
        request = BackupRequest(
            store=order.store,
            codec=self._codec,
            conninfo=options.conninfo,
            application_name=options.application_name,
            wal=order.wal,
            hostname=options.hostname,
            label=order.label,
            permanent=order.permanent,
            part_bytes=options.part_bytes,
            upload_concurrency=options.upload_concurrency,
            max_rate=order.max_rate,
            page_checksums=options.page_checksums,
        )
        return take_backup(request, progress, stop)

    def push_file(self, store: ObjectStore, file: WalFileToPush) -> None:
        push_wal_file(store, self._codec, file)

    def wal_reader(self, store: ObjectStore, *, system_identifier: int | None) -> WalReader:
        return WalReader(store, self._codec, system_identifier=system_identifier)

    def fetch_files(self, backup: Backup, target: Path, threads: int) -> bool:
        return False

    def remove(self, plan: ExpiryPlan, catalog: Catalog) -> bool:
        return False

    def close(self) -> None:
        """Nothing is kept."""

    def check(self, report: CheckReport, found: ServerLook | None) -> None:
        """The server's checks say all that this engine needs."""
