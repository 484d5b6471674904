"""Timeline switches: every branch stays restorable, no two branches are mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import parse_history
from pgbackup.postgres.replication import ReplicationConnection, TimelineEnd
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore
from tests.streaming import ZSTD, assert_wal_equal, flush_lsn, stored_wal, streaming

MakeServer = Callable[..., ThrowawayServer]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def switch_timeline(server: ThrowawayServer) -> Lsn:
    """Stop the server and bring it back on a new timeline, as a recovery that ends does. Returns the fork."""
    if server.running:
        server.stop("fast")
    signal = server.data_directory / "recovery.signal"
    signal.touch()
    server.account.own(signal)
    server.start(settings={"restore_command": "false"})
    server.wait_promoted()
    return history(server).begin


def timeline(server: ThrowawayServer) -> int:
    return int(server.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")[0][0], 16)


def history(server: ThrowawayServer):
    number = timeline(server)
    return parse_history(number, (server.data_directory / "pg_wal" / f"{number:08X}.history").read_text())


def write(server: ThrowawayServer, rows: int = 500) -> None:
    server.execute("CREATE TABLE IF NOT EXISTS filler (t text)")
    server.execute(f"INSERT INTO filler SELECT repeat(md5(i::text), 20) FROM generate_series(1, {rows}) i")


def test_a_promotion_is_followed_on_every_major(pg_major: int, make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server(pg_major)
    with streaming(server, store) as wal:
        begin = wal.wait_streaming().whole
        write(server)
        wal.wait_confirmed(flush_lsn(server))
        fork = switch_timeline(server)
        assert not history(server).ancestors[-1].was_chosen, "nobody told it to stop there"
        write(server, 30_000)
        end = flush_lsn(server)
        wal.wait_for(lambda p: p.timeline == 2 and p.confirmed >= end)
        assert store.head("wal_005/00000002.history.zst") is not None
        # The old timeline's end is there to its last byte, the child's segment of the fork begins with its bytes.
        forked = SegmentName.containing(1, fork)
        old = stored_wal(store, forked)
        assert len(old) >= fork - forked.start
        assert_wal_equal(server, store, 2, forked.start, end)
        assert stored_wal(store, SegmentName(2, forked.number))[: fork - forked.start] == old[: fork - forked.start]
        assert begin <= fork


def test_a_promotion_is_followed_where_only_whole_segments_are_stored(
    make_server: MakeServer, store: MemoryStore
) -> None:
    """As the tools store them. The old timeline's last bytes never come in a segment of its own."""
    server = make_server(segment_mb=1)
    with streaming(server, store, flush_seconds=None) as wal:
        wal.wait_streaming()
        write(server, 5000)
        fork = switch_timeline(server)
        write(server, 5000)
        wal.wait_for(lambda p: p.timeline == 2 and p.whole > fork, timeout=20)
        assert_wal_equal(server, store, 2, fork - fork % (1 << 20), wal.progress.get().whole)


def test_asking_for_what_comes_after_a_timeline(pg_major: int, make_server: MakeServer) -> None:
    """The server answers with rows instead of a stream."""
    server = make_server(pg_major)
    fork = switch_timeline(server)
    connection = ReplicationConnection.connect(server.conninfo(), application_name="pgbackup")
    try:
        assert connection.start_streaming(fork, 1, None) == TimelineEnd(2, fork)
        assert connection.identify().timeline == 2, "the connection goes on"
    finally:
        connection.close()


def test_switching_while_pgbackup_is_away(make_server: MakeServer, store: MemoryStore) -> None:
    """The end of the old timeline and all of the new one are fetched afterwards."""
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_streaming()
        write(server)
        wal.wait_confirmed(flush_lsn(server))
    write(server, 30_000)
    fork = switch_timeline(server)
    write(server, 500)
    second_fork = switch_timeline(server)
    write(server, 500)
    with streaming(server, store) as wal:
        end = flush_lsn(server)
        wal.wait_for(lambda p: p.timeline == 3 and p.confirmed >= end)
    assert {k.rsplit("/", 1)[1] for k in (i.key for i in store.list(keys.WAL)) if "history" in k} == {
        "00000002.history.zst",
        "00000003.history.zst",
    }
    old = SegmentName.containing(1, fork)
    assert len(stored_wal(store, old)) >= fork - old.start
    middle = SegmentName.containing(2, second_fork)
    assert len(stored_wal(store, middle)) >= second_fork - middle.start
    assert_wal_equal(server, store, 3, SegmentName.containing(3, second_fork).start, end)


