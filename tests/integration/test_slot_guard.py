"""The slot on real servers: looked at with few rights, dropped at the limit, and a gap is recorded and mended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.engines.wal.stream_pause import StreamPause
from pgbackup.errors import SlotBusy
from pgbackup.postgres.pg_wal_watch import look_at_pg_wal
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.postgres.session import Session
from pgbackup.postgres.slot_watch import look_at_slot
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository.gap_ledger import read_gaps
from pgbackup.storage.memory import MemoryStore
from pgbackup.supervisor.slot_guard import SlotGuard
from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.fix_proxy import TcpProxy
from tests.fix_store import S3Server
from tests.streaming import flush_lsn, streaming
from tests.waiting import wait_for
from tests.workload import CounterWriter, assert_counter

SMALL = {"max_wal_size": "32MB", "min_wal_size": "32MB", "wal_keep_size": "0"}


def session(server: ThrowawayServer) -> Session:
    return Session.connect(server.conninfo(user="pgbackup"), application_name="guard")


def write_wal(server: ThrowawayServer, megabytes: int) -> None:
    server.execute("CREATE TABLE IF NOT EXISTS filler (t text)")
    for _ in range(megabytes):
        server.execute("INSERT INTO filler SELECT repeat(md5(i::text), 32) FROM generate_series(1, 900) i")


def fill_segments(server: ThrowawayServer, count: int) -> None:
    """So many segments of WAL, with little in them."""
    for _ in range(count):
        server.execute("SELECT pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()")


def forget_old_wal(server: ThrowawayServer) -> None:
    """Make the server remove what no slot keeps."""
    for _ in range(2):
        server.execute("SELECT pg_switch_wal()")
        server.execute("CHECKPOINT")


def test_every_major_is_looked_at(make_server: ServerFactory, pg_major: int) -> None:
    settings = {**SMALL, "max_slot_wal_keep_size": "1GB", "wal_keep_size": "32MB", "archive_mode": True}
    server = make_server(pg_major, settings=settings)
    with session(server) as connection:
        assert not look_at_slot(connection, "pgbackup").exists
        connection.create_slot("other")
        connection.create_slot("pgbackup")
        write_wal(server, 3)
        sample = look_at_slot(connection, "pgbackup")
        fill_segments(server, 2)
        pg_wal = look_at_pg_wal(connection, "pgbackup", look_at_slot(connection, "pgbackup"))
    assert (sample.exists, sample.active, sample.wal_status) == (True, False, "reserved")
    assert 2 << 20 < sample.retained_bytes < 40 << 20
    assert sample.limit_bytes == 1 << 30
    assert sample.safe_bytes is not None
    assert sample.wal_bytes is not None
    assert sample.wal_bytes >= 16 << 20

    (slot,) = pg_wal.slots
    assert (slot.name, slot.active) == ("other", False)
    assert slot.retained_bytes >= 1 << 24
    assert (pg_wal.keep_bytes, pg_wal.max_bytes, pg_wal.failed_wal) == (32 << 20, 32 << 20, "")
    assert pg_wal.waiting_bytes is not None
    assert pg_wal.waiting_bytes >= 2 << 24
    assert pg_wal.without_command


def test_a_slot_beyond_the_limit_is_dropped_and_says_so(server: ThrowawayServer) -> None:
    with session(server) as connection:
        connection.create_slot("pgbackup")
    guard = SlotGuard(lambda: session(server), "pgbackup", limit_bytes=4 << 20)
    assert guard.look() == []
    write_wal(server, 8)
    assert [finding.key for finding in guard.look()] == ["slot:dropped"]
    assert server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    assert [finding.key for finding in guard.look()] == ["slot:dropped"]


@contextmanager
def held(server: ThrowawayServer, user: str) -> Iterator[None]:
    """Somebody streams from the slot, and does not let go."""
    connection = ReplicationConnection.connect(server.conninfo(user=user), application_name="holder")
    try:
        identity = connection.identify()
        connection.start_streaming(identity.flush_lsn, identity.timeline, "pgbackup")
        yield
    finally:
        connection.close()


def test_a_stream_of_ours_that_hangs_does_not_save_the_slot(server: ThrowawayServer) -> None:
    """It does not let go by itself, so its connection is ended: the server's disk would be full."""
    with session(server) as connection:
        connection.create_slot("pgbackup")

    @contextmanager
    def let_go() -> Iterator[None]:
        raise SlotBusy("the WAL stream did not let go of the slot")
        yield

    guard = SlotGuard(lambda: session(server), "pgbackup", let_go=let_go, limit_bytes=4 << 20)
    with held(server, "pgbackup"):
        write_wal(server, 8)
        assert [finding.key for finding in guard.look()] == ["slot:dropped"]
    assert server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]


