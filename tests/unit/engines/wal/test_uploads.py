"""Uploads of WAL are counted where they end: pieces, segments, failures."""

from __future__ import annotations

import threading
import time

import pytest

from pgbackup.core.lsn import MIB, SegmentName
from pgbackup.engines.wal.events import Durable, Failed, WakeableQueue
from pgbackup.engines.wal.fence import Fence, Superseded
from pgbackup.engines.wal.segment import Piece
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.engines.wal.uploads import FINISHED_BYTES, WalUploads
from pgbackup.errors import StoreUnavailable, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore

SEGMENT = SegmentName(1, 9, MIB)


class Session:
    """Uploads into a store in memory, and what they told."""

    def __init__(self, stats: UploadStats, concurrency: int = 2) -> None:
        self.store = MemoryStore()
        self.events = WakeableQueue()
        self.seen: list[Durable | Failed] = []
        fence = Fence(self.store, 1)
        fence.put_up()
        self.uploads = WalUploads(
            self.store, Codec(Compression("none")), self.events, fence.check, concurrency=concurrency, stats=stats
        )

    def wait_for(self, kind: type[Durable | Failed]) -> None:
        deadline = time.monotonic() + 10
        while not any(isinstance(event, kind) for event in self.seen):
            assert time.monotonic() < deadline
            time.sleep(0.005)
            self.seen += self.events.take_all()

    def ship_segment(self) -> None:
        upload = self.uploads.open(SEGMENT, [])
        self.uploads.feed(upload, bytes(MIB))
        self.uploads.end(upload)

    def close(self) -> None:
        self.uploads.close()
        self.events.close()


def test_pieces_and_segments_are_counted_over_sessions() -> None:
    stats = UploadStats()
    first = Session(stats)
    upload = first.uploads.open(SEGMENT, [])
    first.uploads.put_piece(upload, Piece(0, 100, (bytes(100),)))
    first.wait_for(Durable)
    first.close()
    assert (stats.totals().objects, stats.totals().segments, stats.totals().stored_bytes) == (1, 0, 100)
    second = Session(stats)
    second.ship_segment()
    second.wait_for(Durable)
    second.close()
    assert (stats.totals().objects, stats.totals().segments, stats.totals().stored_bytes) == (2, 1, MIB + 100)
    assert stats.totals().seconds > 0


def test_a_failed_upload_is_counted_by_its_kind() -> None:
    stats = UploadStats()
    session = Session(stats)
    session.store.on_call = _refuse
    session.ship_segment()
    session.wait_for(Failed)
    session.close()
    assert stats.totals().errors["unavailable"] == 1
    assert stats.totals().objects == 0


def test_a_segment_that_differs_from_an_unknown_piece_is_never_durable() -> None:
    """Another server's confirmed bytes are in the piece: ours must not be confirmed beside them."""
    session = Session(UploadStats())
    piece = keys.piece(str(SEGMENT), 0, 100, session.uploads.codec.extension)
    upload = session.uploads.open(SEGMENT, [])
    session.store.put_if_absent(piece, b"y" * 100)
    session.uploads.feed(upload, bytes(MIB))
    session.uploads.end(upload)
    session.wait_for(Failed)
    session.close()
    assert not [event for event in session.seen if isinstance(event, Durable)]
    assert [type(event.error) for event in session.seen if isinstance(event, Failed)] == [WrongCluster]
    assert session.store.get(piece) == b"y" * 100


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_stored_behind_another_session_is_never_durable(whole: bool) -> None:
    session = Session(UploadStats())
    Fence(session.store, 1).put_up()
    if whole:
        session.ship_segment()
    else:
        session.uploads.put_piece(session.uploads.open(SEGMENT, []), Piece(0, 100, (bytes(100),)))
    session.wait_for(Failed)
    session.close()
    assert not [event for event in session.seen if isinstance(event, Durable)]
    assert [type(event.error) for event in session.seen if isinstance(event, Failed)] == [Superseded]


def test_segments_that_wait_for_the_store_are_bounded_in_bytes() -> None:
    """Many uploads of WAL that cannot be compressed, and a store that hangs."""
    session = Session(UploadStats(), concurrency=64)
    released = threading.Event()
    under_way: list[str] = []

    def hold(operation: str, key: str) -> None:
        if operation == "put_if_absent":
            under_way.append(key)
            released.wait(30)

    session.store.on_call = hold
    block = bytes(4 * MIB)
    for number in range(12):
        name = SegmentName(1, number)
        upload = session.uploads.open(name, [])
        for _ in range(name.segment_bytes // len(block)):
            session.uploads.feed(upload, block)
        session.uploads.end(upload)
    before = -1
    while before != len(under_way) or not under_way:
        before = len(under_way)
        time.sleep(0.3)
    assert before * 16 * MIB <= FINISHED_BYTES
    released.set()
    deadline = time.monotonic() + 20
    while len(under_way) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    session.close()


def _refuse(operation: str, key: str) -> None:
    raise StoreUnavailable("the test's")


@pytest.mark.parametrize("same", [True, False])
def test_a_segment_that_was_stored_with_another_compression_is_compared(same: bool) -> None:
    """After a change of the setting: the content decides, not the name that our own object would have."""
    session = Session(UploadStats())
    key = keys.wal(str(SEGMENT), "zst")
    session.store.put(key, Codec(Compression("zstd", 1)).encode(bytes(MIB) if same else b"y" * MIB))
    upload = session.uploads.open(SEGMENT, [], is_stored=True)
    session.uploads.feed(upload, bytes(MIB))
    session.uploads.end(upload)
    session.wait_for(Durable if same else Failed)
    session.close()
    assert [type(event) for event in session.seen] == [Durable if same else Failed]
    assert [info.key for info in session.store.list(keys.WAL)] == [key], "nothing is stored beside it"


def test_what_cannot_be_read_under_another_name_does_not_stop_the_stream() -> None:
    session = Session(UploadStats())
    session.store.put(keys.wal(str(SEGMENT), "zst"), b"another tool's key made this")
    upload = session.uploads.open(SEGMENT, [], is_stored=True)
    session.uploads.feed(upload, bytes(MIB))
    session.uploads.end(upload)
    session.wait_for(Durable)
    session.close()
    assert session.store.get(keys.wal(str(SEGMENT), "")) == bytes(MIB)
