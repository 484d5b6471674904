"""Restores that must not succeed, or not at once: nothing half-restored ever starts, and a repeat works."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pgbackup.engines.restore import files, place
from pgbackup.engines.restore.place import CONTROL_TEMPORARY, MARKER
from pgbackup.errors import CorruptObject, RestoreError, StoreUnavailable
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.storage.file import FileStore
from tests.restoring import SETTINGS, Repository, assert_does_not_start, filled, insert, rows


@pytest.fixture
def source(make_server) -> ThrowawayServer:
    server = make_server(settings=SETTINGS)
    server.execute("CREATE TABLE t (n int)")
    return server


@pytest.fixture
def repository(make_server, source) -> Repository:
    return filled(Repository(make_server), source)


# -- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_a_restore_that_failed_is_repeated(repository, source, monkeypatch, at):
    monkeypatch.setattr(files, "_RETRY_SECONDS", ())
    directory = repository.factory.new_directory("target")
    restore = repository.prepare(directory=directory)
    plan = restore.plan()
    count = 0

    def fail(operation: str, key: str) -> None:
        nonlocal count
        if operation == "open_read" and ("tar_partitions" in key or key.startswith(keys.WAL)):
            count += 1
            if count == at:
                raise StoreUnavailable("no answer")

    repository.store.on_call = fail
    with pytest.raises(StoreUnavailable):
        restore.run(plan)
    repository.store.on_call = None
    assert (directory / MARKER).exists()
    assert not (directory / "global" / "pg_control").exists()
    server = repository.recovered(major=source.major, directory=directory)
    assert rows(server) == [1, 2, 3]
    assert not (directory / MARKER).exists()


def test_a_store_that_is_away_for_a_while_is_waited_for(repository, source, monkeypatch):
    monkeypatch.setattr(files, "_RETRY_SECONDS", (0.01, 0.01))
    restore = repository.prepare()
    plan = restore.plan()
    failures = 2

    def fail(operation: str, key: str) -> None:
        nonlocal failures
        if operation == "read" and "part_" in key and failures:
            failures -= 1
            raise StoreUnavailable("gone")

    repository.store.on_call = fail
    result = restore.run(plan)
    assert not failures
    assert result.verified
    server = repository.factory.over(result.directory, source.major)
    server.wait_promoted()
    assert rows(server) == [1, 2, 3]


KILLED = """
import sys, os, signal, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from pgbackup.engines.restore.restore import Restore, RestoreRequest
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.file import FileStore
store, codec = FileStore({store!r}), Codec(Compression("zstd", 1))
class Sink:
    done = 0
    def start(self, what, total): self.what = what
    def advance(self, size):
        self.done += size
        if self.what.startswith({phase!r}) and self.done >= {after}: os.kill(os.getpid(), signal.SIGKILL)
    def finish(self): pass
