"""LZ4 objects: one frame of independent 4 MiB blocks with a content checksum, as WAL-G writes them.

WAL-G's reader stops at the end of the first frame without a word, so more than one is never written, and anything
behind the first is an error when read. The only importer of lz4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import lz4.frame

MAGIC = b"\x04\x22\x4d\x18"
_BATCH_BYTES: Final = 1 << 20
_FLAGS_AT: Final = 4
_CONTENT_CHECKSUM: Final = 0x04
"""The bit of the frame's FLG byte (lz4_Frame_format.md)."""


class Lz4Encoder:
    """One frame, written piece by piece."""

    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor(
            block_size=lz4.frame.BLOCKSIZE_MAX4MB, block_linked=False, content_checksum=True
        )
        self._begin: bytes = self._frame.begin()

    def write(self, data: bytes | memoryview) -> bytes:
        out: bytes = self._frame.compress(data)
        return self._with_begin(out)

    def finish(self) -> bytes:
        out: bytes = self._frame.flush()
        return self._with_begin(out)

    def _with_begin(self, out: bytes) -> bytes:
        if self._begin:
            out, self._begin = self._begin + out, b""
        return out


def decode(
    blocks: Iterator[bytes], problem: Callable[[str], Exception], on_unproven: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The content of the one frame in ``blocks``, in pieces of at most a megabyte.

    It ends only when the frame's checksum was right and nothing follows; ``on_unproven`` is called for a frame that
    has none. Raises ``problem(text)``.
    """
    frame = lz4.frame.LZ4FrameDecompressor()
    begin = b""
    try:
        for stored in blocks:
            if len(begin) < _FLAGS_AT + 1:
                begin += stored[: _FLAGS_AT + 1]
                if len(begin) > _FLAGS_AT and not begin[_FLAGS_AT] & _CONTENT_CHECKSUM:
                    on_unproven()
            rest: bytes | None = stored
            while rest is not None:
                data: bytes = frame.decompress(rest, max_length=_BATCH_BYTES)
                if data:
                    yield data
                rest = None if frame.needs_input or frame.eof else b""
            if frame.eof:
                break
    except RuntimeError as exc:
        raise problem(f"lz4: {exc}") from exc
    if not frame.eof:
        raise problem("it is cut short: the lz4 frame does not end")
    if frame.unused_data or next(blocks, b""):
        raise problem("it goes on after the end of the lz4 frame")
