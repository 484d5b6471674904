"""A base backup by a tool that stands still, lies or is killed, and the backup mode that it leaves."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.port import BackupOrder
from pgbackup.engines.wale import base_backup, engine, stall, tool
from pgbackup.engines.wale.dialects import dialect
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.engine import ToolEngine
from pgbackup.errors import BackupError, ToolError, WrongCluster
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_postgres import ServerFactory
from tests.fix_pretended_tool import Pretended, living
from tests.made_catalog import backup
from tests.waiting import wait_for

pytestmark = pytest.mark.not_for_walg("what a pretended tool leaves")


class NoWal:
    """Sees to no WAL: the backup never gets as far as to wait for it."""

    def begin(self, timeline: int, start_lsn: Lsn, segment_bytes: int) -> None: ...

    def wait_for(self, *_: object, **__: object) -> bool:
        raise AssertionError("nothing was backed up")


@pytest.fixture
def order(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> BackupOrder:
    """A base backup of which nothing may be heard for a second and a half."""
    monkeypatch.setattr(stall, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(stall, "STALLED_SECONDS", 1.5)
    return BackupOrder(pretended.store, NoWal())


def test_a_base_backup_that_stands_still_is_ended(
    pretended: Pretended, order: BackupOrder, server: ThrowawayServer
) -> None:
    engine = pretended.for_server(server)
    pretended.mode("hang")
    begin = time.monotonic()
    with pytest.raises(BackupError, match="printed and stored nothing: it stood still") as caught:
        engine.take_backup(order, SilentProgress(), threading.Event())
    assert caught.value.retryable
    assert 1.5 < time.monotonic() - begin < 1.5 + tool.TERM_SECONDS + 5


@pytest.mark.parametrize("mode", ["mutter", "trickle"])
def test_one_that_prints_or_stores_is_let_work(
    pretended: Pretended, order: BackupOrder, server: ThrowawayServer, mode: str
) -> None:
    """Twice as long as it may be silent: then it fails by itself."""
    engine = pretended.for_server(server)
    pretended.mode(mode)
    with pytest.raises(ToolError, match=r"backup-push failed \(exit 1\)"):
        engine.take_backup(order, SilentProgress(), threading.Event())


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        ("lie", ToolError, "said that the backup was pushed, and the repository does not list it"),
        ("hollow", ToolError, "has sealed a backup without any data"),
        ("foreign", WrongCluster, "has backed up another cluster than the one that WAL is streamed from"),
    ],
)
def test_a_base_backup_counts_by_what_the_repository_lists(
    pretended: Pretended,
    order: BackupOrder,
    server: ThrowawayServer,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(base_backup, "_LISTED_SECONDS", 0.5)
    pretended.mode(mode)
    with pytest.raises(error, match=message):
        pretended.for_server(server).take_backup(order, SilentProgress(), threading.Event())


def test_wal_g_obeys_the_rate_of_one_backup(
    pretended: Pretended, order: BackupOrder, server: ThrowawayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_backup, "_LISTED_SECONDS", 0.1)
    pretended.mode("lie")
    slowly = replace(order, max_rate=4_000_000)
    with pytest.raises(ToolError, match="does not list it"):
        pretended.for_server(server).take_backup(slowly, SilentProgress(), threading.Event())
    calls = pretended.mode_file.with_suffix(".calls").read_text().splitlines()
    assert any(line.startswith("backup-push") and line.endswith("at 4000000 bytes/s") for line in calls)


def test_a_fetch_that_stands_still_is_ended(
    pretended: Pretended, order: BackupOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "_FETCH_LOOK_SECONDS", 0.1)
    target = tmp_path / "target"
    target.mkdir()
    taken = replace(backup(9.1, 9.2), engine="wal-g")
    with pytest.raises(ToolError, match="backup-fetch printed and wrote nothing: it stood still"):
        pretended.engine.fetch_files(taken, target, 1)


def test_the_server_leaves_the_backup_mode_that_wal_e_was_ended_in(
    pretended: Pretended, order: BackupOrder, make_server: ServerFactory
) -> None:
    """Exclusive backup mode: it would keep the next backup from starting, and its label file the server."""
    server = make_server(14)
    how = replace(pretended.engine._how, conninfo=server.conninfo(local=True))
    how = replace(how, driver=ToolDriver(dialect("wal-e"), how.driver.program, how.driver._env))
    pretended.mode("hang")
    starts = threading.Timer(0.8, server.execute, ["SELECT pg_start_backup('x', true)"])
    starts.start()
    with closing(ToolEngine(how, wal_concurrency=1, spool_parent=pretended.spool)) as wal_e:
        with pytest.raises(BackupError, match="stood still"):
            wal_e.take_backup(order, SilentProgress(), threading.Event())
    starts.join()
    assert server.execute("SELECT pg_is_in_backup()") == [(False,)]


def test_somebody_elses_backup_mode_is_left_alone(
    pretended: Pretended, order: BackupOrder, make_server: ServerFactory
) -> None:
    """Another WAL-E was quicker: to end its mode would ruin its backup."""
    server = make_server(14)
    how = replace(pretended.engine._how, conninfo=server.conninfo(local=True))
    how = replace(how, driver=ToolDriver(dialect("wal-e"), how.driver.program, how.driver._env))
    pretended.mode("busy")

    def start() -> None:
        wait_for(lambda: pretended.calls("backup-push"), timeout=30)
        server.execute("SELECT pg_start_backup('x', true)")
        pretended.mode_file.with_suffix(".go").touch()

    starts = threading.Thread(target=start)
    starts.start()
    with closing(ToolEngine(how, wal_concurrency=1, spool_parent=pretended.spool)) as wal_e:
        with pytest.raises(ToolError, match="the server is in backup mode already"):
            wal_e.take_backup(order, SilentProgress(), threading.Event())
    starts.join()
    assert server.execute("SELECT pg_is_in_backup()") == [(True,)]
    server.execute("SELECT pg_stop_backup()")


_KILLED = """
import sys
from pgbackup.engines.wale.tool import run_program
run_program(sys.argv[1:], env={}, timeout_seconds=600)
"""


@pytest.mark.parametrize("whose", ["ours", "another server's"])
def test_after_a_killed_pgbackup_its_wal_e_is_ended_and_the_backup_mode_with_it(
    pretended: Pretended,
    order: BackupOrder,
    make_server: ServerFactory,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    whose: str,
) -> None:
    """SIGKILL of pgbackup during a base backup; the next one would be refused until somebody ends the mode by hand."""
    monkeypatch.setattr(base_backup, "_LISTED_SECONDS", 0.5)
    server = make_server(14)
    directory = server.data_directory if whose == "ours" else Path("/nowhere")
    hung = tmp_path / "hung.py"
    hung.write_text("import time\ntime.sleep(600)\n")
    words = [sys.executable, str(hung), "backup-push", "--pool-size", "1", str(directory)]
    with subprocess.Popen([sys.executable, "-c", _KILLED, *words], cwd=Path(__file__).parents[2]) as killed:
        wait_for(lambda: [line for line in living(hung) if "backup-push" in line], timeout=30)
        killed.kill()
    assert living(hung)
    server.execute("SELECT pg_start_backup('x', true)")
    how = replace(pretended.engine._how, conninfo=server.conninfo(local=True))
    how = replace(how, driver=ToolDriver(dialect("wal-e"), how.driver.program, how.driver._env))
    pretended.mode("lie")
    message = "the repository does not list it" if whose == "ours" else "in exclusive backup mode already"
    with closing(ToolEngine(how, wal_concurrency=1, spool_parent=pretended.spool)) as wal_e:
        with pytest.raises(ToolError, match=message):
            wal_e.take_backup(order, SilentProgress(), threading.Event())
    assert living(hung) == []
    assert server.execute("SELECT pg_is_in_backup()") == [(whose != "ours",)]
    if whose != "ours":
        server.execute("SELECT pg_stop_backup()")
