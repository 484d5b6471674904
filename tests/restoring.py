"""A repository to restore from, and the servers that come out of it."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.core.recovery_target import Target
from pgbackup.engines.restore.restore import Restore, RestoreRequest, RestoreResult
from pgbackup.errors import PgbackupError
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from tests.archiving import Archiver
from tests.fix_postgres import ServerFactory

SETTINGS = {"wal_keep_size": "1GB", "max_prepared_transactions": 5}


class Repository:
    """A store, a codec, and restores out of them."""

    def __init__(self, factory: ServerFactory, codec: Codec | None = None, store: ObjectStore | None = None) -> None:
        self.factory = factory
        self.store = store if store is not None else MemoryStore()
        self.codec = codec or Codec(Compression("zstd", 1))
        self.archiver = Archiver(factory, self.store, self.codec)
        self._count = 0

    def prepare(self, target: Target | None = None, *, directory: Path | None = None, **options: Any) -> Restore:
        """A restore into a new directory that belongs to the servers' account."""
        self._count += 1
        directory = directory or self.factory.new_directory(f"restored-{self._count}")
        request = RestoreRequest(directory=directory, target=target or Target(), **options)
        return Restore(self.store, self.codec, read_catalog(self.store, self.codec), request)

    def restore(self, target: Target | None = None, **options: Any) -> RestoreResult:
        restore = self.prepare(target, **options)
        return restore.run(restore.plan())

    def recovered(
        self, target: Target | None = None, *, major: int, settings: Any = None, **options: Any
    ) -> ThrowawayServer:
        """A server that has recovered to the target and was promoted."""
        result = self.restore(target, **options)
        server = self.factory.over(result.directory, major, settings=settings)
        server.wait_promoted()
        return server


def insert(server: ThrowawayServer, n: int) -> tuple[datetime, Lsn, int]:
    """Insert one row; returns a time and an LSN after its commit, and its transaction."""
    xid = server.execute(f"INSERT INTO t VALUES ({n}) RETURNING pg_current_xact_id()::text::bigint")[0][0]
    time.sleep(0.02)
    moment, lsn = server.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")[0]
    time.sleep(0.02)
    return moment, Lsn.parse(lsn), xid


def rows(server: ThrowawayServer) -> list[int]:
    return [n for (n,) in server.execute("SELECT n FROM t ORDER BY n")]


def timeline(server: ThrowawayServer) -> int:
    return int(server.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)


def filled(repository: Repository, source: ThrowawayServer) -> Repository:
    repository.archiver.backup(source)
    for n in (1, 2):
        insert(source, n)
        source.execute("SELECT pg_switch_wal()")
    insert(source, 3)
    repository.archiver.wal(source)
    return repository


def assert_does_not_start(directory: Path, source: ThrowawayServer, repository: Repository) -> None:
    assert not (directory / "global" / "pg_control").exists()
    server = repository.factory.over(directory, source.major, start=False)
    with pytest.raises(PgbackupError):
        server.start()
