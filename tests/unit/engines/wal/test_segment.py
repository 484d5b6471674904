"""The open segment: pieces follow each other, stored bytes are compared and not stored again."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.lsn import MIB, SegmentName
from pgbackup.engines.wal.segment import OpenSegment, StoredPiece
from pgbackup.errors import WrongCluster
from pgbackup.repository.wal_listing import chain_end

NAME = SegmentName(1, 7, MIB)


def stored(data: bytes, first: int, end: int) -> StoredPiece:
    return StoredPiece(f"piece-{first}-{end}", first, end, zlib.crc32(data[first:end]))


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20), st.data())
def test_pieces_cover_everything_once_in_order(blocks: list[bytes], data: st.DataObject) -> None:
    segment = OpenSegment(NAME)
    collected = b""
    for block in blocks:
        segment.append(block)
        if data.draw(st.booleans()):
            piece = segment.take_piece()
            assert piece is not None
            assert piece.first == len(collected)
            collected += b"".join(piece.blocks)
            assert piece.end == len(collected)
    piece = segment.take_piece()
    if piece is not None:
        collected += b"".join(piece.blocks)
    assert collected == b"".join(blocks)


@given(
    whole=st.binary(min_size=50, max_size=400),
    cuts=st.lists(st.tuples(st.integers(0, 399), st.integers(1, 120)), max_size=6),
    step=st.integers(1, 90),
)
def test_stored_bytes_are_compared_and_the_rest_is_pending(
    whole: bytes, cuts: list[tuple[int, int]], step: int
) -> None:
    ranges = [(first, min(first + length, len(whole))) for first, length in cuts if first < len(whole)]
    segment = OpenSegment(NAME, [stored(whole, first, end) for first, end in ranges])
    for offset in range(0, len(whole), step):
        segment.append(whole[offset : offset + step])
    chain = chain_end(ranges)
    assert segment.covered == chain
    piece = segment.take_piece()
    rest = b"" if piece is None else b"".join(piece.blocks)
    assert rest == whole[chain:]
    if piece is not None:
        assert (piece.first, piece.end) == (chain, len(whole))


def test_other_bytes_than_the_stored_ones_are_a_conflict() -> None:
    segment = OpenSegment(NAME, [stored(b"x" * 100, 0, 100)])
    segment.append(b"x" * 50)
    with pytest.raises(WrongCluster, match="piece-0-100"):
        segment.append(b"x" * 49 + b"y")


def test_nothing_is_covered_before_it_is_compared() -> None:
    segment = OpenSegment(NAME, [stored(b"x" * 100, 0, 100)])
    segment.append(b"x" * 99)
    assert segment.covered == 0
    segment.append(b"x")
    assert segment.covered == 100


def test_no_pieces_of_a_segment_that_the_server_has_left_behind() -> None:
    segment = OpenSegment(NAME)
    segment.append(b"a" * 100)
    segment.skip_pieces()
    segment.append(b"b" * 100)
    assert segment.take_piece() is None
    assert segment.pending_bytes == 0