restore = Restore(store, codec, read_catalog(store, codec), RestoreRequest(directory=Path({target!r})), Sink())
restore.run(restore.plan())
"""


@pytest.mark.parametrize(("phase", "after"), [("restoring", 1), ("restoring", 8 << 20), ("staging", 1)])
def test_a_restore_that_was_killed_is_repeated(make_server, source, workspace, phase, after):
    folder = workspace / "repository"
    repository = filled(Repository(make_server, store=FileStore(folder.as_uri())), source)
    directory = make_server.new_directory("target")
    root = Path(__file__).parents[2]
    script = KILLED.format(root=str(root), store=folder.as_uri(), target=str(directory), phase=phase, after=after)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_does_not_start(directory, source, repository)
    assert rows(repository.recovered(major=source.major, directory=directory)) == [1, 2, 3]


def test_killed_between_the_last_two_steps(repository, source):
    """The marker is gone, the control file has not its name yet: still a left-over, still not startable."""
    result = repository.restore()
    directory = result.directory
    (directory / "global" / "pg_control").rename(directory / CONTROL_TEMPORARY)
    assert_does_not_start(directory, source, repository)
    assert rows(repository.recovered(major=source.major, directory=directory)) == [1, 2, 3]


def test_two_restores_into_one_directory(repository):
    directory = repository.factory.new_directory("target")
    first, second = repository.prepare(directory=directory), repository.prepare(directory=directory)
    plan = first.plan()
    reached, go_on = threading.Event(), threading.Event()

    def wait(operation: str, key: str) -> None:
        if operation == "open_read" and "part_" in key and not reached.is_set():
            reached.set()
            go_on.wait(30)

    repository.store.on_call = wait
    worker = threading.Thread(target=first.run, args=(plan,))
    worker.start()
    assert reached.wait(30)
    with pytest.raises(RestoreError, match="another restore is filling"):
        second.run(plan)
    go_on.set()
    worker.join(60)
    assert (directory / "global" / "pg_control").exists()


def test_a_restore_with_tablespaces_that_failed_is_repeated(make_server, source, monkeypatch):
    monkeypatch.setattr(files, "_RETRY_SECONDS", ())
    location = make_server.new_directory("fast")
    source.execute(f"CREATE TABLESPACE fast LOCATION '{location}'")
    source.execute("CREATE TABLE there TABLESPACE fast AS SELECT g FROM generate_series(1, 1000) g")
    repository = filled(Repository(make_server), source)
    directory, new = make_server.new_directory("target"), make_server.new_directory("new")
    restore = repository.prepare(directory=directory, tablespace_map={str(location): str(new)})
    plan = restore.plan()

    def fail(operation: str, key: str) -> None:
        if operation == "open_read" and "pg_control.tar" in key:
            raise StoreUnavailable("no answer")

    repository.store.on_call = fail
    with pytest.raises(StoreUnavailable):
        restore.run(plan)
    repository.store.on_call = None
    assert (new / MARKER).exists()
    assert any(path.name.startswith("PG_") for path in new.iterdir())
    server = repository.recovered(major=source.major, directory=directory, tablespace_map={str(location): str(new)})
    assert server.execute("SELECT count(*) FROM there") == [(1000,)]
    assert not (new / MARKER).exists()


# -- places that are not free -----------------------------------------------------------------------------------------


def test_a_directory_that_is_not_empty(repository):
    directory = repository.factory.new_directory("target")
    (directory / "precious").write_text("data")
    with pytest.raises(RestoreError, match="is not empty") as caught:
        repository.restore(directory=directory)
    assert "precious" in caught.value.detail
    assert [path.name for path in directory.iterdir()] == ["precious"]


def test_a_directory_with_a_cluster_is_never_emptied_whatever_marker_lies_in_it(repository, source):
    result = repository.restore()
    (result.directory / MARKER).write_text("{}")
    with pytest.raises(RestoreError, match="is not empty"):
        repository.restore(directory=result.directory)
    assert (result.directory / "base").is_dir()


def test_lost_and_found_is_fine(repository, source):
    directory = repository.factory.new_directory("target")
    (directory / "lost+found").mkdir()
    assert rows(repository.recovered(major=source.major, directory=directory)) == [1, 2, 3]
    assert (directory / "lost+found").is_dir()


def test_a_running_server_in_the_directory(repository, source):
    with pytest.raises(RestoreError, match="a server is running"):
        repository.restore(directory=source.data_directory)
    assert rows(source) == [1, 2, 3]


def test_a_file_or_a_directory_that_cannot_be_made(repository, workspace):
    (workspace / "file").write_text("")
    with pytest.raises(RestoreError, match=r"not a directory|cannot be made"):
        repository.restore(directory=workspace / "file")
    with pytest.raises(RestoreError, match=r"cannot be made: .*file is no directory"):
        repository.restore(directory=workspace / "file" / "below")


def test_not_enough_space(repository, monkeypatch):
    directory = repository.factory.new_directory("target")
    monkeypatch.setattr(place, "_free_bytes", lambda _: 90 << 20)
    with pytest.raises(RestoreError, match="not enough space") as caught:
        repository.restore(directory=directory)
    assert caught.value.detail.endswith(" MiB needed (64 MiB of it to spare), 90 MiB free")
    prepared = repository.prepare(directory=directory)
    with pytest.raises(RestoreError, match="not enough space"):
        prepared.check_space(prepared.plan())
    assert not any(directory.iterdir())


def test_wal_confirmed_but_gone(repository, source):
    repository.store.put(keys.STATUS, b'{"timeline": 1, "confirmed": "0/FF000000"}')
    with pytest.raises(RestoreError, match="had been confirmed"):
        repository.restore()
    assert rows(repository.recovered(major=source.major, accept_loss=True)) == [1, 2, 3]


def test_a_backup_of_another_cluster_in_the_repository(repository, source, make_server):
    other = make_server(fresh=True, settings=SETTINGS)
    other.execute("CREATE TABLE t (n int)")
    foreign = Repository(make_server)
    foreign.archiver.backup(other)
    insert(other, 1)
    other.execute("SELECT pg_switch_wal()")
    foreign.archiver.wal(other)
    for info in foreign.store.list(keys.WAL):
        repository.store.put(info.key, foreign.store.get(info.key))
    with pytest.raises(CorruptObject, match="cluster"):
        repository.restore()
