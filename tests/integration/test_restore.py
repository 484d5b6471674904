"""Restores of real servers: every kind of target on every version, and what a restored server is like."""

from __future__ import annotations

import os
import shutil
import stat
import time
from datetime import timedelta
from pathlib import Path

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.core.recovery_target import Target
from pgbackup.engines.restore.wal import FOLDER
from pgbackup.errors import RestoreError
from pgbackup.postgres.recovery_settings import BLOCK_BEGIN, read_settings
from pgbackup.postgres.server_process import wait_until
from pgbackup.postgres.server_settings import append_settings
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository.codec import Codec, Compression
from tests.restoring import SETTINGS, Repository, insert, rows
from tests.workload import compare_rows


@pytest.fixture
def repository(make_server) -> Repository:
    return Repository(make_server)


@pytest.fixture
def source(make_server) -> ThrowawayServer:
    server = make_server(settings=SETTINGS)
    server.execute("CREATE TABLE t (n int)")
    return server


# -- targets ----------------------------------------------------------------------------------------------------------


def test_every_target(make_server, pg_major):
    repository = Repository(make_server)
    source = make_server(pg_major, settings=SETTINGS, segment_mb=1)
    source.execute("CREATE TABLE t (n int)")
    insert(source, 0)
    repository.archiver.backup(source)
    after = {}
    for n in range(1, 8):
        after[n] = insert(source, n)
        if n == 4:
            source.execute("SELECT pg_create_restore_point('it''s four')")
        source.execute("SELECT pg_logical_emit_message(false, 'x', repeat('y', 300000))")
    repository.archiver.wal(source)

    def recovered(target: Target) -> int:
        """The highest row of those that came back, without a hole."""
        server = repository.recovered(target, major=pg_major)
        found = rows(server)
        server.close()
        assert found == list(range(len(found)))
        return len(found) - 1

    assert recovered(Target()) == 7
    assert recovered(Target("immediate")) == 0
    assert recovered(Target("time", time=after[3][0])) == 3
    assert recovered(Target("time", time=after[3][0], exclusive=True)) == 3
    assert recovered(Target("lsn", lsn=after[5][1])) == 5
    assert recovered(Target("xid", xid=after[2][2])) == 2
    assert recovered(Target("xid", xid=after[2][2], exclusive=True)) == 1
    assert recovered(Target("name", name="it's four")) == 4


def test_a_time_after_the_last_commit_recovers_everything(repository, source):
    """Postgres alone ends such a recovery with FATAL: recovery ended before configured recovery target was reached."""
    repository.archiver.backup(source)
    insert(source, 1)
    moment, _, _ = insert(source, 2)
    source.execute("SELECT pg_logical_emit_message(false, 'no', 'commit')")
    repository.archiver.wal(source)
    later = moment + timedelta(seconds=0.005)
    plan = repository.prepare(Target("time", time=later)).plan()
    assert plan.target.kind == "lsn"
    assert rows(repository.recovered(Target("time", time=later), major=source.major)) == [1, 2]
    with pytest.raises(RestoreError, match="beyond the archive"):
        repository.restore(Target("time", time=moment + timedelta(hours=1)))


def test_the_last_lsn_of_the_archive_is_reached(repository, source):
    """No record begins at the end of WAL, so Postgres alone would not reach it either."""
    repository.archiver.backup(source)
    insert(source, 1)
    end = Lsn.parse(source.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0])
    repository.archiver.wal(source)
    assert rows(repository.recovered(Target("lsn", lsn=end), major=source.major)) == [1]


def test_the_newest_backup_before_a_transaction_is_chosen(repository, source):
    first = repository.archiver.backup(source)
    _, _, xid = insert(source, 1)
    source.execute("SELECT pg_switch_wal()")
    second = repository.archiver.backup(source)
    _, _, later = insert(source, 2)
    repository.archiver.wal(source)
    assert repository.prepare(Target("xid", xid=xid)).plan().backup.name == first
    assert repository.prepare(Target("xid", xid=later)).plan().backup.name == second
    with pytest.raises(RestoreError, match="is not in the archived WAL"):
        repository.prepare(Target("xid", xid=xid), backup=second).plan()
    with pytest.raises(RestoreError, match="not known without reading"):
        repository.prepare(Target("xid", xid=xid), scan=False).plan()


@pytest.mark.parametrize("action", ["pause", "shutdown"])
def test_other_actions_at_the_target(repository, source, make_server, action):
    repository.archiver.backup(source)
    _, lsn, _ = insert(source, 1)
    insert(source, 2)
    repository.archiver.wal(source)
    result = repository.restore(Target("lsn", lsn=lsn, action=action))
    server = make_server.over(result.directory, source.major, wait=action == "pause")
    if action == "shutdown":
        assert wait_until(lambda: not server.running, 60)
        assert "recovery stopping after" in server.log_tail(60)
        return
    assert wait_until(lambda: server.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)], 30)
    assert rows(server) == [1]
    server.execute("SELECT pg_wal_replay_resume()")
    server.wait_promoted()


