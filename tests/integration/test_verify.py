"""Verification of what real servers and the real engines put into a repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgbackup.engines.base import SilentProgress
from pgbackup.engines.verify.report import VerifyReport
from pgbackup.engines.verify.verify import WalScope, choose_backup, verify_backup
from pgbackup.engines.wal.push import push_wal_file
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.manifest import iter_manifest
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from tests.archiving import Archiver
from tests.base_backups import ZSTD, take
from tests.fix_postgres import ServerFactory
from tests.streaming import flush_lsn, streaming

SECRET = Codec(Compression("lz4"), bytes(range(32)))


def verify(store: ObjectStore, codec: Codec = ZSTD, *, wal: WalScope = "all") -> VerifyReport:
    catalog = read_catalog(store, codec)
    backup = choose_backup(catalog, None)
    return verify_backup(store, codec, catalog, backup, progress=SilentProgress(), wal=wal)


def objects_of(report: VerifyReport) -> set[str]:
    return {finding.object for finding in report.findings}


@pytest.mark.parametrize("codec", [ZSTD, SECRET], ids=["zstd", "lz4-encrypted"])
def test_a_base_backup_and_its_wal_are_whole(pg_major: int, make_server: ServerFactory, codec: Codec) -> None:
    server = make_server(pg_major)
    store = MemoryStore()
    with streaming(server, store, codec=codec) as receiver:
        receiver.wait_streaming()
        result = take(server, store, codec=codec)
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) n")
        server.execute("SELECT pg_switch_wal()")
        server.execute("INSERT INTO t VALUES (1)")
        report = verify(store, codec)
        assert report.findings == ()
    report = verify(store, codec)
    assert report.findings == ()
    assert report.backup == result.name
    assert report.files == result.files
    assert report.notes == ()
    [row] = report.wal
    assert row.start <= result.start_lsn < result.stop_lsn < row.end
    for key in _samples(store, result.name):
        _damage_and_see(store, codec, key)


def _samples(store: ObjectStore, backup: str) -> Iterator[str]:
    """Every object of a backup, its first segment, and one piece of the open segment."""
    yield from [info.key for info in store.list(keys.backup_folder(backup))]
    first = backup.removeprefix("base_")
    yield next(info.key for info in store.list(keys.WAL + first))
    yield next(info.key for info in store.list(keys.WAL) if keys.parse_piece(info.key) is not None)


def _damage_and_see(store: ObjectStore, codec: Codec, key: str) -> None:
    data = store.get(key)
    store.put(key, data[: len(data) // 2])
    assert key in objects_of(verify(store, codec)), f"{key} was cut, and nobody saw it"
    store.delete([key])
    assert not verify(store, codec).ok, f"{key} is missing, and nobody saw it"
    store.put(key, data)
    assert verify(store, codec).ok


def test_after_a_promotion_every_branch_is_whole(make_server: ServerFactory) -> None:
    primary = make_server()
    store = MemoryStore()
    with streaming(primary, store) as receiver:
        receiver.wait_streaming()
        take(primary, store)
        primary.execute("CREATE TABLE t AS SELECT generate_series(1, 5000) n")
        standby = make_server.standby_of(primary)
        standby.execute("SELECT pg_promote()")
        primary.execute("INSERT INTO t SELECT generate_series(1, 5000)")
    with streaming(standby, store, adopt=True) as receiver:
        receiver.wait_streaming()
        standby.execute("INSERT INTO t SELECT generate_series(1, 5000)")
        standby.execute("SELECT pg_switch_wal()")
        standby.execute("INSERT INTO t SELECT generate_series(1, 5000)")
        end = flush_lsn(standby)
        receiver.wait_for(lambda position: position.timeline == 2 and position.confirmed >= end)
    report = verify(store)
    assert report.findings == ()
    assert [row.timeline for row in report.wal] == [1, 2]


def test_tools_of_postgres_and_wal_push(make_server: ServerFactory, tmp_path: Path) -> None:
    """A backup by pg_basebackup and WAL by archive_command's way verify like our own."""
    server = make_server()
    store = MemoryStore()
    archiver = Archiver(make_server, store, ZSTD)
    server.execute("SELECT pg_switch_wal()")
    name = archiver.backup(server)
    server.execute("CREATE TABLE t AS SELECT generate_series(1, 100000) n")
    last = server.execute("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    manifest = keys.manifest(name, ZSTD.extension)
    with store.open_read(manifest) as source:
        reader = iter_manifest(ZSTD.open(manifest, source), manifest)
        assert len(list(reader)) > 900
    assert reader.wal_ranges[0].timeline == 1
    segments = sorted(path for path in (server.data_directory / "pg_wal").iterdir() if path.name <= last)
    for path in segments:
        if path.is_file():
            assert push_wal_file(store, ZSTD, path).stored
            assert not push_wal_file(store, ZSTD, path).stored
    report = verify(store)
    assert objects_of(report) == {keys.files_metadata(name)}, "only WAL-G's list of files is not there"
    assert report.segments >= 2


def test_an_empty_segment_is_a_finding(made_whole: MemoryStore) -> None:
    """A listing passes empty objects over, so nothing would read it."""
    key = sorted(info.key for info in made_whole.list(keys.WAL) if ".partial/" not in info.key)[-1]
    made_whole.put(key, b"")
    assert key in objects_of(verify(made_whole))


def test_confirmed_wal_that_is_gone_is_a_finding(made_whole: MemoryStore) -> None:
    pieces = sorted(info.key for info in made_whole.list(keys.WAL) if ".partial/" in info.key)
    made_whole.delete(pieces[-1:])
    report = verify(made_whole)
    assert any("had been confirmed as durable" in finding.problem for finding in report.findings)


@pytest.fixture
def made_whole(server: ThrowawayServer) -> MemoryStore:
    """A backup with whole segments and pieces behind it, the last of them confirmed and noted."""
    store = MemoryStore()
    with streaming(server, store) as receiver:
        receiver.wait_streaming()
        take(server, store)
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) n")
        server.execute("SELECT pg_switch_wal()")
        server.execute("INSERT INTO t VALUES (1)")
        receiver.wait_confirmed(flush_lsn(server))
    assert verify(store).ok
    return store
