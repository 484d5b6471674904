"""A tool that lies, hangs, forks, floods, fails or is killed: nothing is confirmed that is not in the repository."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.timeline import MAX_HISTORY_BYTES
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.port import BackupOrder
from pgbackup.engines.wal.events import Durable, Failed
from pgbackup.engines.wale import base_backup, engine, shipping, stall, tool
from pgbackup.engines.wale.dialects import dialect
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.engine import ToolEngine
from pgbackup.engines.wale.tool_processes import MARK
from pgbackup.errors import BackupError, ToolError, WrongCluster
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.file import FileStore
from tests.contracts.engine import Shipment, made_segment
from tests.fix_app import MakeProgram
from tests.fix_postgres import ServerFactory
from tests.made_catalog import backup
from tests.streaming import flush_lsn, streaming
from tests.tool_engine import fill, pretend_tool, tool_engine, with_tool
from tests.waiting import wait_for

pytestmark = pytest.mark.not_for_walg("what a pretended tool leaves")


@dataclass
class Pretended:
    """An engine whose tool does what ``mode`` says."""

    engine: ToolEngine
    store: FileStore
    mode_file: Path
    spool: Path

    def mode(self, word: str) -> None:
        self.mode_file.write_text(word)

    def for_server(self, server: ThrowawayServer) -> ToolEngine:
        """The same tool for base backups of a server."""
        how = replace(self.engine._how, conninfo=server.conninfo(local=True))
        return ToolEngine(how, wal_concurrency=1, spool_parent=self.spool)

    def calls(self, verb: str) -> int:
        path = self.mode_file.with_suffix(".calls")
        return sum(line.startswith(verb) for line in path.read_text().splitlines()) if path.exists() else 0

    def spooled(self) -> list[Path]:
        return [path for path in self.spool.rglob("pg_wal/0*") if path.is_file()]


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    monkeypatch.setattr(shipping, "_LISTED_SECONDS", 0.5)
    repository, spool, mode = tmp_path / "repository", tmp_path / "spool", tmp_path / "mode"
    spool.mkdir()
    mode.write_text("good")
    engine = tool_engine("wal-g", pretend_tool(tmp_path), repository, spool, PRETEND_MODE=str(mode))
    yield Pretended(engine, FileStore(repository), mode, spool)
    engine.close()
    assert list(spool.iterdir()) == []
    assert _living(spool) == []


def _living(mentioned: Path) -> list[str]:
    """Processes of a tool that still live; other workers have theirs."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and f"{MARK}=".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return [line for line in found if str(mentioned) in line]


@pytest.fixture
def shipment(pretended: Pretended) -> Iterator[Shipment]:
    made = Shipment(pretended.engine, pretended.store)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("lie", "said that 000000010000000000000007 was pushed, and the repository does not list it"),
        ("empty", "said that 000000010000000000000007 was pushed, and the repository does not list it"),
        ("fail", r"wal-push failed \(exit 1\): \n  pretend: the store said 503 Slow Down"),
        ("torn", "wal-push was killed by SIGKILL"),
    ],
)
def test_what_is_not_stored_is_not_durable(pretended: Pretended, shipment: Shipment, mode: str, message: str) -> None:
    pretended.mode(mode)
    shipment.send(*made_segment(7))
    failed = shipment.outcome()
    assert isinstance(failed, Failed)
    with pytest.raises(ToolError, match=message):
        raise failed.error
    assert sum(shipment.stats.totals().errors.values()) == 1
    assert shipment.uploads.has_room


def test_the_rest_of_a_killed_push_is_pushed_again(pretended: Pretended, shipment: Shipment) -> None:
    name, data = made_segment(7)
    pretended.mode("torn")
    shipment.send(name, data)
    assert isinstance(shipment.outcome(), Failed)
    assert stored_keys(pretended.store, str(name))
    pretended.mode("good")
    shipment.send(name, data)
    assert isinstance(shipment.outcome(), Durable)
    assert pretended.store.get(stored_keys(pretended.store, str(name))[0]) == data


