"""An encoder in a thread of its own: the same object, in bounded memory, and no thread that stays behind."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.repository.background_encoder import BLOCK_BYTES, QUEUE_BLOCKS, BackgroundEncoder
from pgbackup.repository.codec import Codec, Compression
from tests.waiting import no_thread_named, stands_still_at, wait_for

KEY = bytes(range(32))
WAIT_SECONDS = 10


class Reversing:
    """Shows what it was given, and when it was told to end. ``gate`` holds it up, ``failure`` fails it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.taken = 0

    def write(self, data: bytes | memoryview) -> bytes:
        assert self.gate.wait(WAIT_SECONDS)
        if self.failure is not None:
            raise self.failure
        self.taken += 1
        return bytes(data)[::-1]

    def finish(self) -> bytes:
        return b"end"


def write_blocks(encoder: BackgroundEncoder, count: int) -> None:
    for _ in range(count):
        encoder.write(bytes(BLOCK_BYTES))


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    gc.collect()
    wait_for(lambda: no_thread_named("encode"), WAIT_SECONDS)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, BLOCK_BYTES * 2), max_size=12),
    st.sampled_from(["lz4", "none", "zstd:7", "zstd:1"]),
    st.booleans(),
)
def test_the_object_is_the_same(sizes: list[int], compression: str, encrypted: bool) -> None:
    codec = Codec(Compression.parse(compression), KEY if encrypted else None)
    encoder = codec.encoders(threads=2)()
    pieces = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
    stored = b"".join([encoder.write(memoryview(piece)) for piece in pieces] + [encoder.finish()])
    assert codec.decode(f"part.{codec.extension}".rstrip("."), stored) == b"".join(pieces)


def test_blocks_come_in_order_and_the_end_last() -> None:
    encoder = BackgroundEncoder(Reversing())
    pieces = [bytes([index]) * BLOCK_BYTES for index in range(30)]
    assert (
        b"".join([*map(encoder.write, pieces), encoder.write(b"ab"), encoder.finish()]) == b"".join(pieces) + b"baend"
    )


def test_a_slow_encoder_holds_the_writer_up() -> None:
    slow = Reversing()
    slow.gate.clear()
    encoder = BackgroundEncoder(slow)
    written = [0]

    def write() -> None:
        while written[0] < 4 * QUEUE_BLOCKS:
            encoder.write(bytes(BLOCK_BYTES))
            written[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    before = stands_still_at(lambda: written[0], 0.1)
    slow.gate.set()
    thread.join(WAIT_SECONDS)
    encoder.finish()
    assert before == QUEUE_BLOCKS
    assert slow.taken == 4 * QUEUE_BLOCKS + 1  # the last write is what was left, which is nothing


def test_what_fails_there_is_raised_by_a_later_write() -> None:
    failing = Reversing()
    failing.failure = ValueError("no memory")
    encoder = BackgroundEncoder(failing)
    with pytest.raises(ValueError, match="no memory"):
        write_blocks(encoder, QUEUE_BLOCKS + 1)


def test_what_fails_there_is_raised_by_the_end() -> None:
    failing = Reversing()
    failing.failure = ValueError("no memory")
    encoder = BackgroundEncoder(failing)
    encoder.write(b"a")
    with pytest.raises(ValueError, match="no memory"):
        encoder.finish()


def test_one_that_is_dropped_leaves_no_thread() -> None:
    encoder = BackgroundEncoder(Reversing())
    encoder.write(bytes(3 * BLOCK_BYTES))
    del encoder
