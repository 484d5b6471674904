"""Others write where a stream does: another cluster, an older copy of the server, a second session. Never are both
confirmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.engines.wal.fence import Fence
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore
from tests.fix_postgres import ServerFactory
from tests.streaming import ZSTD, fill, flush_lsn, piece_keys, streaming

MakeServer = Callable[..., ThrowawayServer]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_another_cluster_on_the_same_prefix_is_refused(make_server: MakeServer, store: MemoryStore) -> None:
    first, second = make_server(), make_server(fresh=True)
    with streaming(first, store) as wal:
        fill(first, 100)
        wal.wait_streaming()
        wal.wait_confirmed(flush_lsn(first))
    before = {info.key for info in store.list("")}
    with streaming(second, store) as wal:
        position = wal.wait_for(lambda p: p.permanent)
        assert "prefix" in position.problem
    assert {info.key for info in store.list("")} == before


def test_other_bytes_in_a_stored_piece_are_a_conflict(make_server: MakeServer, store: MemoryStore) -> None:
    """A server that was set back to an older copy of itself writes other WAL at the same place."""
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_streaming()
        fill(server, 50)
        wal.wait_confirmed(flush_lsn(server))
    piece = sorted(piece_keys(store))[-1]
    name = keys.parse_piece(piece)
    assert name is not None
    store.delete([piece])
    store.put(piece, ZSTD.encode(b"\x00" * (name.end - name.first)))
    with streaming(server, store) as wal:
        position = wal.wait_for(lambda p: p.permanent)
        assert "differs" in position.problem


@pytest.fixture
def within_a_stored_segment(make_server: ServerFactory, store: MemoryStore) -> ServerFactory:
    """A copy of a server lies in ``copy``; the open segment of that time is stored whole since."""
    server = make_server()
    with streaming(server, store, flush_seconds=0.0) as wal:
        wal.wait_confirmed(flush_lsn(server))
    server.stop()
    make_server.account.run(["cp", "-a", f"{server.data_directory}/.", make_server.new_directory("copy")])
    server.start()
    with streaming(server, store, flush_seconds=0.0) as wal:
        wal.wait_streaming()
        fill(server, 50)
        server.execute("SELECT pg_switch_wal()")
        fill(server, 50)
        wal.wait_confirmed(flush_lsn(server))
        wal.wait_for(lambda _: len({keys.parse_piece(k).segment for k in piece_keys(store)}) == 1)  # type: ignore[union-attr]
    server.stop()
    return make_server


def test_a_server_set_back_into_a_stored_segment_confirms_nothing(
    within_a_stored_segment: ServerFactory, store: MemoryStore
) -> None:
    """A restore takes the whole segment: a commit that is only in a piece beside it would be lost, acknowledged."""
    server = within_a_stored_segment.over(within_a_stored_segment.workspace / "copy")
    stored = set(store.list(keys.WAL))
    with streaming(server, store, flush_seconds=0.0) as wal:
        wal.wait_streaming()
        fill(server, 200)
        position = wal.wait_for(lambda p: p.permanent)
        assert "another segment" in position.problem
        assert position.confirmed < flush_lsn(server)
    assert set(store.list(keys.WAL)) == stored


def test_a_standby_that_is_behind_what_is_stored_is_compared_with_it(
    within_a_stored_segment: ServerFactory, store: MemoryStore
) -> None:
    directory = within_a_stored_segment.workspace / "copy"
    (directory / "standby.signal").touch()
    stored = set(store.list(keys.WAL))
    standby = within_a_stored_segment.over(directory)
    with streaming(standby, store, flush_seconds=0.0) as wal:
        end = Lsn.parse(standby.execute("SELECT pg_last_wal_replay_lsn()::text")[0][0])
        assert end % (16 * MIB), "it is within the segment"
        wal.wait_confirmed(end)
    assert set(store.list(keys.WAL)) == stored


def test_an_overlapping_writer_stops_confirmation_until_compared(make_server: MakeServer, store: MemoryStore) -> None:
    """Another session puts a piece beside ours: with other bytes nothing more is confirmed."""
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_streaming()
        fill(server, 50)
        position = wal.wait_confirmed(flush_lsn(server))
        segment = SegmentName.containing(1, position.confirmed - 1)
        offset = position.confirmed - segment.start
        Fence(store, 1).put_up()
        store.put_if_absent(keys.piece(str(segment), offset, offset + 512, "zst"), ZSTD.encode(b"\xff" * 512))
        fill(server, 50)
        wal.wait_for(lambda p: p.permanent)
        assert wal.progress.get().confirmed <= position.confirmed


def test_pieces_that_came_after_the_listing_are_confirmed_only_behind_the_fence(
    make_server: MakeServer, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A request of a killed process arrives late, when yet another session has begun, which has not seen it."""
    server = make_server()
    server.execute("CREATE TABLE filler (t text)")
    with streaming(server, store) as wal:
        wal.wait_confirmed(flush_lsn(server))
        fill(server, 50)
        confirmed = wal.wait_confirmed(flush_lsn(server)).confirmed
    late = max(piece_keys(store))
    content = store.get(late)
    store.delete([late])

    fences = 0

    def arrive(operation: str, key: str) -> None:
        nonlocal fences
        fences += operation in {"put_if_absent", "replace"} and key == keys.fence(1)
        if fences and operation == "list" and key == late.rpartition("/")[0] + "/":
            store.on_call = None
            Fence(store, 1).put_up()
            store.put(late, content)

    store.on_call = arrive
    with streaming(server, store) as wal:
        wal.wait_confirmed(confirmed)
        assert store.on_call is None, "it was there when the pieces were listed again"
        assert "another session began" in caplog.text
