"""Base backups of real servers: what is stored is what the server had, in the shape that other tools expect."""

from __future__ import annotations

import json
import secrets
import shutil

import pytest

from pgbackup.errors import BackupError, ConfigError, WrongCluster
from pgbackup.postgres.server_process import wait_until
from pgbackup.postgres.table_checksums import describe_differences, table_checksums
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import missing_objects, with_missing_objects
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from tests.base_backups import BackupThread, extract, leftovers, put_wal, sentinel, take, tar_members
from tests.fix_postgres import ServerFactory

# The test copies WAL out of the server's directory, where the other backup's checkpoint would remove it.
KEEPS_WAL = {"wal_keep_size": "1GB"}


def start_copy(
    make_server: ServerFactory, store: ObjectStore, name: str, major: int, codec: Codec | None = None
) -> ThrowawayServer:
    """A server over an unpacked backup with its WAL; tablespaces are moved below its directory."""
    target = make_server.workspace / f"copy-of-{name}"
    arguments = [codec] if codec is not None else []
    extract(store, name, target, *arguments)
    put_wal(store, target, *arguments)
    (target / "backup_manifest").unlink()
    lines = []
    for space in sorted((target / "pg_tblspc").iterdir()):
        place = target.with_name(f"{target.name}-{space.name}")
        shutil.move(space, place)
        make_server.account.own(place)
        lines.append(f"{space.name} {place}\n")
    (target / "tablespace_map").write_text("".join(lines))
    make_server.account.own(target)
    return make_server.over(target, major)


def fill(server: ThrowawayServer, make_server: ServerFactory) -> None:
    """Tables with strange names, a tablespace, a large object, another database."""
    place = make_server.new_directory("a tablespace ä")
    server.execute(f"CREATE TABLESPACE space LOCATION '{place}'")
    server.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 5) AS text FROM generate_series(1, 20000) i")
    server.execute("CREATE TABLE in_space TABLESPACE space AS SELECT i FROM generate_series(1, 30000) i")
    server.execute('CREATE TABLE "naïve table 木" AS SELECT 1 AS "ein Wert"')
    server.execute("SELECT lo_from_bytea(0, 'large')")
    server.execute('CREATE DATABASE "a database ü"')
    server.execute("CREATE TABLE other AS SELECT 2 AS two", dbname="a database ü")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_backup_holds_everything(encrypted: bool, pg_major: int, make_server: ServerFactory) -> None:
    codec = Codec(Compression("zstd", 1), secrets.token_bytes(32) if encrypted else None)
    server = make_server(pg_major)
    fill(server, make_server)
    store = MemoryStore()
    result = take(server, store, codec=codec, part_bytes=1 << 20, label="before the change")
    assert leftovers(store) == []
    expected = table_checksums(server)
    server.stop("fast")
    restored = start_copy(make_server, store, result.name, pg_major, codec)
    assert describe_differences(expected, table_checksums(restored)) == []


