"""Of two sessions on one timeline at most one confirms, unless the later one has seen what the other confirmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import pytest

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.fence import Fence, Superseded
from pgbackup.engines.wal.pieces import PieceStore
from pgbackup.engines.wal.segment import Piece
from pgbackup.engines.wal.session_begin import SessionBegin, read_begin
from pgbackup.errors import StoreUnavailable
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


class ReplayableStore(MemoryStore):
    """Remembers each write, to serve it a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Callable[[], object]] = []

    def put(self, key: str, data: bytes) -> None:
        self.writes.append(lambda: MemoryStore.put(self, key, data))
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.writes.append(lambda: MemoryStore.put_if_absent(self, key, data))
        return super().put_if_absent(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        self.writes.append(lambda: MemoryStore.replace(self, key, data, etag))
        return super().replace(key, data, etag)


def test_a_request_that_is_served_once_more_takes_no_fence_back() -> None:
    """What was tried again, by the client or a proxy, may reach the store long after."""
    store = ReplayableStore()
    fences = [Fence(store, 1) for _ in range(3)]
    for fence in fences:
        fence.put_up()
    for write in store.writes:
        write()
    fences[-1].check()
    for fence in fences[:-1]:
        with pytest.raises(Superseded):
            fence.check()


@pytest.mark.parametrize("there", [False, True])
def test_a_mark_that_another_session_was_quicker_to_write_is_replaced(there: bool) -> None:
    store = MemoryStore()
    if there:
        Fence(store, 1).put_up()
    other, ours = Fence(store, 1), Fence(store, 1)

    def come_first(operation: str, _key: str) -> None:
        if operation in {"put_if_absent", "replace"}:
            store.on_call = None
            other.put_up()

    store.on_call = come_first
    ours.put_up()
    ours.check()
    with pytest.raises(Superseded):
        other.check()


def test_a_mark_whose_answer_got_lost_is_ours() -> None:
    store = MemoryStore()
    fence = Fence(store, 1)
    store.fail_next("put_if_absent", StoreUnavailable("no answer"), after=True)
    with pytest.raises(StoreUnavailable):
        fence.put_up()
    fence.put_up()
    fence.check()


def test_a_store_that_replaces_nothing_has_a_fence_all_the_same() -> None:
    class Stubborn(MemoryStore):
        def replace(self, key: str, data: bytes, etag: str) -> bool:
            return False

    store = Stubborn()
    first, second = Fence(store, 1), Fence(store, 1)
    first.put_up()
    second.put_up()
    second.check()
    with pytest.raises(Superseded):
        first.check()


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
