"""Objects of gzip (RFC 1952): one member with its CRC. WAL-G reads them, nobody of the family writes them. Read only.

More than one member is refused: an object that lost some of them could not be told from a whole one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

MAGIC: Final = b"\x1f\x8b"
_BATCH_BYTES: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS


def decode(
    blocks: Iterator[bytes], problem: Callable[[str], Exception], on_unproven: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The content of the one member in ``blocks``, in pieces of at most a megabyte. gzip always has a checksum.

    It ends only when the member's CRC and size were right and nothing follows. Raises ``problem(text)``.
    """
    member = zlib.decompressobj(_GZIP)
    try:
        for stored in blocks:
            rest = stored
            while rest and not member.eof:
                if data := member.decompress(rest, _BATCH_BYTES):
                    yield data
                rest = member.unconsumed_tail
            if member.eof:
                break
    except zlib.error as exc:
        raise problem(f"gzip: {exc}") from exc
    if not member.eof:
        raise problem("it is cut short: the gzip member does not end")
    if member.unused_data or next(blocks, b""):
        raise problem("it goes on after the end of the gzip member")
