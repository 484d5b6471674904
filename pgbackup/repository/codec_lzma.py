"""LZMA objects: the old format of a single stream ("LZMA-alone"), as WAL-G 0.2 to 3.x writes it. For reading only.

The format has no checksum: what vouches for the content is encryption, a manifest, or nothing. A hostile header may ask
for a dictionary of 4 GiB; more than MAX_MEMORY_BYTES is refused (WAL-G's has 8 MiB, ``lzma -9`` needs 64).
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator
from typing import Final

MAGIC: Final = b"\x5d\x00\x00"
"""Properties 0x5D (lc 3, lp 0, pb 2, what everybody writes), and a dictionary size that is a multiple of 64 KiB."""

MAX_MEMORY_BYTES: Final = 160 << 20
_BATCH_BYTES: Final = 1 << 20


def decode(
    blocks: Iterator[bytes], problem: Callable[[str], Exception], on_unproven: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The content of the one stream in ``blocks``, in pieces of at most a megabyte; ``on_unproven`` is always called.

    It ends only when the stream does, and nothing follows. Raises ``problem(text)``.
    """
    on_unproven()
    stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_MEMORY_BYTES)
    try:
        for stored in blocks:
            rest: bytes | None = stored
            while rest is not None:
                if data := stream.decompress(rest, _BATCH_BYTES):
                    yield data
                rest = None if stream.eof or stream.needs_input else b""
            if stream.eof:
                break
    except lzma.LZMAError as exc:
        raise problem(f"lzma: {exc}") from exc
    if not stream.eof:
        raise problem("it is cut short: the lzma stream does not end")
    if stream.unused_data or next(blocks, b""):
        raise problem("it goes on after the end of the lzma stream")
