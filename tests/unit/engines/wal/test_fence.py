"""Of two sessions on one timeline at most one confirms, unless the later one has seen what the other confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.fence import Fence, Superseded
from pgbackup.engines.wal.pieces import PieceStore
from pgbackup.engines.wal.segment import Piece
from pgbackup.engines.wal.session_begin import SessionBegin, read_begin
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore

SEGMENT = SegmentName(1, 9)
CODEC = Codec(Compression("none"))


class Writer:
    """A session as the receiver runs it, one request to the store at a time; ``end`` makes its piece unlike others."""

    def __init__(self, store: MemoryStore, end: int) -> None:
        self.begin: SessionBegin | None = None
        self.confirmed = False
        self.steps = self._run(store, end)

    def _run(self, store: MemoryStore, end: int) -> Iterator[None]:
        fence = Fence(store, 1)
        fence.put_up()
        yield
        self.begin = read_begin(store, SEGMENT)
        yield
        if SEGMENT in self.begin.with_pieces:
            # It would be compared with what our server sends before anything is put or confirmed.
            return
        PieceStore(store, CODEC, SEGMENT).put(Piece(0, end, (b"%d" % end * end,)))
        yield
        try:
            fence.check()
        except Superseded:
            return
        self.confirmed = True


def test_in_every_order_of_their_steps_at_most_one_confirms_what_the_other_has_not_seen() -> None:
    orders = list(combinations(range(8), 4))
    outcomes = set()
    for order in orders:
        store = MemoryStore()
        writers = Writer(store, 5), Writer(store, 6)
        for step in range(8):
            next(writers[step in order].steps, None)
        for writer in writers:
            for _ in writer.steps:
                pass
        outcomes.add(tuple(writer.confirmed for writer in writers))
        assert not (writers[0].confirmed and writers[1].confirmed), order
    assert {(True, False), (False, True)} <= outcomes, "the fence stops one of them, not always both"


def test_a_fence_is_for_one_timeline() -> None:
    store = MemoryStore()
    fence = Fence(store, 1)
    fence.put_up()
    Fence(store, 2).put_up()
    fence.check()


def test_a_fence_that_is_gone_confirms_nothing() -> None:
    """The bucket was emptied behind our back."""
    store = MemoryStore()
    fence = Fence(store, 1)
    fence.put_up()
    store.delete([keys.fence(1)])
    with pytest.raises(Superseded):
        fence.check()


def test_what_is_stored_from_a_segment_on() -> None:
    store = MemoryStore()
    for number in (3, 9, 10):
        store.put(keys.wal(str(SegmentName(1, number)), "zst"), b"x")
    store.put(keys.wal(str(SegmentName(2, 11)), "zst"), b"x")
    store.put(keys.piece(str(SegmentName(1, 11)), 0, 10, "zst"), b"x")
    begin = read_begin(store, SEGMENT)
    assert begin.whole == {SegmentName(1, 9), SegmentName(1, 10)}
    assert begin.with_pieces == {SegmentName(1, 11)}