# -- what comes back --------------------------------------------------------------------------------------------------


def test_the_whole_database_comes_back(repository, source):
    source.execute("CREATE TABLE big AS SELECT g, md5(g::text) AS text FROM generate_series(1, 50000) g")
    source.execute('CREATE DATABASE "naïve name"')
    repository.archiver.backup(source)
    source.execute("INSERT INTO big SELECT g, md5(g::text) FROM generate_series(50001, 60000) g")
    source.execute("BEGIN; INSERT INTO t VALUES (7); PREPARE TRANSACTION 'half'")
    repository.archiver.wal(source)
    restored = repository.recovered(major=source.major)
    compare_rows(source, restored)
    restored.execute("COMMIT PREPARED 'half'")
    assert rows(restored) == [7]


@pytest.mark.parametrize("compression", ["zstd:1", "lz4", "none"])
def test_encrypted_repositories(make_server, source, compression):
    repository = Repository(make_server, Codec(Compression.parse(compression), b"k" * 32))
    repository.archiver.backup(source)
    insert(source, 1)
    repository.archiver.wal(source)
    assert rows(repository.recovered(major=source.major)) == [1]


def test_modes_and_owner(repository, source):
    repository.archiver.backup(source)
    repository.archiver.wal(source)
    result = repository.restore()
    assert result.verified
    owner = source.data_directory.stat()
    for folder, _, files in os.walk(result.directory):
        for path in (Path(folder), *(Path(folder) / name for name in files)):
            found = path.lstat()
            assert (found.st_uid, found.st_gid) == (owner.st_uid, owner.st_gid), path
            assert stat.S_IMODE(found.st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert not (result.directory / "backup_manifest").exists()


def test_a_target_that_is_not_there_belongs_to_the_owner_of_its_parent(repository, source, make_server):
    repository.archiver.backup(source)
    repository.archiver.wal(source)
    parent = make_server.new_directory("volume")
    result = repository.restore(directory=parent / "18" / "docker")
    server = make_server.over(result.directory, source.major)
    server.wait_promoted()


def test_a_stock_server_needs_nothing_of_ours_and_cleans_up(repository, source):
    repository.archiver.backup(source)
    repository.archiver.wal(source)
    result = repository.restore()
    settings = read_settings(result.directory / "postgresql.auto.conf")
    assert settings["restore_command"] == "cp pgbackup_wal/%f %p"
    assert (result.directory / FOLDER).is_dir()
    server = repository.factory.over(result.directory, source.major)
    server.wait_promoted()
    assert wait_until(lambda: not (result.directory / FOLDER).exists(), 10)
    assert not (result.directory / "recovery.signal").exists()


def test_a_server_that_crashes_during_recovery_goes_on(repository, source, make_server):
    repository.archiver.backup(source)
    for n in range(1, 4):
        insert(source, n)
        source.execute("SELECT pg_switch_wal()")
    insert(source, 4)
    repository.archiver.wal(source)
    directory = repository.restore().directory
    server = make_server.over(directory, source.major, start=False)
    for pause in (0.03, 0.1, 0.2):
        server.start(wait=False)
        time.sleep(pause)
        server.kill()
        (directory / "postmaster.pid").unlink(missing_ok=True)
    server.start()
    server.wait_promoted()
    assert rows(server) == [1, 2, 3, 4]


# -- settings that came along -----------------------------------------------------------------------------------------


def test_what_an_earlier_recovery_left_is_overruled(repository, source):
    (source.data_directory / FOLDER).mkdir()
    (source.data_directory / FOLDER / "000000010000000000000099").write_bytes(b"left over")
    (source.data_directory / "recovery.conf").write_text("standby_mode = on\n")
    source.account.own(source.data_directory / FOLDER)
    source.account.own(source.data_directory / "recovery.conf")
    source.configure(
        recovery_target_time="2001-01-01 00:00:00+00", recovery_target_action="shutdown",
        restore_command="false", recovery_end_command="false", recovery_min_apply_delay="1h",
        primary_conninfo="host=nowhere", recovery_target_timeline="7",
    )  # fmt: skip
    append_settings(
        source.data_directory / "postgresql.auto.conf", {"recovery_target_name": "old", "hot_standby": True}
    )
    repository.archiver.backup(source)
    insert(source, 1)
    _, lsn, _ = insert(source, 2)
    insert(source, 3)
    repository.archiver.wal(source)
    restored = repository.recovered(Target("lsn", lsn=lsn), major=source.major)
    assert rows(restored) == [1, 2]


def test_a_backup_of_a_standby_starts_as_a_primary(repository, source, make_server):
    standby = make_server.standby_of(source)
    repository.archiver.wal(source)
    repository.archiver.backup(standby)
    insert(source, 1)
    repository.archiver.wal(source)
    assert rows(repository.recovered(major=source.major)) == [1]


def test_a_restored_server_is_backed_up_and_restored_again(repository, source):
    repository.archiver.backup(source)
    insert(source, 1)
    repository.archiver.wal(source)
    first = repository.recovered(major=source.major)
    first.configure(wal_keep_size="1GB")
    insert(first, 2)
    repository.archiver.backup(first)
    insert(first, 3)
    repository.archiver.wal(first)
    result = repository.restore()
    assert (result.directory / "postgresql.auto.conf").read_text().count(BLOCK_BEGIN) == 1
    second = repository.factory.over(result.directory, source.major)
    second.wait_promoted()
    assert rows(second) == [1, 2, 3]


def test_fewer_connections_on_the_command_line_and_more_in_the_wal(repository, source):
    repository.archiver.backup(source)
    source.configure(max_connections=90)
    source.restart()
    insert(source, 1)
    repository.archiver.wal(source)
    assert rows(repository.recovered(major=source.major, settings={"max_connections": 20})) == [1]


def test_clones_can_be_cut_off(repository, source):
    source.configure(synchronous_standby_names="nobody", archive_mode="on", archive_command="false")
    source.execute("SET synchronous_commit = local; SELECT 1")
    repository.archiver.backup(source)
    repository.archiver.wal(source)
    result = repository.restore()
    assert any("synchronous_standby_names is 'nobody'" in note for note in result.notes)
    assert any("--no-archive" in note for note in result.notes)
    server = repository.recovered(major=source.major, without_sync_standbys=True, without_archiving=True)
    assert server.execute("SHOW archive_mode") == [("off",)]
    insert(server, 1)


def test_configuration_that_lies_elsewhere_is_replaced(repository, source, make_server):
    elsewhere = make_server.new_directory("etc")
    source.stop()
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        shutil.move(source.data_directory / name, elsewhere / name)
    places = {f"{kind}_file": str(elsewhere / name) for kind, name in (
        ("config", "postgresql.conf"), ("hba", "pg_hba.conf"), ("ident", "pg_ident.conf"),
    )}  # fmt: skip
    source.start(settings=places)
    repository.archiver.backup(source)
    insert(source, 1)
    repository.archiver.wal(source)
    result = repository.restore()
    assert sum("wrote a minimal" in note for note in result.notes) == 2
    server = make_server.over(result.directory, source.major, settings={"hba_file": places["hba_file"]})
    server.wait_promoted()
    assert rows(server) == [1]
    assert server.execute("SHOW max_connections") == source.execute("SHOW max_connections")


# -- tablespaces ------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_tablespace(source, make_server) -> tuple[ThrowawayServer, Path, int]:
    location = make_server.new_directory("fast disk")
    source.execute(f"CREATE TABLESPACE fast LOCATION '{location}'")
    oid = source.execute("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")[0][0]
    source.execute("CREATE TABLE there TABLESPACE fast AS SELECT g FROM generate_series(1, 1000) g")
    return source, location, oid


@pytest.mark.parametrize("by", ["location", "oid"])
def test_tablespaces_go_where_they_are_told(repository, with_tablespace, make_server, by):
    source, location, oid = with_tablespace
    repository.archiver.backup(source)
    source.execute("INSERT INTO there VALUES (0)")
    repository.archiver.wal(source)
    new = make_server.workspace / "new place"
    mapping = {str(location) if by == "location" else str(oid): str(new)}
    restored = repository.recovered(major=source.major, tablespace_map=mapping)
    assert restored.execute("SELECT count(*) FROM there") == [(1001,)]
    assert restored.execute(f"SELECT pg_tablespace_location({oid})") == [(str(new),)]
    assert any(new.iterdir())
    compare_rows(source, restored)


def test_a_tablespace_goes_back_to_its_place_when_that_is_free(repository, with_tablespace):
    source, location, _ = with_tablespace
    repository.archiver.backup(source)
    repository.archiver.wal(source)
    with pytest.raises(RestoreError, match="is not empty") as caught:
        repository.restore()
    assert "--tablespace-map" in caught.value.hint
    source.stop()
    shutil.rmtree(location)
    assert repository.recovered(major=source.major).execute("SELECT count(*) FROM there") == [(1000,)]


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"/nowhere": "/x"}, "no tablespace /nowhere"),
        ({"OID": "relative"}, "cannot go to"),
        ({"OID": "IN"}, "in each other"),
    ],
)
def test_tablespace_maps_that_cannot_be(repository, with_tablespace, make_server, mapping, problem):
    source, _, oid = with_tablespace
    repository.archiver.backup(source)
    repository.archiver.wal(source)
    target = make_server.new_directory("target")
    wanted = {
        key.replace("OID", str(oid)): value.replace("IN", str(target / "inside")) for key, value in mapping.items()
    }
    with pytest.raises(RestoreError, match=problem):
        repository.restore(directory=target, tablespace_map=wanted)
    assert not any(target.iterdir())
