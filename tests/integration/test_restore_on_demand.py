"""WAL on demand: a server recovers through ``pgbackup wal-fetch``, with its tail, ahead of time, or not at all.

The servers' account may not be allowed to run this Python, so what Postgres calls is a script that hands each request
to the test, which runs the command that the restore wrote, in the data directory, with the same arguments.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

from pgbackup.core.recovery_target import Target
from pgbackup.engines.restore.commands import AHEAD
from pgbackup.engines.restore.wal import FOLDER, PLAN_NAME
from pgbackup.errors import PgbackupError
from pgbackup.postgres.recovery_settings import read_settings
from pgbackup.postgres.server_process import wait_until
from pgbackup.postgres.server_settings import append_settings
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.postgres.unprivileged import Account
from pgbackup.repository import keys
from pgbackup.storage.file import FileStore
from tests.restoring import SETTINGS, Repository, insert, rows

SCRIPT = """#!/bin/sh
echo "$1 $2" > {ask}
read code < {answer}
exit "$code"
"""


class Relay:
    """Answers the restore_command of one server."""

    def __init__(self, directory: Path, workspace: Path, account: Account) -> None:
        self.directory = directory
        self.calls: list[tuple[str, int]] = []
        self._account = account
        self._ask, self._answer = workspace / "ask", workspace / "answer"
        self._stop = threading.Event()
        for path in (self._ask, self._answer):
            os.mkfifo(path)
            account.own(path)
        script = workspace / "fetch.sh"
        script.write_text(SCRIPT.format(ask=self._ask, answer=self._answer))
        script.chmod(0o755)
        written = read_settings(directory / "postgresql.auto.conf")["restore_command"]
        self.command = shlex.split(written.split("|| ")[-1].replace("%%", "%"))
        append_settings(directory / "postgresql.auto.conf", {"restore_command": f"{script} %f %p"})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            name, _, path = self._ask.read_text().strip().partition(" ")
            if self._stop.is_set():
                return
            words = [word.replace("%f", name).replace("%p", path) for word in self.command]
            done = subprocess.run(words, cwd=self.directory, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                self._account.own(self.directory / path)
                self._account.own(self.directory / FOLDER)
            self.calls.append((name, done.returncode))
            self._answer.write_text(f"{done.returncode}\n")

    def close(self) -> None:
        self._stop.set()
        self._ask.write_text("")
        self._thread.join(10)


@pytest.fixture
def source(make_server) -> ThrowawayServer:
    server = make_server(settings=SETTINGS, segment_mb=1)
    server.execute("CREATE TABLE t (n int)")
    return server


@pytest.fixture
def repository(make_server, source, workspace) -> Repository:
    repository = Repository(make_server, store=FileStore((workspace / "repository").as_uri()))
    repository.archiver.backup(source)
    for n in range(1, 6):
        insert(source, n)
        source.execute("SELECT pg_logical_emit_message(false, 'x', repeat('y', 700000))")
    insert(source, 6)
    repository.archiver.wal(source)
    return repository


def restored(repository: Repository, target: Target | None = None) -> Path:
    return repository.restore(target, staged=False, repository=repository.store.url, environ=os.environ).directory


def test_a_server_recovers_to_the_end_of_the_tail(repository, source, make_server, workspace):
    directory = restored(repository)
    relay = Relay(directory, workspace, make_server.account)
    try:
        server = make_server.over(directory, source.major)
        server.wait_promoted()
        assert rows(server) == [1, 2, 3, 4, 5, 6]
        codes = {code for _, code in relay.calls}
        assert codes == {0, 74}
        assert wait_until(lambda: not (directory / FOLDER).exists(), 10)
    finally:
        relay.close()


def test_a_segment_that_vanishes_does_not_end_recovery(repository, source, make_server, workspace):
    directory = restored(repository)
    segments = [i.key for i in repository.store.list(keys.WAL) if ".partial/" not in i.key]
    repository.store.delete([segments[-1]])
    relay = Relay(directory, workspace, make_server.account)
    try:
        server = make_server.over(directory, source.major, wait=False)
        assert wait_until(lambda: not server.running, 60)
        assert max(code for _, code in relay.calls) > 125
        assert (directory / "recovery.signal").exists()
    finally:
        relay.close()


def test_a_store_that_fails_stops_the_server(repository, source, make_server, workspace):
    directory = restored(repository)
    (workspace / "repository").rename(workspace / "away")
    (workspace / "repository").write_text("not a folder")
    relay = Relay(directory, workspace, make_server.account)
    try:
        server = make_server.over(directory, source.major, wait=False)
        assert wait_until(lambda: not server.running, 60)
        assert relay.calls[-1][1] > 125
    finally:
        relay.close()


def test_the_command_that_is_written(repository):
    directory = restored(repository, Target("immediate"))
    settings = read_settings(directory / "postgresql.auto.conf")
    command = settings["restore_command"]
    assert command.startswith(f"mv {FOLDER}/{AHEAD}/%f %p 2>/dev/null || cp {FOLDER}/%f %p 2>/dev/null || ")
    assert "wal-fetch --tail %f %p" in command
    assert f"PGBACKUP_REPOSITORY={repository.store.url}" in command
    assert (directory / FOLDER / PLAN_NAME).is_file()
    assert not list((directory / FOLDER).glob("0*"))


# -- plain wal-fetch --------------------------------------------------------------------------------------------------


def wal_fetch(repository: Repository, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    import sys

    environ = {"PGBACKUP_REPOSITORY": repository.store.url, "PATH": os.environ["PATH"]}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "pgbackup", "wal-fetch", *map(str, arguments)],
        env=environ, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def whole_segments(repository: Repository) -> list[str]:
    infos = [i.key.removeprefix(keys.WAL) for i in repository.store.list(keys.WAL)]
    return [keys.split_extension(name)[0] for name in infos if "/" not in name]


def test_exit_codes(repository, tmp_path):
    name = whole_segments(repository)[0]
    assert wal_fetch(repository, "--no-prefetch", name, "segment", cwd=tmp_path).returncode == 0
    assert (tmp_path / "segment").stat().st_size == 1 << 20
    assert wal_fetch(repository, "0000000100000000000000FF", "x", cwd=tmp_path).returncode == 74
    assert wal_fetch(repository, "00000007.history", "x", cwd=tmp_path).returncode == 74
    assert wal_fetch(repository, name, "segment", cwd=tmp_path).returncode > 125
    assert wal_fetch(repository, "../x", "y", cwd=tmp_path).returncode > 125
    assert wal_fetch(repository, "--tail", name, "y", cwd=tmp_path).returncode > 125
    assert wal_fetch(repository, name, cwd=tmp_path).returncode > 125
    tail = next(i for i in repository.store.list(keys.WAL) if ".partial/" in i.key).key.removeprefix(keys.WAL)[:24]
    assert wal_fetch(repository, tail, "x", cwd=tmp_path).returncode == 74
    assert sorted(path.name for path in tmp_path.iterdir()) == ["segment"]


def test_the_next_segments_are_fetched_ahead_and_taken_without_a_connection(repository, workspace, tmp_path):
    names = whole_segments(repository)
    assert wal_fetch(repository, names[0], tmp_path / "first", cwd=tmp_path).returncode == 0
    ahead = tmp_path / ".pgbackup-prefetch"
    assert wait_until(lambda: all((ahead / name).exists() for name in names[1:4]), 30)
    (workspace / "repository").rename(workspace / "away")
    for number, name in enumerate(names[1:4]):
        done = wal_fetch(repository, name, tmp_path / f"taken-{number}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"taken-{number}").stat().st_size == 1 << 20
    (workspace / "away").rename(workspace / "repository")


def test_damage_is_not_an_absence(repository, tmp_path):
    name = whole_segments(repository)[-1]
    key = keys.wal(name, "zst")
    repository.store.put(key, repository.store.get(key)[:-9])
    done = wal_fetch(repository, name, "x", cwd=tmp_path)
    assert done.returncode > 125
    assert key in done.stderr
    with pytest.raises(PgbackupError):
        repository.restore()
