"""Zstandard objects: one frame with a checksum, written with a window of at most 8 MiB; read in bounded memory.

The reader follows the frame's blocks itself (RFC 8878, section 3.1.1): a block tells its size in its header and holds
at most 128 KiB, so the decompressor is never given more than what makes about a megabyte, and the end of the frame is
known exactly. The only importer of zstandard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW_LOG: Final = 23
MAX_READ_WINDOW_BYTES: Final = 1 << 27
"""Foreign objects may need more than ours; zstd's own tools stop here too."""

MAX_THREADED_LEVEL: Final = 6
"""Measured with two threads: 20 MiB at level 1, 54 at 6, 106 at 9; without threads never above 40."""

MAX_CHAIN_LOG: Final = 22
MAX_HASH_LOG: Final = 21
"""Smaller search tables at the highest levels: 35 MiB instead of 91 at level 19, for 0.3% more output."""

NO_OVERLAP: Final = 1
"""What a thread compresses (2 MiB at level 1) refers to nothing before it, which else it would read once more: up to 8%
less processor time, for 0.3% more output on programs and 2% less on pgbench's tables."""

_BATCH_BYTES: Final = 1 << 20
_MAX_HEADER_BYTES: Final = 18
_MAX_BLOCK_BYTES: Final = 128 << 10
_BLOCK_HEADER_BYTES: Final = 3
_CHECKSUM_BYTES: Final = 4
_UNUSED_BITS: Final = 0x18

Problem = Callable[[str], Exception]
"""Makes the exception for what is wrong with an object."""


class ZstdEncoder:
    """One frame, written piece by piece, by a compressor that makes no other at the same time."""

    def __init__(self, compressor: zstandard.ZstdCompressor) -> None:
        self._object = compressor.compressobj()
        self.write: Callable[[bytes | memoryview], bytes] = self._object.compress
        """See Encoder. It is called for every 32 KiB of a backup: hence not one call more."""

    def finish(self) -> bytes:
        return self._object.flush()


def encoders(level: int, threads: int = 0) -> Callable[[], ZstdEncoder]:
    """Encoders of one frame after another, which share a compressor: its tables, its buffers and its threads.

    ``threads``: compression threads beside the caller's, 0 for none; above MAX_THREADED_LEVEL there are none, because
    each would take tens of megabytes.
    """
    threads = threads if level <= MAX_THREADED_LEVEL else 0
    compressor = zstandard.ZstdCompressor(compression_params=_parameters(level, threads))
    return lambda: ZstdEncoder(compressor)


def encode(level: int, data: bytes | memoryview) -> bytes:
    """One frame that also tells the size of its content."""
    return zstandard.ZstdCompressor(compression_params=_parameters(level, 0)).compress(data)


def decode(
    blocks: Iterator[bytes], problem: Problem, on_unproven: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The content of the one frame in ``blocks``, in pieces of at most about a megabyte.

    It ends only when the frame's checksum was right and nothing follows; ``on_unproven`` is called for a frame that
    has none. Raises ``problem(text)``.
    """
    frame = _Frame(blocks, problem, on_unproven)
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_READ_WINDOW_BYTES).decompressobj()
    try:
        for stored in frame.batches():
            if data := decompressor.decompress(stored):
                yield data
    except zstandard.ZstdError as exc:
        raise problem(f"zstd: {exc}") from exc
    if not decompressor.eof:
        raise problem("it is cut short: the zstd frame does not end")


def _parameters(level: int, threads: int) -> zstandard.ZstdCompressionParameters:
    found = zstandard.ZstdCompressionParameters.from_level(level)
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        window_log=min(found.window_log, MAX_WINDOW_LOG),
        chain_log=min(found.chain_log, MAX_CHAIN_LOG),
        hash_log=min(found.hash_log, MAX_HASH_LOG),
        write_checksum=True,
        threads=threads,
        overlap_log=NO_OVERLAP if threads else 0,
    )


class _Frame:
    """The stored bytes of a frame, cut at the borders of its blocks."""

    def __init__(self, blocks: Iterator[bytes], problem: Problem, on_unproven: Callable[[], None]) -> None:
        self._on_unproven = on_unproven
        self._blocks = blocks
        self._problem = problem
        self._data = b""
        self._position = 0

    def batches(self) -> Iterator[bytes]:
        """The frame, whole blocks at a time, so many that they decompress to about _BATCH_BYTES."""
        self._position, has_checksum = self._header()
        if not has_checksum:
            self._on_unproven()
        begin, content_bytes, last = 0, 0, False
        while not last:
            if self._ahead() < _BLOCK_HEADER_BYTES:
                yield self._data[begin : self._position]
                begin, content_bytes = self._need(_BLOCK_HEADER_BYTES), 0
            last, stored_bytes, size = self._block()
            if self._ahead() < stored_bytes:
                yield self._data[begin : self._position]
                begin, content_bytes = self._need(stored_bytes), 0
            elif content_bytes + size > _BATCH_BYTES:
                yield self._data[begin : self._position]
                begin, content_bytes = self._position, 0
            self._position += stored_bytes
            content_bytes += size
        yield self._data[begin : self._position]
        if has_checksum:
            self._need(_CHECKSUM_BYTES)
            yield self._data[:_CHECKSUM_BYTES]
            self._position = _CHECKSUM_BYTES
        if self._ahead() or next(self._blocks, b""):
            raise self._problem("it goes on after the end of the zstd frame")

    def _ahead(self) -> int:
        """Bytes behind the position that are here."""
        return len(self._data) - self._position

    def _header(self) -> tuple[int, bool]:
        """The size of the frame's header, and whether a checksum follows the blocks."""
        while len(self._data) < _MAX_HEADER_BYTES and (more := next(self._blocks, b"")):
            self._data += more
        try:
            parameters = zstandard.get_frame_parameters(self._data)
            size = zstandard.frame_header_size(self._data)
        except zstandard.ZstdError as exc:
            raise self._problem(f"it is cut short or no zstd frame ({exc})") from exc
        if self._data[4] & _UNUSED_BITS:
            raise self._problem("its zstd frame has a reserved bit set")
        if parameters.window_size > MAX_READ_WINDOW_BYTES:
            raise self._problem(f"its zstd frame needs a window of {parameters.window_size} bytes")
        return size, parameters.has_checksum

    def _block(self) -> tuple[bool, int, int]:
        """Of the block at the position: whether it is the last, its stored size, and its content's size at most."""
        header = int.from_bytes(self._data[self._position : self._position + _BLOCK_HEADER_BYTES], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3 or size > _MAX_BLOCK_BYTES:
            raise self._problem("its zstd frame has a block that cannot be")
        if kind == 1:
            return bool(header & 1), _BLOCK_HEADER_BYTES + 1, size
        return bool(header & 1), _BLOCK_HEADER_BYTES + size, size if kind == 0 else _MAX_BLOCK_BYTES

    def _need(self, count: int) -> int:
        """Forget what lies before the position, which is returned: 0; read until ``count`` bytes follow it."""
        parts = [self._data[self._position :]]
        have = len(parts[0])
        while have < count:
            more = next(self._blocks, b"")
            if not more:
                raise self._problem("it is cut short: the zstd frame does not end")
            parts.append(more)
            have += len(more)
        self._data = b"".join(parts)
        self._position = 0
        return self._position