def test_a_slot_that_cannot_be_dropped_is_told(server: ThrowawayServer) -> None:
    """Somebody with more rights holds it: nobody may think that the limit saves the server."""
    with session(server) as connection:
        connection.create_slot("pgbackup")
    guard = SlotGuard(lambda: session(server), "pgbackup", limit_bytes=4 << 20)
    with held(server, "postgres"):
        write_wal(server, 8)
        (finding,) = guard.look()
        assert (finding.key, finding.severity.word) == ("slot:not-dropped", "critical")
        assert "permission denied" in finding.summary
    assert [finding.key for finding in guard.look()] == ["slot:dropped"]


def test_that_a_slot_was_dropped_is_told_although_there_is_a_new_one(server: ThrowawayServer) -> None:
    with session(server) as connection:
        connection.create_slot("pgbackup")
        guard = SlotGuard(lambda: session(server), "pgbackup", limit_bytes=4 << 20)
        write_wal(server, 8)
        guard.look()
        connection.create_slot("pgbackup")
    assert [finding.key for finding in guard.look()] == ["slot:dropped"]


def test_the_guard_looks_while_the_health_check_waits_for_a_store(
    make_server: ServerFactory, make_program: MakeProgram, s3_server: S3Server
) -> None:
    """The store hangs, so the slot grows: that is when it has to be watched, and told of."""
    proxy = TcpProxy(("127.0.0.1", s3_server.port))
    server = make_server(settings=SMALL)
    program = make_program(
        server,
        s3=True,
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}",
        PGBACKUP_SLOT_MAX_RETAINED="64MiB",
        PGBACKUP_HEALTH_INTERVAL="5s",
    )
    try:
        resident = program.run()
        program.wait_backups(1)
        proxy.pause()
        begin = time.monotonic()
        write_wal(server, 80)
        resident.wait_log("dropping replication slot", timeout=30)
        while server.execute("SELECT count(*) FROM pg_replication_slots") != [(0,)]:
            assert time.monotonic() - begin < 30
            time.sleep(0.05)
        resident.wait_log("alert opened: slot:dropped", timeout=30)
        forget_old_wal(server)
        proxy.resume()
        program.wait_backups(2)
        assert program.json("gaps")["gaps"]
    finally:
        proxy.close()


def test_the_stream_lets_go_of_the_slot_and_begins_again(server: ThrowawayServer) -> None:
    pause = StreamPause()
    running, stop = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with pause.session(stop) as session_stop:
                running.set()
                session_stop.wait(5)
                running.clear()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert running.wait(5)
    with pause.hold(5):
        assert not running.is_set()
        time.sleep(0.3)
        assert not running.is_set()
    assert running.wait(5)
    stop.set()
    thread.join(5)


def test_a_stream_that_does_not_end_is_not_waited_for_for_ever() -> None:
    pause = StreamPause()
    with pause.session(threading.Event()), pytest.raises(SlotBusy), pause.hold(0.1):
        pass


def drop_idle_slot(server: ThrowawayServer) -> None:
    """The server may take a moment to notice that nobody streams any more."""
    idle = "SELECT active FROM pg_replication_slots WHERE slot_name = 'pgbackup'"
    wait_for(lambda: server.execute(idle) == [(False,)])
    server.execute("SELECT pg_drop_replication_slot('pgbackup')")


def test_a_dropped_slot_with_wal_still_there_leaves_no_gap(server: ThrowawayServer) -> None:
    store = MemoryStore()
    with streaming(server, store) as stream:
        stream.wait_streaming()
        stream.wait_confirmed(flush_lsn(server))
    drop_idle_slot(server)
    write_wal(server, 2)
    with streaming(server, store) as stream:
        stream.wait_confirmed(flush_lsn(server))
    assert read_gaps(store) == ()


