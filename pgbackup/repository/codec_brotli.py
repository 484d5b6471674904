"""Brotli objects: one raw stream (RFC 7932), as WAL-G writes it with WALG_COMPRESSION_METHOD=brotli. For reading only.

The format has neither a magic number nor a checksum: what vouches for the content is encryption, a manifest, or
nothing. Memory: the stream's window, 16 MiB at the most, and a batch. The only importer of brotli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import brotli

MAGIC: Final = b""
_BATCH_BYTES: Final = 1 << 20


def decode(
    blocks: Iterator[bytes], problem: Callable[[str], Exception], on_unproven: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The content of the one stream in ``blocks``, in pieces of about a megabyte; ``on_unproven`` is always called.

    It ends only when the stream does, and nothing follows. Raises ``problem(text)``.
    """
    on_unproven()
    decompressor = brotli.Decompressor()
    try:
        for stored in blocks:
            if decompressor.is_finished():
                raise problem("it goes on after the end of the brotli stream")
            rest = stored
            while data := decompressor.process(rest, output_buffer_limit=_BATCH_BYTES):
                yield data
                rest = b""
                if decompressor.is_finished():
                    break
    except brotli.error as exc:
        raise problem("its brotli stream is damaged, or something follows it") from exc
    if not decompressor.is_finished():
        raise problem("it is cut short: the brotli stream does not end")
