"""WAL of real servers into a store: nothing lost, nothing confirmed too early, Postgres is never held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pgbackup.core.lsn import MIB
from pgbackup.engines.wal import bookkeeping
from pgbackup.engines.wal.segment import PIECE_BYTES
from pgbackup.errors import StoreUnavailable
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.streaming import ZSTD, assert_wal_equal, fill, flush_lsn, piece_keys, streaming
from tests.workload import CounterWriter

MakeServer = Callable[..., ThrowawayServer]
NEVER_QUIET = """
    DO $$ BEGIN
        WHILE to_regclass('go_on') IS NOT NULL LOOP
            INSERT INTO filler SELECT repeat(md5(i::text), 20) FROM generate_series(1, 50) i;
            COMMIT;
        END LOOP;
    END $$
"""


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def down(operation: str, key: str) -> None:
    """A store that takes nothing."""
    if operation not in {"list", "list_level", "get", "head"}:
        raise StoreUnavailable("the test's store is down")


def segment_keys(store: MemoryStore) -> list[str]:
    return [i.key for i in store.list(keys.WAL) if keys.parse_piece(i.key) is None and ".history" not in i.key]


def slot_lsn(server: ThrowawayServer) -> str:
    return str(server.execute("SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'pgbackup'")[0][0])


@pytest.mark.parametrize("damaged", [keys.LEASE, keys.gap(1, 0, MIB)])
def test_damaged_notes_do_not_keep_wal_from_being_shipped(
    make_server: MakeServer, store: MemoryStore, damaged: str
) -> None:
    """Shipping needs neither the lease nor the ledger of gaps; that they are damaged is told by health."""
    store.put(damaged, b"{")
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_confirmed(flush_lsn(server), timeout=10)


def test_everything_is_stored_on_every_major(pg_major: int, make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server(pg_major)
    with streaming(server, store) as wal:
        start = wal.wait_streaming().whole
        fill(server)
        end = flush_lsn(server)
        wal.wait_confirmed(end)
        assert len(segment_keys(store)) >= 1
        assert_wal_equal(server, store, 1, start, end)
        assert piece_keys(store), "the open segment has pieces"
        confirmed = wal.progress.get().confirmed
        slot = server.execute("SELECT restart_lsn >= %s::pg_lsn FROM pg_replication_slots", (str(end),))
        assert slot == [(True,)], f"the slot follows: confirmed {confirmed}"


@pytest.mark.parametrize("segment_mb", [1, 64])
def test_any_segment_size(segment_mb: int, make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server(segment_mb=segment_mb)
    with streaming(server, store) as wal:
        start = wal.wait_streaming().whole
        fill(server, 150_000 if segment_mb == 64 else 20_000)
        end = flush_lsn(server)
        wal.wait_confirmed(end)
        assert_wal_equal(server, store, 1, start, end)
        assert segment_keys(store)


def test_pieces_go_when_the_whole_segment_is_durable(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    with streaming(server, store, flush_seconds=0.0) as wal, CounterWriter(server.conninfo()) as writer:
        wal.wait_streaming()
        writer.wait_for(300)
        open_before = {keys.parse_piece(k).segment for k in piece_keys(store)}  # type: ignore[union-attr]
        assert open_before
        server.execute("SELECT pg_switch_wal()")
        writer.wait_more(50)
        wal.wait_confirmed(flush_lsn(server))
        wal.wait_for(lambda _: not any(keys.parse_piece(k).segment in open_before for k in piece_keys(store)))  # type: ignore[union-attr]


def test_leftover_pieces_that_another_process_removes_meanwhile(
    make_server: MakeServer, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(segment_mb=1)
    with streaming(server, store) as wal:
        wal.wait_streaming()
        fill(server, 5000)
        wal.wait_confirmed(flush_lsn(server))
    whole = segment_keys(store)[0]
    segment = whole.removeprefix(keys.WAL).split(".")[0]
    piece = keys.piece(segment, 0, 100, ZSTD.extension)
    store.put(piece, ZSTD.encode(ZSTD.decode(whole, store.get(whole))[:100]))

    def remove(operation: str, key: str) -> None:
        if operation == "get" and key == piece:
            store.on_call = None
            store.delete([piece])

    store.on_call = remove
    with streaming(server, store) as wal:
        wal.wait_streaming()
    assert store.on_call is None, "it was compared"
    assert "streaming stands" not in caplog.text


def test_leftover_pieces_go_beside_what_archive_command_stored(make_server: MakeServer, store: MemoryStore) -> None:
    """A backup history file of the segment is not the segment, and one without compression has no dot in its name."""
    server = make_server(segment_mb=1)
    plain = Codec(Compression("none"))
    with streaming(server, store, codec=plain) as wal:
        wal.wait_streaming()
        fill(server, 5000)
        wal.wait_confirmed(flush_lsn(server))
    whole = segment_keys(store)[0]
    segment = whole.removeprefix(keys.WAL)
    piece = keys.piece(segment, 0, 100, "")
    store.put(piece, store.get(whole)[:100])
    store.put(f"{whole}.00000028.backup.zst", ZSTD.encode(b"START WAL LOCATION"))
    with streaming(server, store, codec=plain) as wal:
        wal.wait_streaming()
    assert store.head(piece) is None


def test_a_change_of_compression_stores_no_segment_twice(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server(segment_mb=1)
    for codec in (ZSTD, Codec(Compression("lz4"))):
        with streaming(server, store, codec=codec) as wal:
            wal.wait_streaming()
            fill(server, 5000)
            wal.wait_confirmed(flush_lsn(server))
    segments = [key.removeprefix(keys.WAL).split(".")[0] for key in segment_keys(store)]
    assert len(segments) == len(set(segments))
    assert {key.rpartition(".")[2] for key in segment_keys(store)} == {"zst", "lz4"}


def test_a_database_that_is_never_quiet_has_time_marks(
    make_server: MakeServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them nothing can be restored to a moment, and the heartbeat of the lease stands."""
    monkeypatch.setattr(bookkeeping, "NOTE_SECONDS", 0.3)
    server = make_server()
    server.execute("CREATE TABLE go_on ()")

    def load() -> None:
        server.execute(NEVER_QUIET)

    server.execute("CREATE TABLE filler (t text)")
    thread = threading.Thread(target=load)
    with streaming(server, store, flush_seconds=0.5) as wal:
        wal.wait_streaming()
        thread.start()
        time.sleep(1.5)
        before = len(list(store.list(keys.MARKS)))
        wal.wait_for(lambda _: len(list(store.list(keys.MARKS))) >= before + 3, timeout=30)
        assert thread.is_alive()
        server.execute("DROP TABLE go_on")
        thread.join(30)


