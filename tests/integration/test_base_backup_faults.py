"""Base backups that are killed, stopped, cut off or starved: no seal that lies, and nothing is left for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pgbackup.errors import BackupError, ConnectionLost, PgbackupError, StoreUnavailable
from pgbackup.postgres.server_process import wait_until
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.open import open_store
from tests.base_backups import ZSTD, BackupThread, leftovers, sentinel, take, tar_members
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Env, S3Server, open_s3, set_aws_env

ROWS = "SELECT encode(sha512(i::text::bytea), 'hex') || encode(sha512((-i)::text::bytea), 'hex') AS t"


@pytest.fixture
def full_server(make_server: ServerFactory) -> ThrowawayServer:
    """A server with about 150 MB that hardly compress."""
    server = make_server()
    server.execute(f"CREATE TABLE big AS {ROWS} FROM generate_series(1, 450000) i")
    server.execute("CHECKPOINT")
    return server


@pytest.fixture
def killed(full_server: ThrowawayServer, s3_env: S3Env, monkeypatch: pytest.MonkeyPatch) -> Iterator[Killed]:
    env = s3_env()
    set_aws_env(env, monkeypatch)
    store = open_store(env["PGBACKUP_REPOSITORY"])
    yield Killed(full_server, store, env)
    store.close()


class Killed:
    """Runs a backup in another process up to a point where it kills itself."""

    def __init__(self, server: ThrowawayServer, store: ObjectStore, env: dict[str, str]) -> None:
        self.server = server
        self.store = store
        self._env = {**os.environ, **env}

    def __call__(self, point: str, when: str) -> None:
        command = [sys.executable, "-m", "tests.killed_backup", self.server.conninfo(user="pgbackup"), point, when]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    def sealed(self) -> list[str]:
        names = [info.key.removeprefix(keys.BASEBACKUPS) for info in self.store.list(keys.BASEBACKUPS)]
        return [name.removesuffix(keys.SENTINEL_SUFFIX) for name in names if name.endswith(keys.SENTINEL_SUFFIX)]


BEFORE_THE_COPY_IS_COMPLETE = [
    ("put_if_absent:intents/:1", "after"),
    ("put_if_absent:part_001:1", "after"),
    ("start_upload:part_002:1", "after"),
    ("put_part:part_002:1", "after"),
    ("complete:part_002:1", "before"),
    ("put_part:part_002:2", "after"),
    ("put_if_absent:pg_control:1", "after"),
    ("put_if_absent:backup_manifest:1", "after"),
    ("put_if_absent:files_metadata:1", "after"),
]


@pytest.mark.parametrize(("point", "when"), BEFORE_THE_COPY_IS_COMPLETE)
def test_killed_during_the_copy(point: str, when: str, killed: Killed) -> None:
    """No seal; the next backup removes what was left, unfinished uploads included."""
    killed(point, when)
    assert killed.sealed() == []
    assert leftovers(killed.store)
    result = take(killed.server, killed.store, part_bytes=48 << 20)
    assert killed.sealed() == [result.name]
    assert leftovers(killed.store) == []


@pytest.mark.parametrize(
    ("point", "when"),
    [("replace:intents/:1", "after"), ("put:metadata.json:1", "before"), ("put:metadata.json:1", "after")],
)
def test_killed_when_the_copy_was_complete(point: str, when: str, killed: Killed) -> None:
    """The next run seals what is there, and does not copy it again."""
    killed(point, when)
    assert killed.sealed() == []
    copied = {info.key: info.modified for info in killed.store.list(keys.BASEBACKUPS) if ".tar." in info.key}
    put_wal_of(killed.server, killed.store)
    result = take(killed.server, killed.store, part_bytes=48 << 20)
    assert len(killed.sealed()) == 2
    assert leftovers(killed.store) == []
    earlier = next(name for name in killed.sealed() if name != result.name)
    assert sentinel(killed.store, earlier)["UserData"]["pgbackup"]["label"] == "to be killed"
    assert tar_members(killed.store, earlier)["pg_control.tar.zst"] == ["global/pg_control"]
    now = {info.key: info.modified for info in killed.store.list(keys.backup_folder(earlier)) if ".tar." in info.key}
    assert now == copied


def put_wal_of(server: ThrowawayServer, store: ObjectStore) -> None:
    """What the stream of a resident process would do: ship what the server has."""
    for path in sorted((server.data_directory / "pg_wal").iterdir()):
        if len(path.name) == 24:
            store.put_if_absent(keys.wal(path.name, "zst"), ZSTD.encode(path.read_bytes()))


def test_killed_after_the_seal(killed: Killed) -> None:
    """Only the intent is left, and goes."""
    killed("put_if_absent:sentinel:1", "after")
    assert len(killed.sealed()) == 1
    assert any(True for _ in killed.store.list(keys.INTENTS))
    take(killed.server, killed.store)
    assert len(killed.sealed()) == 2
    assert leftovers(killed.store) == []


def test_the_server_has_no_backup_or_slot_left_when_we_were_killed(killed: Killed) -> None:
    killed("put_part:part_002:1", "after")
    query = "SELECT count(*) FROM pg_stat_replication"
    assert wait_until(lambda: killed.server.execute(query) == [(0,)], 20)
    assert killed.server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]


# -- stopped ----------------------------------------------------------------------------------------------------------


def test_stopped_during_the_copy(full_server: ThrowawayServer, s3_store: ObjectStore) -> None:
    backup = BackupThread(full_server, s3_store, part_bytes=16 << 20, max_rate=20 << 20)
    assert wait_until(lambda: any(".tar" in info.key for info in s3_store.list(keys.BASEBACKUPS)), 30)
    begin = time.monotonic()
    backup.stop.set()
    error = backup.wait_failed()
    assert isinstance(error, BackupError)
    assert time.monotonic() - begin < 6
    assert leftovers(s3_store) == []
    query = "SELECT count(*) FROM pg_stat_progress_basebackup"
    assert wait_until(lambda: full_server.execute(query) == [(0,)], 10)


def test_stopped_while_the_server_sends_nothing(full_server: ThrowawayServer) -> None:
    """A server that hangs (its storage, a debugger) does not keep us."""
    store = MemoryStore()
    backup = BackupThread(full_server, store, part_bytes=16 << 20, max_rate=20 << 20)
    assert wait_until(lambda: any(".tar" in info.key for info in store.list(keys.BASEBACKUPS)), 30)
    query = "SELECT pid FROM pg_stat_replication"
    sender = full_server.execute(query)[0][0]
    os.kill(sender, signal.SIGSTOP)
    try:
        time.sleep(1)
        backup.stop.set()
        begin = time.monotonic()
        assert isinstance(backup.wait_failed(), BackupError)
        assert time.monotonic() - begin < 6
    finally:
        os.kill(sender, signal.SIGCONT)
    assert leftovers(store) == []


def test_stopped_while_the_wal_is_missing(full_server: ThrowawayServer) -> None:
    """The copy is kept, and sealed when the WAL has come."""
    store = MemoryStore()

    class NoWal:
        def begin(self, *_: object) -> None: ...

        def wait_for(self, *_: object, **__: object) -> bool:
            raise BackupError("no WAL became durable")

        def close(self) -> None: ...

    with pytest.raises(BackupError, match="no WAL became durable"):
        take(full_server, store, wal=NoWal())
    assert not any(info.key.endswith(keys.SENTINEL_SUFFIX) for info in store.list())
    assert leftovers(store)
    streamed = MemoryStore()
    put_wal_of(full_server, streamed)
    take(full_server, store)
    assert leftovers(store), "its WAL is not there: neither sealed nor removed"
    for info in streamed.list(keys.WAL):
        store.put_if_absent(info.key, streamed.get(info.key))
    take(full_server, store)
    assert leftovers(store) == []
    assert len([info for info in store.list(keys.BASEBACKUPS) if info.key.endswith(keys.SENTINEL_SUFFIX)]) == 3


# -- the server goes away, or changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["immediate", "kill"])
def test_the_server_dies_during_the_copy(how: str, full_server: ThrowawayServer) -> None:
    store = MemoryStore()
    backup = BackupThread(full_server, store, part_bytes=16 << 20, max_rate=20 << 20)
    assert wait_until(lambda: any(".tar" in info.key for info in store.list(keys.BASEBACKUPS)), 30)
    if how == "kill":
        full_server.kill()
    else:
        full_server.stop("immediate")
    error = backup.wait_failed()
    assert isinstance(error, ConnectionLost)
    assert leftovers(store) == []


def test_a_standby_that_is_promoted_during_the_copy(pg_major: int, make_server: ServerFactory) -> None:
    primary = make_server(pg_major)
    primary.execute(f"CREATE TABLE big AS {ROWS} FROM generate_series(1, 100000) i")
    standby = make_server.standby_of(primary)
    store = MemoryStore()
    backup = BackupThread(standby, store, part_bytes=8 << 20, max_rate=10 << 20)
    assert wait_until(lambda: any(".tar" in info.key for info in store.list(keys.BASEBACKUPS)), 30)
    standby.promote()
    assert isinstance(backup.wait_failed(), PgbackupError)
    assert leftovers(store) == []


# -- the store fails --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["put_part", "complete", "start_upload"])
def test_the_store_fails_during_the_copy(operation: str, full_server: ThrowawayServer) -> None:
    store = MemoryStore()
    store.fail_next(operation, StoreUnavailable("the store does not answer"))
    with pytest.raises(StoreUnavailable):
        take(full_server, store, part_bytes=48 << 20)
    assert leftovers(store) == []


def test_another_writer_in_our_folder(full_server: ThrowawayServer) -> None:
    """What somebody else puts there during the copy keeps it from being sealed."""
    store = MemoryStore()

    def intrude(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key.endswith("files_metadata.json"):
            stray = key.replace("files_metadata.json", "tar_partitions/part_999.tar.zst")
            if store.head(stray) is None:
                store._store(stray, b"a stranger's")

    store.on_call = intrude
    with pytest.raises(BackupError, match="part_999"):
        take(full_server, store)
    assert not any(info.key.endswith(keys.SENTINEL_SUFFIX) for info in store.list())


def test_over_tls(full_server: ThrowawayServer, s3_tls_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(s3_tls_server, monkeypatch)
    result = take(full_server, store)
    assert leftovers(store) == []
    assert result.raw_bytes > 140_000_000
    store.close()