def test_no_moment_is_known_from_a_timeline_that_has_ended(
    make_server: MakeServer, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Its WAL is all there, but the server is at work on the next one: a mark would promise what is committed there."""
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_streaming()
        write(server)
        wal.wait_confirmed(flush_lsn(server))
    fork = switch_timeline(server)
    write(server)
    end = flush_lsn(server)
    with streaming(server, store) as wal:
        wal.wait_for(lambda p: p.timeline == 2 and p.confirmed >= end)
    marks = [mark for info in store.list(keys.MARKS) if (mark := keys.parse_mark(info.key))]
    switched = store.head("wal_005/00000002.history.zst")
    assert switched is not None
    assert [lsn for moment, number, lsn in marks if number == 1 and moment > switched.modified] == []
    assert [lsn for _, number, lsn in marks if number == 2 and lsn > fork]
    assert "interrupted" not in caplog.text, "the end of a timeline is no failure"


def test_two_branches_with_the_same_timeline_number_do_not_mix(make_server: MakeServer, store: MemoryStore) -> None:
    """Their history files are equal byte for byte; the first bytes after the fork are not."""
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_streaming()
        write(server)
        wal.wait_confirmed(flush_lsn(server))
        server.stop("fast")
        wal.stop()
    copy = server.data_directory.with_name(server.data_directory.name + "-copy")
    server.account.run(["cp", "-a", server.data_directory, copy])
    switch_timeline(server)
    with streaming(server, store, writer="one") as wal:
        write(server)
        end = flush_lsn(server)
        wal.wait_for(lambda p: p.timeline == 2 and p.confirmed >= end)
        wal.stop()
    other = make_server.over(copy, start=False)  # type: ignore[attr-defined]
    switch_timeline(other)
    write(other)
    before = {info.key for info in store.list(keys.WAL)}
    with streaming(other, store, writer="two", adopt=True) as wal:
        position = wal.wait_for(lambda p: p.permanent)
        assert "timeline 2" in position.problem or "differs" in position.problem
    assert {info.key for info in store.list(keys.WAL)} == before
    shutil.rmtree(copy, ignore_errors=True)


def test_a_timeline_is_claimed_with_its_first_bytes(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    fork = switch_timeline(server)
    with streaming(server, store) as wal:
        write(server)
        end = flush_lsn(server)
        wal.wait_for(lambda p: p.timeline == 2 and p.confirmed >= end)
    claim = json.loads(store.get(keys.timeline_claim(2)))
    assert claim["fork"] == str(fork)
    assert claim["first_bytes"] == 96


def test_a_restored_copy_with_the_originals_settings_is_refused(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    with streaming(server, store, writer="one", host="alpha") as wal:
        wal.wait_streaming()
        write(server)
        wal.wait_confirmed(flush_lsn(server))
        server.stop("fast")
    switch_timeline(server)
    server.configure(restore_command="cp pgbackup_wal/%f %p")
    server.reload()
    with streaming(server, store, writer="two", host="beta") as wal:
        assert "PGBACKUP_ADOPT" in wal.wait_for(lambda p: p.permanent).problem
    assert store.head("wal_005/00000002.history.zst") is None
    with streaming(server, store, writer="two", host="beta", adopt=True) as wal:
        wal.wait_for(lambda p: p.timeline == 2 and p.confirmed >= flush_lsn(server))


def test_a_pieces_object_is_never_read_as_another_timelines(store: MemoryStore) -> None:
    key = keys.piece(str(SegmentName(1, 3)), 0, 10, "zst")
    store.put_if_absent(key, ZSTD.encode(b"0123456789"))
    piece = keys.parse_piece(key)
    assert piece is not None
    assert piece.segment == "000000010000000000000003"