def test_many_small_pieces_are_merged_and_lose_nothing(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    with streaming(server, store, flush_seconds=0.0) as wal, CounterWriter(server.conninfo()) as writer:
        start = wal.wait_streaming().whole
        writer.wait_for(600, timeout=120)
        writer.stop()
        end = flush_lsn(server)
        wal.wait_confirmed(end)
        assert len(piece_keys(store)) < 200
        assert_wal_equal(server, store, 1, start, end)


def test_an_idle_database_costs_no_requests(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server(settings={"autovacuum": "off", "bgwriter_delay": "10s"})
    with streaming(server, store, flush_seconds=0.2) as wal:
        wal.wait_streaming()
        server.execute("CHECKPOINT")
        time.sleep(2)
        wal.wait_confirmed(flush_lsn(server))
        calls: list[str] = []
        store.on_call = lambda operation, key: calls.append(f"{operation} {key}")
        before = flush_lsn(server)
        time.sleep(4)
        if flush_lsn(server) == before:
            assert calls == []


def test_a_restart_of_pgbackup_leaves_no_gap(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    start = None
    with CounterWriter(server.conninfo()) as writer:
        for _ in range(4):
            with streaming(server, store) as wal:
                begin = wal.wait_streaming().whole
                start = begin if start is None else start
                writer.wait_more(100)
            writer.wait_more(50)
            server.execute("SELECT pg_switch_wal()")
        writer.stop()
        assert start is not None
        with streaming(server, store) as wal:
            end = flush_lsn(server)
            wal.wait_confirmed(end)
            assert_wal_equal(server, store, 1, start, end)


def test_kill_minus_nine_of_postgres_leaves_no_gap(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    with streaming(server, store) as wal, CounterWriter(server.conninfo(), reconnect=True) as writer:
        start = wal.wait_streaming().whole
        for _ in range(2):
            writer.wait_more(100)
            server.kill()
            server.start()
        writer.wait_more(100)
        writer.stop()
        end = flush_lsn(server)
        wal.wait_confirmed(end)
        assert_wal_equal(server, store, 1, start, end)


def test_a_failed_upload_never_moves_the_confirmed_lsn(make_server: MakeServer, store: MemoryStore) -> None:
    """One well-known peer confirms on receipt; its queue of failed uploads confirmed as well."""
    server = make_server()
    with streaming(server, store) as wal:
        wal.wait_streaming()
        wal.wait_confirmed(flush_lsn(server))
        before = slot_lsn(server)
        store.on_call = down
        fill(server, 2000)
        time.sleep(3)
        assert slot_lsn(server) == before
        store.on_call = None
        wal.wait_confirmed(flush_lsn(server))


def test_fast_stop_is_not_held_up(make_server: MakeServer, store: MemoryStore) -> None:
    """Postgres waits for unconfirmed WAL at a fast stop; its request for a reply flushes at once."""
    server = make_server()
    with streaming(server, store, flush_seconds=10.0) as wal:
        wal.wait_streaming()
        fill(server, 100)
        begin = time.monotonic()
        server.stop("fast")
        assert time.monotonic() - begin < 3


def test_fast_stop_with_the_store_down(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    with streaming(server, store, flush_seconds=10.0) as wal:
        wal.wait_streaming()
        wal.wait_confirmed(flush_lsn(server))
        store.on_call = down
        fill(server, 100)
        begin = time.monotonic()
        server.stop("fast")
        assert time.monotonic() - begin < 20
        store.on_call = None
        server.start()
        wal.wait_confirmed(flush_lsn(server))


def test_a_commit_returns_only_when_it_is_in_the_bucket(make_server: MakeServer, store: MemoryStore) -> None:
    server = make_server()
    with streaming(server, store, flush_seconds=0.0) as wal:
        start = wal.wait_streaming().whole
        server.configure(synchronous_standby_names="pgbackup")
        server.reload()
        with CounterWriter(server.conninfo(), pause_seconds=0) as writer:
            last = writer.wait_for(200)
            assert last.lsn is not None
            server.configure(synchronous_standby_names="")
            server.reload()
            # What was acknowledged is stored already: nothing is waited for.
            assert wal.progress.get().confirmed >= writer.acknowledged()[150].lsn  # type: ignore[operator]
        # Read when nothing is written any more: while it is, pieces are merged faster than a busy machine reads them.
        assert_wal_equal(server, store, 1, start, int(writer.acknowledged()[150].lsn or 0))


def test_what_waits_for_the_store_is_bounded(make_server: MakeServer, store: MemoryStore) -> None:
    """A large segment and a piece that does not come back: reading stops, whatever a segment could hold."""
    server = make_server(segment_mb=64)
    released = threading.Event()

    def hold(operation: str, key: str) -> None:
        if operation == "put_if_absent" and keys.parse_piece(key):
            released.wait(60)

    with streaming(server, store) as wal:
        wal.wait_streaming()
        server.execute("SELECT pg_switch_wal()")
        fill(server, 100)
        wal.wait_confirmed(flush_lsn(server))
        store.on_call = hold
        fill(server, 80_000)
        end = flush_lsn(server)
        held = wal.wait_for(lambda position: position.received - position.confirmed > PIECE_BYTES)
        time.sleep(1)
        waiting = wal.progress.get().received - held.confirmed
        released.set()
        assert end - held.confirmed > 44 * MIB, "there is more than may wait"
        assert waiting <= 2 * PIECE_BYTES + MIB
        wal.wait_confirmed(end)


def test_whole_segments_only(make_server: MakeServer, store: MemoryStore) -> None:
    """As beside a base backup that ships its own WAL: nothing is kept for pieces, and large segments pass."""
    server = make_server(segment_mb=64)
    with streaming(server, store, flush_seconds=None) as wal:
        wal.wait_streaming()
        fill(server, 150_000)
        wal.wait_for(lambda position: position.confirmed > position.began)
        assert segment_keys(store)
        assert not piece_keys(store)