@pytest.mark.parametrize("stored", [b"", "half"], ids=["empty", "half"])
def test_what_is_no_segment_at_all_is_pushed_again(pretended: Pretended, shipment: Shipment, stored: object) -> None:
    """Uncompressed, half a segment reads well; it was called another cluster's."""
    name, data = made_segment(7)
    pretended.mode("blind")
    pretended.store.put(keys.wal(str(name), ""), data[: len(data) // 2] if stored else b"")
    shipment.send(name, data)
    assert isinstance(shipment.outcome(), Durable)
    assert pretended.store.get(keys.wal(str(name), "")) == data


def test_a_history_that_ours_begins_with_is_anothers(pretended: Pretended) -> None:
    """Of a branch that left the same timeline: it must not be replaced."""
    theirs = b"1\t0/3000000\tx\n"
    pretended.store.put(keys.wal("00000003.history", ""), theirs)
    shipping_ = pretended.engine.shipping(pretended.store)
    assert shipping_.put_history("00000003.history", theirs + b"2\t0/4000000\ty\n") == theirs
    assert pretended.store.get(keys.wal("00000003.history", "")) == theirs


def test_a_stop_leaves_no_tool_that_hangs(
    make_server: ServerFactory, make_program: MakeProgram, tmp_path: Path
) -> None:
    """Pushes have as long as a stop may take; what hangs on was left running for good."""
    server, mode = make_server(), tmp_path / "mode"
    mode.write_text("hang")
    tool = pretend_tool(tmp_path)
    settings = {"PRETEND_MODE": str(mode), "PGBACKUP_STOP_TIMEOUT": "10s", "PGBACKUP_SCHEDULE": "every 12 hours"}
    resident = with_tool(make_program, server, "wal-g", tool, **settings).run()
    wait_for(lambda: server.execute("SELECT active FROM pg_replication_slots") == [(True,)], timeout=60)
    fill(server, 0, 10)
    wait_for(lambda: _children_of(resident.process.pid), timeout=60)
    left = _children_of(resident.process.pid)
    resident.terminate()
    assert [pid for pid in left if Path(f"/proc/{pid}").exists()] == []


def _children_of(pid: int) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("mode", ["flood", "fork"])
def test_what_it_does_besides_does_no_harm(pretended: Pretended, shipment: Shipment, mode: str) -> None:
    pretended.mode(mode)
    shipment.send(*made_segment(7))
    assert isinstance(shipment.outcome(), Durable)


def test_a_history_of_any_size_is_read_in_part(pretended: Pretended) -> None:
    """Who can write to the repository decides how large it is."""
    pretended.store.put(keys.wal("00000002.history", ""), bytes(64 << 20))
    tracemalloc.start()
    try:
        stored = pretended.engine.shipping(pretended.store).put_history("00000002.history", b"1\t0/3000000\tx\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored == bytes(MAX_HISTORY_BYTES)
    assert peak < 16 << 20


def test_one_that_hangs_is_bounded_and_the_spool_with_it(
    pretended: Pretended, shipment: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended.mode("hang")
    shipment.send(*made_segment(7))
    assert shipment.uploads.has_room
    shipment.send(*made_segment(8))
    assert not shipment.uploads.has_room, "two are on their way: the server has to wait"
    assert len(pretended.spooled()) == 2
    assert shipment.uploads.oldest_job_seconds() > 0
    begin = time.monotonic()
    shipment.close()
    assert time.monotonic() - begin < 2 * tool.TERM_SECONDS + 2
    assert pretended.spooled() == []


def test_one_that_hangs_is_ended_in_time(
    pretended: Pretended, shipment: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_SECONDS", 1.0)
    monkeypatch.setattr(shipping, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    pretended.mode("hang")
    shipment.send(*made_segment(7))
    failed = shipment.outcome()
    assert isinstance(failed, Failed)
    assert "did not end within" in str(failed.error)


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
        wait_for(lambda: [line for line in _living(hung) if "backup-push" in line], timeout=30)
        killed.kill()
    assert _living(hung)
    server.execute("SELECT pg_start_backup('x', true)")
    how = replace(pretended.engine._how, conninfo=server.conninfo(local=True))
    how = replace(how, driver=ToolDriver(dialect("wal-e"), how.driver.program, how.driver._env))
    pretended.mode("lie")
    message = "the repository does not list it" if whose == "ours" else "in exclusive backup mode already"
    with closing(ToolEngine(how, wal_concurrency=1, spool_parent=pretended.spool)) as wal_e:
        with pytest.raises(ToolError, match=message):
            wal_e.take_backup(order, SilentProgress(), threading.Event())
    assert _living(hung) == []
    assert server.execute("SELECT pg_is_in_backup()") == [(whose != "ours",)]
    if whose != "ours":
        server.execute("SELECT pg_stop_backup()")


def test_a_lie_confirms_nothing_to_the_server(pretended: Pretended, make_server: ServerFactory) -> None:
    server = make_server()
    pretended.mode("lie")
    with streaming(server, pretended.store, shipping=pretended.engine.shipping(pretended.store)) as stream:
        stream.wait_streaming()
        fill(server, 0, 100)
        position = stream.wait_for(lambda position: "does not list it" in position.problem)
        assert position.permanent, "a finding that somebody has to look at"
        begun = position.began
        slot = "SELECT restart_lsn::text FROM pg_replication_slots"
        held = server.execute(slot)
        fill(server, 100, 200)
        assert stream.progress.get().confirmed <= begun
        assert server.execute(slot) == held, "the slot keeps what is not stored"


def test_a_failing_tool_is_tried_again_and_back_pressure_reaches_the_slot(
    pretended: Pretended, make_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_SECONDS", 25.0)
    monkeypatch.setattr(shipping, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    server = make_server()
    pretended.mode("hang")
    with streaming(server, pretended.store, shipping=pretended.engine.shipping(pretended.store)) as stream:
        stream.wait_streaming()
        for begin in range(0, 600, 100):
            fill(server, begin, begin + 100)
        end = flush_lsn(server)
        time.sleep(1.5)
        assert len(pretended.spooled()) <= 3, "two on their way, and the one that is received"
        assert stream.progress.get().received < end
        begin_stop = time.monotonic()
        server.stop("fast")
        assert time.monotonic() - begin_stop < 30, "15 s of standing still, and then some"
        pretended.mode("good")
        server.start()
        stream.wait_for(lambda position: position.whole >= end // (16 * MIB) * (16 * MIB), timeout=90)
