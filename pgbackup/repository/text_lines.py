"""The lines of a stored text, read as a stream: memory is one line and one block, whatever the object's size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pgbackup.errors import CorruptObject
from pgbackup.storage.base import ByteStream

MAX_LINE_BYTES: Final = 1 << 20
_READ_BYTES: Final = 256 << 10


def iter_line_bytes(key: str, stream: ByteStream) -> Iterator[bytes]:
    """Each line with its newline; the last one may have none. Raises CorruptObject for a line that nobody writes."""
    rest = b""
    while data := stream.read(_READ_BYTES):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE_BYTES:
            raise CorruptObject(key, f"it has a line of more than {MAX_LINE_BYTES} bytes")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def iter_lines(key: str, stream: ByteStream) -> Iterator[str]:
    """Each line as text without its newline. Raises CorruptObject."""
    try:
        for line in iter_line_bytes(key, stream):
            yield line.decode().removesuffix("\n")
    except UnicodeDecodeError as exc:
        raise CorruptObject(key, f"not UTF-8 ({exc.reason})") from exc