def test_a_part_that_was_cut_is_named(make_server: ServerFactory) -> None:
    """The folder's total tells that something is wrong; the sizes in metadata.json tell what."""
    server = make_server()
    server.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS text FROM generate_series(1, 50000) i")
    store = MemoryStore()
    result = take(server, store, part_bytes=4 << 20)
    (backup,) = with_missing_objects(store, read_catalog(store, Codec(Compression("zstd", 1)))).backups
    assert backup.problem == ""
    for key in [info.key for info in store.list(keys.tar_folder(result.name))]:
        whole = store.get(key)
        store.put(key, whole[: len(whole) // 2])
        assert missing_objects(store, backup) == f"{key} has {len(whole) // 2} bytes, not {len(whole)}"
        store.put(key, whole)


def test_the_documents_say_what_was_done(pg_major: int, make_server: ServerFactory) -> None:
    server = make_server(pg_major, settings={"archive_command": "curl https://me:secret@host/%f", "archive_mode": True})
    fill(server, make_server)
    store = MemoryStore()
    result = take(server, store, label="läbel", permanent=True, part_bytes=4 << 20)
    document = sentinel(store, result.name)
    assert document["PgVersion"] // 10000 == pg_major
    assert document["LSN"] == result.start_lsn
    assert document["FinishLSN"] == result.stop_lsn
    assert document["IsPermanent"] is True
    assert document["UncompressedSize"] == result.raw_bytes > 10_000_000
    oid = document["Spec"]["tablespaces"][0]
    assert document["Spec"][oid]["link"] == f"pg_tblspc/{oid}"
    extras = document["UserData"]["pgbackup"]
    assert extras["label"] == "läbel"
    assert extras["settings"]["max_wal_senders"] == "10"
    assert "secret" not in json.dumps(document)
    assert extras["config_files"]["config_file"].endswith("postgresql.conf")
    sizes = [info.size_bytes for info in store.list(keys.tar_folder(result.name))]
    assert document["CompressedSize"] == sum(sizes) == result.stored_bytes


def test_the_shape_that_wal_g_restores(pg_major: int, make_server: ServerFactory) -> None:
    """Its rules: the file list names every member as in the tars, pg_control is alone, no links, every part ended."""
    server = make_server(pg_major)
    fill(server, make_server)
    store = MemoryStore()
    result = take(server, store, part_bytes=1 << 20)
    tars = tar_members(store, result.name)
    assert tars.pop("pg_control.tar.zst") == ["global/pg_control"]
    assert list(tars) == [f"part_{number:03d}.tar.zst" for number in range(1, len(tars) + 1)]
    assert len(tars) > 10
    members = [name for names in tars.values() for name in names]
    assert len(members) == len(set(members))
    assert not any(name.startswith(("/", "./")) for name in members)
    files = json.loads(store.get(keys.files_metadata(result.name)))["Files"]
    assert set(files) == {name for name in members if not name.endswith("/")} | {"global/pg_control"}
    assert {"backup_label", "tablespace_map"} <= set(files)
    assert any(name.startswith("pg_tblspc/") and name.count("/") == 4 for name in files)
    metadata = json.loads(store.get(keys.metadata(result.name)))
    assert metadata["start_lsn"] == result.start_lsn
    order = [info.modified for info in store.list(keys.backup_folder(result.name))]
    assert max(order) <= next(iter(store.list(keys.sentinel(result.name)))).modified


def test_pg_verifybackup_agrees(pg_major: int, make_server: ServerFactory) -> None:
    installation = make_server.installation(pg_major)
    if "pg_verifybackup" not in installation.tools:
        installation = make_server.installation()
        # From 17 on it reads pg_control, which is another one for each version.
        if installation.major >= 17:
            pytest.skip(f"the server packages of {pg_major} have no pg_verifybackup")
    server = make_server(pg_major)
    fill(server, make_server)
    store = MemoryStore()
    result = take(server, store)
    target = make_server.workspace / "extracted"
    extract(store, result.name, target)
    make_server.account.own(target)
    make_server.account.run([installation.tool("pg_verifybackup"), "--no-parse-wal", target])


@pytest.mark.parametrize("segment_mb", [1, 64])
def test_any_segment_size(segment_mb: int, make_server: ServerFactory) -> None:
    server = make_server(segment_mb=segment_mb)
    fill(server, make_server)
    store = MemoryStore()
    result = take(server, store)
    assert result.name == keys.backup_name(1, result.start_lsn, segment_mb << 20)
    expected = table_checksums(server)
    server.stop("fast")
    restored = start_copy(make_server, store, result.name, server.major)
    assert describe_differences(expected, table_checksums(restored)) == []


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_other_compressions(compression: str, make_server: ServerFactory) -> None:
    server = make_server()
    store = MemoryStore()
    codec = Codec(Compression.parse(compression))
    result = take(server, store, codec=codec)
    assert tar_members(store, result.name, codec)[f"pg_control.tar{'.lz4' * (compression == 'lz4')}"]
    assert leftovers(store) == []


def test_left_overs_of_a_restore_are_not_backed_up(make_server: ServerFactory) -> None:
    server = make_server()
    folder = server.data_directory / "pgbackup_wal"
    folder.mkdir()
    (folder / "000000010000000000000001").write_bytes(bytes(1 << 20))
    make_server.account.own(folder)
    store = MemoryStore()
    result = take(server, store)
    assert not [name for names in tar_members(store, result.name).values() for name in names if "pgbackup_wal" in name]


# -- damaged pages ----------------------------------------------------------------------------------------------------


def damage(server: ThrowawayServer, table: str, *blocks: int) -> str:
    """Flip bytes of blocks of a table on disk; returns the file's path below the data directory."""
    server.execute("CHECKPOINT")
    path: str = server.execute(f"SELECT pg_relation_filepath('{table}')")[0][0]
    with (server.data_directory / path).open("r+b") as file:
        for block in blocks:
            file.seek(block * 8192 + 5000)
            file.write(b"\xff" * 100)
    return path


def test_damaged_pages_are_marked(pg_major: int, make_server: ServerFactory) -> None:
    server = make_server(pg_major)
    server.execute("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 1000) i")
    path = damage(server, "t", 3, 17)
    store = MemoryStore()
    result = take(server, store)
    assert result.corrupt_files == {path: [3, 17]}
    assert sentinel(store, result.name)["UserData"]["pgbackup"]["corrupt_files"] == {path: [3, 17]}
    files = json.loads(store.get(keys.files_metadata(result.name)))["Files"]
    assert files[path]["CorruptBlocks"] == {"CorruptBlocksCount": 2, "SomeCorruptBlocks": [3, 17]}


def test_damaged_pages_can_be_refused(pg_major: int, make_server: ServerFactory) -> None:
    server = make_server(pg_major)
    server.execute("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 1000) i")
    path = damage(server, "t", 5)
    store = MemoryStore()
    with pytest.raises(BackupError, match="pages are damaged") as caught:
        take(server, store, page_checksums="fail")
    assert f"{path} (block 5)" in str(caught.value)
    assert leftovers(store) == []


# -- several ----------------------------------------------------------------------------------------------------------


def test_two_backups_at_once_do_not_mix(pg_major: int, make_server: ServerFactory) -> None:
    server = make_server(pg_major, settings=KEEPS_WAL)
    server.execute("CREATE TABLE t AS SELECT repeat(md5(i::text), 20) FROM generate_series(1, 20000) i")
    store = MemoryStore()
    first = BackupThread(server, store, max_rate=20_000_000)
    wait_until(lambda: any(True for _ in store.list(keys.INTENTS)), 20)
    second = BackupThread(server, store)
    names = {first.join().name, second.join().name}
    assert len(names) == 2
    assert leftovers(store) == []
    for name in names:
        assert tar_members(store, name)["pg_control.tar.zst"] == ["global/pg_control"]


def test_two_backups_that_begin_together(make_server: ServerFactory) -> None:
    """They may share the checkpoint, and with it the name: then one of them has to try again."""
    server = make_server(settings=KEEPS_WAL)
    store = MemoryStore()
    for _ in range(3):
        both = [BackupThread(server, store) for _ in range(2)]
        errors = []
        for one in both:
            try:
                one.join()
            except BackupError as exc:
                errors.append(exc)
        assert len(errors) < 2
        assert all(error.retryable for error in errors)
        assert leftovers(store) == []


def test_from_an_idle_standby(pg_major: int, make_server: ServerFactory) -> None:
    primary = make_server(pg_major)
    fill_plain(primary)
    standby = make_server.standby_of(primary)
    store = MemoryStore()
    result = take(standby, store)
    assert result.wal_tail
    assert sentinel(store, result.name)["UserData"]["pgbackup"]["wal_tail"] is True
    again = take(standby, store)
    assert not again.new
    assert again.name == result.name
    assert leftovers(store) == []


def fill_plain(server: ThrowawayServer) -> None:
    server.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i")


def test_another_start_under_the_same_name(make_server: ServerFactory) -> None:
    """A standby cannot switch segments: after a restart point in the same segment the name is taken."""
    primary = make_server()
    standby = make_server.standby_of(primary, settings={"hot_standby_feedback": True})
    primary.execute("CREATE TABLE v AS SELECT 1 AS one")
    primary.execute("CHECKPOINT")
    wait_replayed(primary, standby)
    store = MemoryStore()
    first = take(standby, store)
    primary.execute("CREATE TABLE u AS SELECT 1 AS one")
    primary.execute("CHECKPOINT")
    wait_replayed(primary, standby)
    with pytest.raises(BackupError, match="under its name") as caught:
        take(standby, store)
    assert caught.value.retryable
    assert sentinel(store, first.name)["LSN"] == first.start_lsn
    assert leftovers(store) == []


def wait_replayed(primary: ThrowawayServer, standby: ThrowawayServer) -> None:
    lsn = primary.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    query = f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"
    assert wait_until(lambda: standby.execute(query) == [(True,)], 30), "the standby does not follow"


# -- a prefix that is not ours ----------------------------------------------------------------------------------------


def test_another_clusters_prefix_is_refused(make_server: ServerFactory) -> None:
    store = MemoryStore()
    take(make_server(), store)
    with pytest.raises(WrongCluster):
        take(make_server(fresh=True), store)
    assert leftovers(store) == []


def test_a_repository_with_another_key_is_refused(make_server: ServerFactory) -> None:
    server = make_server()
    store = MemoryStore()
    take(server, store)
    with pytest.raises(ConfigError):
        take(server, store, codec=Codec(Compression("zstd", 1), bytes(32)))
    assert leftovers(store) == []
