"""Uploads of WAL are counted where they end: pieces, segments, failures."""

from __future__ import annotations

import time

from pgbackup.core.lsn import MIB, SegmentName
from pgbackup.engines.native.upload_stats import UploadStats
from pgbackup.engines.native.wal_events import Durable, Failed, WakeableQueue
from pgbackup.engines.native.wal_segment import Piece
from pgbackup.engines.native.wal_uploads import WalUploads
from pgbackup.errors import StoreUnavailable, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore

SEGMENT = SegmentName(1, 9, MIB)


class Session:
    """Uploads into a store in memory, and what they told."""

    def __init__(self, stats: UploadStats) -> None:
        self.store = MemoryStore()
        self.events = WakeableQueue()
        self.seen: list[Durable | Failed] = []
        self.uploads = WalUploads(self.store, Codec(Compression("none")), self.events, concurrency=2, stats=stats)

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


def _refuse(operation: str, key: str) -> None:
    raise StoreUnavailable("the test's")