def test_wal_that_is_really_gone_is_recorded(make_server: ServerFactory) -> None:
    server = make_server(settings=SMALL)
    store = MemoryStore()
    with streaming(server, store) as stream:
        write_wal(server, 20)
        stream.wait_confirmed(flush_lsn(server))
    drop_idle_slot(server)
    write_wal(server, 60)
    forget_old_wal(server)
    with streaming(server, store) as stream:
        stream.wait_confirmed(flush_lsn(server))
        (gap,) = read_gaps(store)
        write_wal(server, 20)
        stream.wait_confirmed(flush_lsn(server))
    with streaming(server, store) as stream:
        stream.wait_confirmed(flush_lsn(server))
        assert read_gaps(store) == (gap,), "the next start asks for it again, and calls lost what is stored since"
    assert gap.timeline == 1
    assert gap.end > gap.start
    assert gap.end <= flush_lsn(server)
    assert "slot pgbackup was missing" in gap.reason


def test_a_slot_dropped_by_hand_under_load(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    """End to end: a gap, a base backup at once, red until then, a warning until it is acknowledged, then green."""
    server = make_server(settings=SMALL)
    program = make_program(server, PGBACKUP_HEALTH_INTERVAL="5s")
    resident = program.run()
    program.wait_backups(1)
    with CounterWriter(server.conninfo()) as writer:
        writer.wait_more(50)
        lost = Lsn.parse(server.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0])
        resident.kill()
        deadline = time.monotonic() + 30
        while server.execute("SELECT active FROM pg_replication_slots") == [(True,)]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.execute("SELECT pg_drop_replication_slot('pgbackup')")
        write_wal(server, 60)
        forget_old_wal(server)
        resident = program.run()
        program.wait_backups(2)
        writer.wait_more(50)
        commits = writer.stop()
    wait_shipped(program, server)
    (gap,) = program.json("gaps")["gaps"]
    assert "is lost" in program("status", exit_code=1)
    said = program("restore", "--target", "nowhere", "--plan", "--to-lsn", str(Lsn(lost + (40 << 20))), exit_code=6)
    assert "slot pgbackup was missing" in said
    program("gaps", "acknowledge", gap["name"], "--comment", "the test's")
    deadline = time.monotonic() + 30
    while (status := program.json("status"))["verdict"] != "ok":
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
    assert program.json("gaps")["gaps"][0]["comment"] == "the test's"
    assert_counter(restore(program, server.major, "--latest"), commits)


def test_others_that_fill_pg_wal_are_named(make_server: ServerFactory) -> None:
    """Our slot keeps up; an archive_command that fails, and then somebody's forgotten slot, do not."""
    server = make_server(settings={**SMALL, "archive_mode": True, "archive_command": "false"})
    guard = SlotGuard(lambda: session(server), "pgbackup")
    with session(server) as connection:
        connection.create_slot("pgbackup")
        assert guard.look() == []
        fill_segments(server, 18)
        connection.drop_slot("pgbackup")
        connection.create_slot("pgbackup")
        wait_for(lambda: server.execute("SELECT last_failed_wal IS NOT NULL FROM pg_stat_archiver") == [(True,)])
        (finding,) = guard.look()
        assert finding.key == "pg-wal:archiving"
        assert "archive_command fails at 0000000100000000000000" in finding.summary
        assert int(finding.facts["held_bytes"] or 0) >= 18 << 24
        assert int(finding.facts["bytes_per_second"] or 0) > 0

        server.configure(archive_command="/bin/true")
        server.reload()
        server.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
        fill_segments(server, 18)
        connection.drop_slot("pgbackup")
        connection.create_slot("pgbackup")
        ready = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
        wait_for(lambda: server.execute(ready) == [(0,)])
        (finding,) = guard.look()
    assert finding.key == "pg-wal:slot:forgotten"
    assert "nobody streams from replication slot forgotten" in finding.summary
    assert "is full in" in finding.summary, "at the rate of this test"
