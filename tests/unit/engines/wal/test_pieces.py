"""The stored pieces of an open segment: never fewer bytes than before, never another writer's confirmed as ours."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.pieces import MERGE_COUNT, PiecesChanged, PieceStore, choose_merge, load_stored
from pgbackup.engines.wal.segment import PIECE_BYTES, Piece
from pgbackup.errors import DeleteRefused, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.wal_listing import chain_end
from pgbackup.storage.memory import MemoryStore
from tests.streaming import stored_wal

SEGMENT = SegmentName(1, 9)
CODEC = Codec(Compression("zstd", 1))
FOLDER = keys.pieces_folder(str(SEGMENT))


def piece(number: int, size: int = 10) -> Piece:
    return Piece(number * size, (number + 1) * size, (bytes([number % 251]) * size,))


def test_merging_keeps_every_byte_and_bounds_the_count() -> None:
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT)
    count = MERGE_COUNT * 8
    for number in range(count):
        pieces.put(piece(number))
        pieces.tidy_up()
    assert stored_wal(store, SEGMENT, CODEC) == b"".join(piece(n).blocks[0] for n in range(count))
    assert len(list(store.list(keys.pieces_folder(str(SEGMENT))))) <= MERGE_COUNT + 8


@settings(max_examples=150, deadline=None)
@example([1000] * (MERGE_COUNT - 1) + [100])
@given(
    st.lists(
        st.one_of(st.integers(1, 300), st.sampled_from([1000, 50_000, 300_000, 1_100_000])),
        min_size=MERGE_COUNT,
        max_size=MERGE_COUNT * 4,
    )
)
def test_whatever_the_sizes_nothing_that_was_put_is_gone(sizes: list[int]) -> None:
    """A piece much smaller than the one before it was once "merged" alone: put, found there, and then removed."""
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT)
    end = 0
    for number, size in enumerate(sizes):
        pieces.put(Piece(end, end + size, (bytes([number % 251]) * size,)))
        end += size
        pieces.tidy_up()
        names = [name for info in store.list(FOLDER) if (name := keys.parse_piece(info.key))]
        assert chain_end((name.first, name.end) for name in names) == end
    content = b"".join(bytes([number % 251]) * size for number, size in enumerate(sizes))
    assert stored_wal(store, SEGMENT, CODEC) == content


@given(st.lists(st.integers(1, 2 << 20), max_size=200))
def test_merges_are_of_two_at_least_and_bounded(sizes: list[int]) -> None:
    chosen = choose_merge(sizes)
    if chosen is None:
        tight = [(a, b) for a, b in pairwise(sizes) if a <= 2 * b and a + b <= PIECE_BYTES]
        assert len(sizes) < MERGE_COUNT or not tight
    else:
        assert len(chosen) >= 2
        assert sum(sizes[chosen.start : chosen.stop]) <= PIECE_BYTES


def test_a_store_that_lets_nothing_be_deleted_loses_nothing_and_stops_nothing() -> None:
    """Merged pieces then lie beside what they were merged from, with the same bytes."""
    store = MemoryStore()
    store.fail_next("delete", DeleteRefused("the policy forbids it"), times=10**6)
    pieces = PieceStore(store, CODEC, SEGMENT)
    count = MERGE_COUNT * 4
    for number in range(count):
        pieces.put(piece(number))
        pieces.tidy_up()
    content = b"".join(piece(n).blocks[0] for n in range(count))
    assert stored_wal(store, SEGMENT, CODEC) == content
    store.put_if_absent(keys.wal(str(SEGMENT), CODEC.extension), CODEC.encode(content))
    pieces.compare_others(keys.wal(str(SEGMENT), CODEC.extension))
    pieces.remove_all()
    assert stored_wal(store, SEGMENT, CODEC) == content


def test_merges_that_overlap_in_time_do_no_harm() -> None:
    """A slow store: the next merge was asked for while the first was under way."""
    store = MemoryStore()
    store.on_call = lambda operation, key: time.sleep(0.002) if operation == "delete" else None
    pieces = PieceStore(store, CODEC, SEGMENT)
    with ThreadPoolExecutor(4) as pool:
        merges = []
        for number in range(MERGE_COUNT * 3):
            pieces.put(piece(number))
            merges.append(pool.submit(pieces.tidy_up))
        for merge in merges:
            merge.result()
    assert stored_wal(store, SEGMENT, CODEC) == b"".join(piece(n).blocks[0] for n in range(MERGE_COUNT * 3))


def test_a_large_piece_that_comes_while_small_ones_are_merged() -> None:
    """The merge was on its way to the store when a commit of more than small size arrived."""
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT)
    for number in range(MERGE_COUNT):
        pieces.put(piece(number))
    large = Piece(MERGE_COUNT * 10, MERGE_COUNT * 10 + (2 << 20), (b"x" * (2 << 20),))

    def arrive(operation: str, _key: str) -> None:
        if operation == "delete":
            store.on_call = None
            pieces.put(large)

    store.on_call = arrive
    pieces.tidy_up()
    expected = b"".join(piece(n).blocks[0] for n in range(MERGE_COUNT)) + large.blocks[0]
    assert stored_wal(store, SEGMENT, CODEC) == expected
    after = Piece(large.end, large.end + 10, (b"y" * 10,))
    pieces.put(after)
    pieces.tidy_up()
    assert stored_wal(store, SEGMENT, CODEC) == expected + after.blocks[0]


def test_pieces_that_another_process_merges_while_they_are_loaded() -> None:
    store = MemoryStore()
    writer = PieceStore(store, CODEC, SEGMENT)
    for number in range(MERGE_COUNT):
        writer.put(piece(number))

    def merge(operation: str, _key: str) -> None:
        if operation == "get":
            store.on_call = None
            writer.tidy_up()

    store.on_call = merge
    loaded = load_stored(store, CODEC, SEGMENT)
    assert [(p.first, p.end) for p in loaded] == [(0, MERGE_COUNT * 10)]


def test_a_crash_between_merge_and_removal_loses_nothing() -> None:
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT)
    for number in range(MERGE_COUNT):
        pieces.put(piece(number))
    store.fail_next("delete", RuntimeError("the process was killed here"))
    with pytest.raises(RuntimeError):
        pieces.tidy_up()
    stored = load_stored(store, CODEC, SEGMENT)
    assert len(stored) == MERGE_COUNT + 1
    assert stored_wal(store, SEGMENT, CODEC) == b"".join(piece(n).blocks[0] for n in range(MERGE_COUNT))


def test_an_unknown_piece_is_seen_with_the_next_look() -> None:
    """What a writer that was fenced off had on its way arrived late."""
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT, look_seconds=0.0)
    pieces.put(piece(0))
    pieces.tidy_up()
    store.put_if_absent(keys.piece(str(SEGMENT), 10, 30, "zst"), CODEC.encode(b"z" * 20))
    pieces.put(piece(1))
    with pytest.raises(PiecesChanged):
        pieces.tidy_up()


def test_a_whole_segment_is_seen_beside_the_open_one() -> None:
    """A restore would take it, so what commits rely on must be compared with it."""
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT, look_seconds=0.0)
    pieces.put(piece(0))
    store.put(keys.wal(f"{SEGMENT}.partial", "zst"), b"WAL-G's, which is never read")
    store.put(keys.wal(str(SEGMENT.next()), "zst"), b"x")
    pieces.tidy_up()
    store.put(keys.wal(str(SEGMENT), "lz4"), b"x")
    with pytest.raises(PiecesChanged):
        pieces.tidy_up()
    pieces.expect_whole()
    pieces.tidy_up()


def test_the_same_name_with_other_bytes_is_a_conflict() -> None:
    store = MemoryStore()
    PieceStore(store, CODEC, SEGMENT).put(piece(0))
    with pytest.raises(WrongCluster):
        PieceStore(store, CODEC, SEGMENT).put(Piece(0, 10, (b"y" * 10,)))


@pytest.mark.parametrize("operation", ["get", "open_read"])
def test_a_piece_that_its_writer_merges_while_it_is_compared(operation: str) -> None:
    """Seen with two processes: nothing is wrong, so the segment is received again at once."""
    store = MemoryStore()
    whole = keys.wal(str(SEGMENT), CODEC.extension)
    store.put_if_absent(whole, CODEC.encode(b"\0" * 100))
    PieceStore(store, CODEC, SEGMENT).put(piece(0))
    pieces = PieceStore(store, CODEC, SEGMENT)

    def remove(seen: str, key: str) -> None:
        if seen == operation:
            store.on_call = None
            store.delete([keys.piece(str(SEGMENT), 0, 10, "zst"), whole])

    store.on_call = remove
    with pytest.raises(PiecesChanged):
        pieces.put(piece(0)) if operation == "get" else pieces.compare_others(whole)


def test_pieces_that_differ_from_the_whole_segment_stay() -> None:
    store = MemoryStore()
    whole = keys.wal(str(SEGMENT), CODEC.extension)
    store.put_if_absent(whole, CODEC.encode(b"a" * 100))
    foreign = keys.piece(str(SEGMENT), 0, 10, "zst")
    store.put_if_absent(foreign, CODEC.encode(b"b" * 10))
    pieces = PieceStore(store, CODEC, SEGMENT)
    with pytest.raises(WrongCluster):
        pieces.compare_others(whole)
    pieces.remove_all()
    assert store.head(foreign) is not None


def test_a_piece_that_comes_after_the_comparison_stays() -> None:
    """It may be the confirmed WAL of another branch; its writer finds the whole segment and tells."""
    store = MemoryStore()
    whole = keys.wal(str(SEGMENT), CODEC.extension)
    store.put_if_absent(whole, CODEC.encode(b"a" * 100))
    equal, late = keys.piece(str(SEGMENT), 0, 10, "zst"), keys.piece(str(SEGMENT), 0, 20, "zst")
    store.put_if_absent(equal, CODEC.encode(b"a" * 10))
    pieces = PieceStore(store, CODEC, SEGMENT)
    pieces.compare_others(whole)
    store.put_if_absent(late, CODEC.encode(b"b" * 20))
    pieces.remove_all()
    assert store.head(equal) is None
    assert store.head(late) is not None


def test_a_piece_that_is_still_compared_is_not_taken_for_ours() -> None:
    """Its name was taken by another server's piece; meanwhile our whole segment became durable."""
    store = MemoryStore()
    pieces = PieceStore(store, CODEC, SEGMENT)
    ours, theirs = piece(0), keys.piece(str(SEGMENT), 0, 10, CODEC.extension)
    whole = keys.wal(str(SEGMENT), CODEC.extension)
    store.put(whole, CODEC.encode(bytes(SEGMENT.segment_bytes)))
    store.put(theirs, CODEC.encode(b"theirs, 10"))
    refused: list[type[Exception]] = []

    def finish_meanwhile(operation: str, key: str) -> None:
        if (operation, key) == ("get", theirs):
            store.on_call = None
            try:
                pieces.compare_others(whole)
            except WrongCluster as exc:
                refused.append(type(exc))
            pieces.remove_all()

    store.on_call = finish_meanwhile
    with pytest.raises(WrongCluster):
        pieces.put(ours)
    assert refused == [WrongCluster], "the segment was not confirmed beside it"
    assert CODEC.decode(theirs, store.get(theirs)) == b"theirs, 10", "what another was told is durable stays"
