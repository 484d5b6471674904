"""How a body of some size is handed to boto3: as a file, in blocks that suit the connection.

urllib3 reads a file 16 KiB at a time and sends each piece by a call of its own, which costs a dozen calls in Python.
Over TLS the pieces may be larger: Python's SSL socket sends one record (16 KiB) at a time anyway, each with the whole
timeout for itself. A plain socket has one timeout for a whole piece; so that a slow line stays in time, it gets the
small ones. A body that is no file would be one piece.

Where bodies have a checksum, it is made here and goes in a header. botocore would send one of its own behind the body,
and cut the body up again on the way: 16 KiB at a time, for each of which it copies the rest of a mebibyte.
"""

from __future__ import annotations

import base64
import io
import zlib
from typing import IO, Any

TLS_BLOCK_BYTES = 128 << 10
CHECKSUM = "CRC32"
BODY_TYPE = "binary/octet-stream"
"""What S3 calls a body without a type. SeaweedFS guesses instead: where the first 128 bytes of a body (or of 4 MiB of
it) look as if they could be made smaller, it compresses the whole once more."""


def as_body(data: bytes, *, over_tls: bool) -> IO[bytes]:
    """A file of ``data``, which is not copied."""
    return _LargeBlocks(data) if over_tls else io.BytesIO(data)


def checksum_of(data: bytes) -> dict[str, Any]:
    """The CRC-32 of a body, as boto3's arguments for PutObject and UploadPart (base64 of the big-endian number)."""
    digest = zlib.crc32(data).to_bytes(4, "big")
    return {"ChecksumAlgorithm": CHECKSUM, f"Checksum{CHECKSUM}": base64.b64encode(digest).decode("ascii")}


class _LargeBlocks(io.BytesIO):
    """A file that gives more than it is asked for, which neither urllib3 nor botocore minds."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size <= 0 else max(size, TLS_BLOCK_BYTES))
