"""Restores that must not succeed, or not at once: nothing half-restored ever starts, and a repeat works."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgbackup.engines.native import restore_files, restore_place
from pgbackup.engines.native.restore_place import CONTROL_TEMPORARY, MARKER
from pgbackup.errors import CorruptObject, PgbackupError, RestoreError, StoreUnavailable
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.file import FileStore
from tests.restoring import SETTINGS, Repository, insert, rows

CODECS = {
    "zstd": Codec(Compression("zstd", 1)),
    "lz4": Codec(Compression("lz4")),
    "none": Codec(Compression("none")),
    "encrypted": Codec(Compression("zstd", 1), b"s" * 32),
}


@pytest.fixture
def source(make_server) -> ThrowawayServer:
    server = make_server(settings=SETTINGS)
    server.execute("CREATE TABLE t (n int)")
    return server


@pytest.fixture
def repository(make_server, source) -> Repository:
    return filled(Repository(make_server), source)


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


# -- damage -----------------------------------------------------------------------------------------------------------


def flip(data: bytes) -> bytes:
    where = min(len(data) // 2, 300)
    return data[:where] + bytes([data[where] ^ 0x10]) + data[where + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped bit": flip,
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by one byte": lambda data: data[:-1],
    "empty": lambda data: b"",
    "trailing byte": lambda data: data + b"x",
}


# Plain tars end with zeros that nobody misses, a manifest with a newline; a bit may be of a header's unused field.
UNPROVEN = {
    ("flipped bit", "part"),
    ("flipped bit", "control"),
    ("cut by one byte", "part"),
    ("cut by one byte", "control"),
    ("cut by one byte", "manifest"),
}


BRIEFLY = {"lz4": ("flipped bit", "cut by one byte"), "encrypted": ("flipped bit", "cut by one byte", "trailing byte")}


def needed_segments(repository: Repository) -> list[str]:
    """The whole segments from the backup's start on."""
    infos, _ = repository.store.list_level(keys.BASEBACKUPS)
    first = infos[0].key.removeprefix(f"{keys.BASEBACKUPS}base_")[:24]
    return [i.key for i in repository.store.list(keys.WAL) if ".partial/" not in i.key and i.key >= keys.WAL + first]


def object_keys(repository: Repository) -> dict[str, str]:
    infos = [info for info in repository.store.list("") if not info.key.startswith(keys.BOOKKEEPING)]
    largest = max((i for i in infos if "part_" in i.key), key=lambda i: i.size_bytes)
    return {
        "part": largest.key,
        "control": next(i.key for i in infos if "pg_control.tar" in i.key),
        "manifest": next(i.key for i in infos if "backup_manifest" in i.key),
        "segment": needed_segments(repository)[0],
        "piece": next(i.key for i in infos if ".partial/" in i.key),
    }


@pytest.mark.parametrize("codec", CODECS)
def test_every_damage_is_refused_with_the_key(make_server, source, codec):
    repository = filled(Repository(make_server, CODECS[codec]), source)
    store = repository.store
    for what, key in object_keys(repository).items():
        whole = store.get(key)
        for how, damage in DAMAGE.items():
            if (codec == "none" and (how, what) in UNPROVEN) or (codec in BRIEFLY and how not in BRIEFLY[codec]):
                continue
            store.put(key, damage(whole))
            directory = make_server.new_directory(f"{what} {how}")
            error = refusal(repository, directory)
            assert error is not None, f"{what}: {how} was not refused"
            if (how, what) == ("empty", "piece"):
                # Its name alone shows that there was more.
                assert "had been confirmed" in str(error)
            else:
                assert isinstance(error, CorruptObject), (what, how, error)
                assert key.startswith(error.key), (what, how, error)
            assert not (directory / "global" / "pg_control").exists(), (what, how)
            shutil.rmtree(directory)
        store.put(key, whole)
    assert rows(repository.recovered(major=source.major)) == [1, 2, 3]


def refusal(repository: Repository, directory: Path) -> PgbackupError | None:
    try:
        repository.restore(directory=directory)
    except PgbackupError as error:
        return error
    return None


def test_swapped_objects_are_refused(repository, source):
    store = repository.store
    parts = [info.key for info in store.list("") if "part_" in info.key]
    segments = needed_segments(repository)
    control = object_keys(repository)["control"]
    pairs = [(parts[0], parts[1]), (parts[-1], control), (control, parts[0]), (segments[0], segments[-1])]
    for key, other in pairs:
        content = store.get(other)
        whole = store.get(key)
        store.put(key, content)
        directory = repository.factory.new_directory(f"swapped-{len(key)}-{time.monotonic()}")
        with pytest.raises(CorruptObject):
            repository.restore(directory=directory)
        assert_does_not_start(directory, source, repository)
        store.put(key, whole)


def test_a_file_of_another_moment_is_refused(repository, source):
    """The tar is whole, but a file in it is not the one that the server sent."""
    import io
    import tarfile

    store, codec = repository.store, repository.codec
    for info in list(store.list("")):
        if "part_" not in info.key:
            continue
        plain = codec.decode(info.key, store.get(info.key))
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            member = next((m for m in tar if m.isfile() and m.size >= 8192), None)
        if member is None:
            continue
        where = member.offset_data + 100
        changed = plain[:where] + bytes([plain[where] ^ 1]) + plain[where + 1 :]
        store.put(info.key, codec.encode(changed))
        directory = repository.factory.new_directory("changed")
        with pytest.raises(CorruptObject, match="checksum") as caught:
            repository.restore(directory=directory)
        assert member.name in str(caught.value)
        assert_does_not_start(directory, source, repository)
        return
    pytest.fail("no file to change")


def test_missing_objects_are_refused(repository, source):
    store = repository.store
    found = object_keys(repository)
    for what in ("part", "control", "segment"):
        whole = store.get(found[what])
        store.delete([found[what]])
        directory = repository.factory.new_directory(f"missing {what}")
        with pytest.raises((CorruptObject, RestoreError)):
            repository.restore(directory=directory)
        assert not (directory / "global" / "pg_control").exists()
        store.put(found[what], whole)


def test_leftovers_of_another_backup_are_refused(repository, source):
    store = repository.store
    part = object_keys(repository)["part"]
    store.put(keys.part(part.split("/")[1], 777, "zst"), store.get(part))
    with pytest.raises(CorruptObject, match="brought already"):
        repository.restore()


# -- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_a_restore_that_failed_is_repeated(repository, source, monkeypatch, at):
    monkeypatch.setattr(restore_files, "_RETRY_SECONDS", ())
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
    monkeypatch.setattr(restore_files, "_RETRY_SECONDS", (0.01, 0.01))
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
from pgbackup.engines.native.restore import Restore, RestoreRequest
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
    monkeypatch.setattr(restore_files, "_RETRY_SECONDS", ())
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
    with pytest.raises(RestoreError, match="cannot be made"):
        repository.restore(directory=workspace / "file" / "below")


def test_not_enough_space(repository, monkeypatch):
    directory = repository.factory.new_directory("target")
    monkeypatch.setattr(restore_place, "_free_bytes", lambda _: 90 << 20)
    with pytest.raises(RestoreError, match="not enough space") as caught:
        repository.restore(directory=directory)
    assert "0.1 GiB free" in caught.value.detail
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
